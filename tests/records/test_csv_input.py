"""Reading CSV: rows as objects, and bad rows named while the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from read_inputs import read, write

from webapp.records.reading import Record


def csv_file(tmp_path: Path, content: bytes | str) -> Path:
    return write(tmp_path / "leads.csv", content)


def data(records: list[Record]) -> list[dict[str, object]]:
    return [json.loads(record.data) for record in records]


def test_rows_become_objects_of_column_and_text(tmp_path: Path) -> None:
    path = csv_file(tmp_path, '\ufeffkey,text,n\r\n007,"two\r\nlines, ""quoted""",5\r\n\r\nb,B 🙂,\r\n')
    records, problems = read(path)
    assert data(records) == [
        {"key": "007", "text": 'two\r\nlines, "quoted"', "n": "5"},
        {"key": "b", "text": "B 🙂", "n": ""},
    ]
    assert [(r.key, r.kind, r.position) for r in records] == [("007", "document", 0), ("b", "document", 1)]
    assert not problems


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_read_from_the_header(tmp_path: Path, delimiter: str) -> None:
    path = csv_file(tmp_path, f"{delimiter.join(['key', 'text', 'a b'])}\n{delimiter.join(['1', 'hello', 'x'])}\n")
    assert data(read(path)[0]) == [{"key": "1", "text": "hello", "a b": "x"}]


def test_nul_in_a_cell_becomes_an_escape(tmp_path: Path) -> None:
    (record,), _ = read(csv_file(tmp_path, b"key,text\na,x\x00y\n"))
    assert record.data == b'{"key":"a","text":"x\\u0000y"}'


def test_bad_rows_are_named_by_their_first_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        b'key,text,n\na,"A\nA",1\nb,B\nc,C,1,2\nd,caf\xe9,1\ne,"E" e,1\nf,"F\n\nF\xff",1\n'
        b"a,again,1\n,no key,1\ng,,1\nz,Z,1\n",
    )
    records, problems = read(path)
    assert [(r.key, r.position) for r in records] == [("a", 0), ("z", 1)]
    assert [(p.where, p.fault) for p in problems] == [
        ("leads.csv, line 4", "it has 2 fields where the header has 3"),
        ("leads.csv, line 5", "it has 4 fields where the header has 3"),
        ("leads.csv, line 6", "it is not UTF-8: 0xE9 at byte 38 of the file, counted from 0"),
        ("leads.csv, line 7", "a quoted field goes on after its closing quote"),
        ("leads.csv, line 8", "it is not UTF-8: 0xFF at byte 59 of the file, counted from 0"),
        ("leads.csv, line 11", 'the key "a" is already that of line 2'),
        ("leads.csv, line 12", "its key is empty"),
        ("leads.csv, line 13", 'its text in "text" is empty'),
    ]
    assert problems[4].raw == b'f,"F\n\nF\xff",1'


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    records, problems = read(csv_file(tmp_path, 'key,text\na,A\nb,"B\nc,C\nd,D\n'))
    assert [r.key for r in records] == ["a"]
    assert [(p.where, p.raw) for p in problems] == [("leads.csv, line 3", b'b,"B\nc,C\nd,D')]
    assert "not closed" in problems[0].fault


def test_a_cell_of_megabytes_is_read(tmp_path: Path) -> None:
    (record,), _ = read(csv_file(tmp_path, "key,text\na," + "x" * (5 << 20) + "\n"))
    assert len(record.data) > 5 << 20
