"""Archives: what is in them lands in one folder, and what must not land anywhere is refused in words."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from webapp.errors import InputError
from webapp.records import archives
from webapp.records.archives import Archive


def archive(*files: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as target:
        for name, content in files:
            target.writestr(name, content)
    return stream


def names(stream: io.BytesIO) -> list[str]:
    return [entry.name for entry in Archive(stream, "docs.zip").entries]


def unpacked(stream: io.BytesIO, folder: Path, **options: int) -> list[str]:
    opened = Archive(stream, "docs.zip")
    opened.unpack(opened.entries, folder, **options)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_are_unpacked_in_their_folders(tmp_path: Path) -> None:
    assert unpacked(archive(("b.txt", b"two"), ("a/c.txt", b"three")), tmp_path) == ["a/c.txt", "b.txt"]
    assert (tmp_path / "a" / "c.txt").read_bytes() == b"three"


def test_an_archive_of_one_folder_is_read_as_that_folder() -> None:
    assert names(archive(("docs/b.txt", b"x"), ("docs/in/a.txt", b"x"))) == ["b.txt", "in/a.txt"]
    assert names(archive(("docs/b.txt", b"x"), ("more/a.txt", b"x"))) == ["docs/b.txt", "more/a.txt"]


def test_what_a_mac_adds_and_hidden_files_are_passed_over() -> None:
    files = (("docs/a.txt", b"x"), ("__MACOSX/docs/._a.txt", b"y"), ("docs/.DS_Store", b"z"), ("docs/.git/b.txt", b"z"))
    assert names(archive(*files)) == ["a.txt"]


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "..\\evil.txt", "C:/evil.txt", "a/b\\..\\evil.txt"]
)
def test_nothing_lands_outside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(InputError, match="outside its folder"):
        unpacked(archive(("good.txt", b"x"), (name, b"evil")), folder)
    assert list(tmp_path.rglob("*.txt")) == []


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InputError, match=r"holds a link \(link.txt\)"):
        unpacked(archive((link, b"/etc/passwd")), tmp_path)


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    bomb = archive(*((f"{n}.txt", bytes(1_000_000)) for n in range(20)))
    assert len(bomb.getvalue()) < 50_000
    with pytest.raises(InputError, match="too large when it is unpacked"):
        unpacked(bomb, tmp_path, most=5_000_000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5_000_000


def test_sizes_that_an_archive_claims_are_not_believed(tmp_path: Path) -> None:
    honest = archive(("a.txt", bytes(3_000_000))).getvalue()
    # The size after unpacking, in the file's own header and in the list at the end.
    lying = io.BytesIO(honest.replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(InputError):
        unpacked(lying, tmp_path, most=1_000_000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    with pytest.raises(InputError, match="holds 4 files; 3 are read"):
        names(archive(*((f"{n}.txt", b"x") for n in range(4))))


def test_a_file_that_is_longer_than_any_that_is_read_is_cut_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 2_000_000)
    unpacked(archive(("a.txt", bytes(9_000_000))), tmp_path)
    assert 2_000_000 < (tmp_path / "a.txt").stat().st_size <= 2_000_000 + (1 << 20)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_cannot_be_unpacked_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds a.txt twice"):
        unpacked(archive(("a.txt", b"x"), ("a.txt", b"y")), tmp_path)
    with pytest.raises(InputError, match="no ZIP archive that can be read"):
        names(io.BytesIO(b"PK\x03\x04 and nothing more"))
    whole = archive(("b.txt", bytes(range(256)) * 100), compression=zipfile.ZIP_STORED).getvalue()
    with pytest.raises(InputError, match=r"b\.txt cannot be unpacked"):
        unpacked(io.BytesIO(whole.replace(bytes(range(100)), bytes(100), 1)), tmp_path)
    locked = bytearray(archive(("c.txt", b"x")).getvalue())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputError, match="protected by a password"):
        names(io.BytesIO(bytes(locked)))
    long = f"{'n' * 300}.txt"
    with pytest.raises(InputError, match="cannot be written here"):
        unpacked(archive((long, b"x"), ("z.txt", b"x")), tmp_path)
