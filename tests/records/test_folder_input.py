"""Reading a folder of text files: names as keys, and every file that cannot be used named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from read_inputs import read, write

from webapp.errors import InputError
from webapp.records.reading import Problem, Record, read_records


def data(records: list[Record]) -> list[dict[str, object]]:
    return [json.loads(record.data) for record in records]


def test_a_folder_of_texts_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "my docs"
    names = ["b/with 'quotes' \"x\".md", "a b.txt", "🙂.TXT", "new\nline.txt", "b/a.text"]
    for name in names:
        write(folder / name, f"\ufefftext of {name}\x00")
    write(folder / ".hidden.txt", "no")
    write(folder / ".git" / "x.txt", "no")
    records, problems = read(folder)
    assert not problems
    assert [r.key for r in records] == ["a b.txt", "b/a.text", "b/with 'quotes' \"x\".md", "new\nline.txt", "🙂.TXT"]
    assert [r.position for r in records] == [0, 1, 2, 3, 4]
    assert data(records)[0] == {"key": "a b.txt", "text": "text of a b.txt\0", "file": "a b.txt"}


def test_the_files_text_goes_under_the_name_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.txt", "A")
    records, _ = read(tmp_path / "d", key_field="id", text_field="body")
    assert data(records) == [{"id": "a.txt", "body": "A", "file": "a.txt"}]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    write(folder / "a.txt", "A")
    write(folder / "b.txt", b"caf\xe9")
    write(folder / "c.txt", "A".encode("utf-16"))
    write(folder / "d.txt", "")
    write(folder / "e.txt", " \n")
    write(folder / "f.docx", "x")
    write(folder / "g", "x")
    (folder / "h.txt").symlink_to("nowhere")
    (folder / "i").symlink_to(folder)
    os.mkfifo(folder / "j.txt")
    records, problems = read(folder)
    assert [r.key for r in records] == ["a.txt"]
    assert [(p.where, p.fault, p.raw) for p in problems] == [
        ("docs/b.txt", "it is not UTF-8: 0xE9 at byte 3 of the file, counted from 0", b"b.txt"),
        ("docs/c.txt", "it is encoded in UTF-16, as its byte order mark says", b"c.txt"),
        ("docs/d.txt", "it is empty", b"d.txt"),
        ("docs/e.txt", "it is empty", b"e.txt"),
        ("docs/f.docx", "a file with ending .docx among text files", b"f.docx"),
        ("docs/g", "a file with no ending among text files", b"g"),
        ("docs/h.txt", "it cannot be read: No such file or directory", b"h.txt"),
        ("docs/i", "this link leads back to a folder it is in", b"i"),
        ("docs/j.txt", "it is no regular file", b"j.txt"),
    ]


def test_a_name_that_is_no_utf8_is_a_problem_shown_by_an_escape(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.txt", "A")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "d") + b"/\xff.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    _, (problem,) = read(tmp_path / "d")
    assert problem == Problem(
        "d/\\udcff.txt", "its name is not UTF-8, so it cannot be a key", "rename the file", b"\xff.txt"
    )


def test_a_folder_of_both_kinds_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    write(tmp_path / "mixed" / "a.txt", "A")
    write(tmp_path / "mixed" / "in" / "b.png", "B")
    write(tmp_path / "other" / "c.docx", "C")
    for name, words in [
        ("empty", "holds no text files or images; the endings read are"),
        ("mixed", r"holds text files \(a.txt\) and images \(in/b.png\); move one kind to a folder of its own"),
        ("other", r"holds no text files or images, only others \(c.docx\)"),
    ]:
        with pytest.raises(InputError, match=words):
            read_records(tmp_path / name)


def test_the_present_folder_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    write(folder / "a.txt", "")
    monkeypatch.chdir(folder)
    _, (problem,) = read(Path())
    assert problem.where == "here/a.txt"
