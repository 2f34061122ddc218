"""Wheels as they are looked into: what a plugin may not bring is refused, before anything of it is unpacked or runs."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.plugin_wheels import NAME, SOURCE, file_name, wheel

from webapp.errors import InputError, PluginError
from webapp.packages import host, unpacking, wheels

INFO = "batchdesk_stamp-1.0.dist-info"


def refused(content: bytes, name: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        wheels.read(content, name or file_name())
    words = str(caught.value)
    assert words.startswith(f"{name or file_name()} cannot be installed: ")
    return words


def test_a_sound_wheel_says_what_it_is() -> None:
    content = wheel(
        "1.0",
        requires=["pydantic>=2", "no-such>=1; extra == 'more'"],
        metadata=["Author: Ada", "License: MIT", "Requires-Python: >=3.11"],
        files={"stamping_more/__init__.py": "", "stamping_more/words.txt": "Stamp it.", "notes.txt": ""},
    )
    found = wheels.read(content, file_name())
    about = found.about
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert (about.name, about.version, about.summary) == (NAME, "1.0", "Stamps each record.")
    assert (about.author, about.license, about.requires_python) == ("Ada", "MIT", ">=3.11")
    assert about.modules == ("stamping", "stamping_more")
    assert about.hooks == ("register_tasks",)
    assert about.entry_points == (("stamping", "stamping"),)
    host.check(about)


def test_hooks_are_found_however_they_are_marked() -> None:
    source = """
import webapp.hooks as contract
from webapp.hooks import hookimpl

@contract.hookimpl
def check_run(run, settings): ...

class Plugin:
    @hookimpl(tryfirst=True)
    def register_sinks(self): ...

    @staticmethod
    def not_one(): ...
"""
    assert wheels.read(wheel(source=source), file_name()).about.hooks == ("check_run", "register_sinks")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../outside.py", "would land outside its folder"),
        ("stamping/../../outside.py", "would land outside its folder"),
        ("/etc/outside.py", "would land outside its folder"),
        ("C:/outside.py", "would land outside its folder"),
        ("a\\b.py", "would land outside its folder"),
        ("a//b.py", "would land outside its folder"),
        ("a\n.py", "would land outside its folder"),
        ("start.pth", "would change how Python starts"),
        ("Sub/START.PTH", "would change how Python starts"),
        ("fast.cpython-311-x86_64-linux-gnu.so", "is machine code"),
        ("batchdesk_stamp-1.0.data/scripts/run", "would be put outside its folder"),
        ("batchdesk_stamp-1.0.data/purelib/x.py", "would be put outside its folder"),
        ("STAMPING.py", "twice"),
    ],
)
def test_a_file_in_the_wrong_place_is_refused(path: str, words: str) -> None:
    assert words in refused(wheel(files={path: "x = 1"}))


def test_a_link_is_refused() -> None:
    stream = io.BytesIO(wheel())
    link = zipfile.ZipInfo("link.py")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "holds a link (link.py)" in refused(stream.getvalue())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stamp.whl", "not that of a wheel"),
        ("stamp-1.0.tar.gz", "not that of a wheel"),
        ("batchdesk_stamp-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", "no pure wheel for Python 3"),
        ("batchdesk_stamp-1.0-py2-none-any.whl", "no pure wheel for Python 3"),
        ("batchdesk_stamp-2.0-py3-none-any.whl", "of another package than its name says"),
        ("other-1.0-py3-none-any.whl", "of another package than its name says"),
    ],
)
def test_a_name_that_is_no_wheels_or_anothers_is_refused(name: str, words: str) -> None:
    assert words in refused(wheel(), name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"record": ""}, "which is not in the list of its files (RECORD)"),
        ({"record": "stamping.py,sha256=AAAA,1\n"}, "stamping.py is not what the list of its files (RECORD) says"),
        ({"record": "stamping.py\n"}, "the list of its files (RECORD) cannot be read"),
        ({"pure": "false"}, "made for one kind of machine"),
        ({"metadata": ["Name: other"], "name": "batchdesk-stamp"}, ""),
        ({"entry_points": ""}, "no entry point in the group batchdesk.plugins"),
        ({"entry_points": "no section"}, "its entry points cannot be read"),
        ({"entry_points": "[batchdesk.plugins]\nx = gone:y\n"}, "leads to gone:y, which it does not hold"),
        ({"source": "def broken(:\n"}, "stamping.py, line 1 is no Python"),
        ({"source": "x = '\0'\n"}, "is no Python"),
    ],
)
def test_what_it_says_of_itself_must_be_true(changes: dict[str, Any], words: str) -> None:
    if words:
        assert words in refused(wheel(**changes))
    else:  # the first of two names is the one that counts
        assert wheels.read(wheel(**changes), file_name()).about.name == NAME


def test_a_file_that_the_list_names_and_that_is_gone_is_refused() -> None:
    with zipfile.ZipFile(io.BytesIO(wheel(files={"more.py": "x = 1"}))) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != "more.py"}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)
    assert "more.py is in the list of its files (RECORD) and not there" in refused(stream.getvalue())


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is no ZIP archive" in refused(b"PK\x03\x04 and no more")
    bomb = wheel(files={"zeros.txt": b"\0" * 300_000})
    assert len(bomb) < 10_000
    monkeypatch.setattr(wheels, "MOST_UNPACKED", 200_000)
    assert "more than 200,000 bytes when it is unpacked" in refused(bomb)
    monkeypatch.setattr(wheels, "MOST_FILES", 4)
    assert "holds 6 files" in refused(bomb)
    monkeypatch.setattr(wheels, "MOST_BYTES", 1000)
    assert "a plugin has 1,000 at most" in refused(bomb)


# -- the host ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "whose"),
    [("json", "one of Python's own"), ("webapp", "one of Batchdesk's own"), ("flask", "one that is there already (")],
)
def test_a_module_that_the_host_has_is_refused(module: str, whose: str) -> None:
    about = wheels.read(wheel(module=module), file_name()).about
    with pytest.raises(InputError, match="Its author must rename it") as caught:
        host.check(about)
    assert f"its module '{module}' has the name of {whose}" in str(caught.value)


def test_a_package_of_the_environment_is_not_installed_beside_it() -> None:
    about = wheels.read(wheel("9.0", name="flask", module="stamping"), file_name("9.0", "flask")).about
    with pytest.raises(InputError, match="flask is in the environment that Batchdesk runs in already"):
        host.check(about)


def test_what_the_host_lacks_is_named_all_at_once() -> None:
    content = wheel(
        requires=["no-such-library", "pydantic<1", "pydantic>=2", "other; python_version < '3'", "!!"],
        metadata=["Requires-Python: <3"],
    )
    lacking = host.lacks(wheels.read(content, file_name()).about)
    assert lacking[0].startswith("Python <3; this is 3.")
    assert lacking[1] == "no-such-library, which is not there"
    assert lacking[2].startswith("pydantic<1; 2.")
    assert lacking[3] == "'!!', which is not written as requirements are"
    assert len(lacking) == 4


# -- unpacked ----------------------------------------------------------------------------------------------------


def test_a_wheel_is_unpacked_once_and_whole(tmp_path: Path) -> None:
    content = wheel()
    sha256 = hashlib.sha256(content).hexdigest()
    got: list[int] = []

    def fetch() -> bytes:
        got.append(1)
        return content

    folder = unpacking.unpacked(tmp_path, NAME, "1.0", sha256, fetch)
    assert unpacking.unpacked(tmp_path, NAME, "1.0", sha256, fetch) == folder
    assert got == [1]
    assert folder == tmp_path / "plugins" / f"{NAME}-1.0-{sha256[:12]}"
    assert (folder / "stamping.py").read_text() == SOURCE.format(version="1.0")
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]


def test_a_wheel_that_is_not_the_one_that_was_installed_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="its sha256 differs"):
        unpacking.unpacked(tmp_path, NAME, "1.0", "0" * 64, wheel)
    assert not (tmp_path / "plugins").exists()


def test_what_is_not_kept_any_more_is_tidied_away_and_what_is_being_made_is_not(tmp_path: Path) -> None:
    content = wheel()
    sha256 = hashlib.sha256(content).hexdigest()
    kept = unpacking.unpacked(tmp_path, NAME, "1.0", sha256, lambda: content)
    for name in ("gone-1.0-aaaaaaaaaaaa", ".making-old", ".making-new"):
        (tmp_path / "plugins" / name).mkdir()
    os.utime(tmp_path / "plugins" / ".making-old", (1_000_000_000, 1_000_000_000))
    unpacking.forget(tmp_path, unpacking.present(tmp_path) - {kept.name})
    assert unpacking.present(tmp_path) == {".making-new", kept.name}
    assert unpacking.present(tmp_path / "nowhere") == set()
