"""Writing outputs and set-aside records: exact as JSONL, safe as CSV, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.errors import InputError
from webapp.records.exporting import (
    COLUMNS,
    OutputRow,
    check_out_path,
    csv_lines,
    jsonl_line,
    rejected_path,
    set_aside,
    setting_aside,
    write_outputs,
)
from webapp.records.reading import RAW_BYTES, Problem, read_records


def row(key: str = "a", output: str | None = '"yes"', error: str | None = None) -> OutputRow:
    return OutputRow(key, "succeeded", output, error, "s1-tok-1", 1)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def cells(one: OutputRow) -> dict[str, str]:
    text = b"".join(csv_lines([one])).decode()
    (found,) = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    return found


# ---- JSONL


def test_a_line_has_the_six_members_in_their_order() -> None:
    assert jsonl_line(row(output='{"label": "a"}')) == (
        b'{"key":"a","status":"succeeded","output":{"label": "a"},"error":null,"custom_id":"s1-tok-1","attempts":1}\n'
    )
    assert jsonl_line(OutputRow("b", "stopped", None, "never sent", None, 0)) == (
        b'{"key":"b","status":"stopped","output":null,"error":"never sent","custom_id":null,"attempts":0}\n'
    )


def test_an_output_is_written_escape_for_escape() -> None:
    output = '{"text":"\\u0000 \\ud800 <script>é\u2028\\u00e9","n":1.50e1}'
    assert b'"output":' + output.encode() + b',"error"' in jsonl_line(row(output=output))


def test_a_pretty_printed_output_stays_on_one_line() -> None:
    line = jsonl_line(row(output='{\r\n  "label": "a\\nb"\n}'))
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert json.loads(line)["output"] == {"label": "a\nb"}


def test_text_with_lone_surrogates_is_written_as_escapes() -> None:
    line = jsonl_line(row(key="\ud800", output='"\udfff"', error="\udc80\0"))
    assert line.isascii()
    found = json.loads(line)
    assert (found["key"], found["output"], found["error"]) == ("\ud800", "\udfff", "\udc80\0")


@given(
    st.text(),
    st.recursive(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists),
    st.booleans(),
)
def test_any_output_comes_back_from_its_line(key: str, output: object, ascii_only: bool) -> None:
    stored = json.dumps(output, ensure_ascii=ascii_only, indent=2)
    line = jsonl_line(row(key, stored))
    found = json.loads(line)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert (found["key"], found["output"]) == (key, output)


# ---- CSV


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\u00a0=1", "＝1", "＋1", "－1", "＠x", "\ttab"],
)
def test_a_cell_that_could_be_a_formula_is_made_text(text: str) -> None:
    assert cells(row(key=text, output=json.dumps(text), error=text)) == {
        "key": "'" + text,
        "status": "succeeded",
        "output": "'" + text,
        "error": "'" + text,
        "custom_id": "s1-tok-1",
        "attempts": "1",
    }


def test_ordinary_text_is_left_as_it_is() -> None:
    for text in ["a=b", "1-2", "me@x.org", "it's", "two\nlines", 'a "quoted", one; and 🙂', ""]:
        assert cells(row(output=json.dumps(text)))["output"] == text


def test_characters_no_screen_shows_are_visible_escapes() -> None:
    output = '"\\u0000\\u001b[31m\\ud800\\u0085 é\\ttab"'
    assert cells(row(output=output, error="\0\udc80"))["output"] == "\\u0000\\u001b[31m\\ud800\\u0085 é\ttab"
    assert cells(row(output=output, error="\0\udc80"))["error"] == "\\u0000\\udc80"


def test_an_output_that_is_no_string_is_shown_as_its_json() -> None:
    for output in ['{"label": "a", "x": "\\u0000"}', "[1,2]", "1.50", "true", "null"]:
        assert cells(row(output=output))["output"] == output
    assert cells(row(output=None))["output"] == ""


def test_every_cell_is_quoted_so_that_no_other_delimiter_cuts_it() -> None:
    header, line = csv_lines([row(output='"a;=1+1"')])
    assert header == b'"key","status","output","error","custom_id","attempts"\r\n'
    assert line == b'"a","succeeded","a;=1+1","","s1-tok-1","1"\r\n'


@given(st.text(), st.text())
def test_no_cell_of_any_text_begins_a_formula_and_the_text_is_all_there(key: str, text: str) -> None:
    found = cells(row(key, json.dumps(text)))
    for shown in (found["key"], found["output"]):
        assert not shown.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))
        assert not shown.startswith(("\t", "\r", "\n"))
    if text.isprintable():
        assert found["output"].removeprefix("'") == text.removeprefix("'")


# ---- files


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".JSONL"])
def test_outputs_are_written_whole_by_ending_and_counted(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"my out{ending}"
    path.write_text("old")
    assert write_outputs((row(str(n)) for n in range(1000)), path) == 1000
    with path.open(newline="") as stream:
        keys = [r["key"] for r in (csv.DictReader(stream) if ending == ".csv" else map(json.loads, stream))]
    assert keys == [str(n) for n in range(1000)]
    assert names_in(tmp_path) == [path.name]


def test_no_rows_make_an_empty_file_or_a_header(tmp_path: Path) -> None:
    assert write_outputs([], tmp_path / "out.jsonl") == write_outputs([], tmp_path / "out.csv") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert (tmp_path / "out.csv").read_text().strip() == ",".join(f'"{name}"' for name in COLUMNS)


def test_a_write_that_breaks_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")

    def breaking() -> Iterator[OutputRow]:
        yield row()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_outputs(breaking(), path)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["out.jsonl"]


def test_a_replaced_file_keeps_its_permissions_and_a_link_its_place(tmp_path: Path) -> None:
    real = tmp_path / "real.jsonl"
    real.write_text("old")
    real.chmod(0o600)
    link = tmp_path / "out.jsonl"
    link.symlink_to("real.jsonl")
    write_outputs([row()], link)
    assert link.is_symlink()
    assert json.loads(real.read_text())["key"] == "a"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.txt", "must end in .jsonl or .csv"),
        ("out", "must end in .jsonl or .csv"),
        ("folder.jsonl", "is a folder; name a file in it"),
        ("none/out.jsonl", "does not exist; make it, or name another file"),
        ("file/out.csv", "does not exist; make it, or name another file"),
        ("locked/out.csv", "cannot be written"),
    ],
)
def test_a_bad_out_path_is_told_before_and_while_writing(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "locked").mkdir(mode=0o500)
    if name.startswith("locked") and os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("root may write everywhere")
    for verb in (check_out_path, lambda path: write_outputs([row()], path)):
        with pytest.raises(InputError, match=words) as raised:
            verb(tmp_path / name)
        assert name in str(raised.value)


def test_checking_a_good_out_path_leaves_no_trace(tmp_path: Path) -> None:
    check_out_path(tmp_path / "out.csv")
    assert not names_in(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_input_error_naming_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The part file is made at a link to the device that is always full.
    (tmp_path / ".batchdesk-full.part").symlink_to("/dev/full")
    monkeypatch.setattr("webapp.records.exporting._part", lambda path: path.with_name(".batchdesk-full.part"))
    with pytest.raises(InputError, match=r"out\.rejected\.jsonl cannot be written"):
        set_aside([Problem("x", "bad", "mend it", b"raw")], tmp_path / "out.rejected.jsonl")


# ---- set-aside records


def test_the_set_aside_file_stands_beside_the_output_else_beside_the_input(tmp_path: Path) -> None:
    assert rejected_path(Path("r/out.jsonl"), Path("in/docs.csv")) == Path("r/out.rejected.jsonl")
    assert rejected_path(Path("out.csv"), Path("in")) == Path("out.rejected.jsonl")
    assert rejected_path(None, Path("in/docs.csv")) == Path("in/docs.rejected.jsonl")
    (tmp_path / "photos.2024").mkdir()
    assert rejected_path(None, tmp_path / "photos.2024") == tmp_path / "photos.2024.rejected.jsonl"


def test_the_present_folder_as_input_is_set_aside_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rejected_path(None, Path()) == tmp_path.with_name(tmp_path.name + ".rejected.jsonl")


def test_bad_records_are_set_aside_as_found(tmp_path: Path) -> None:
    docs = tmp_path / "docs.jsonl"
    bad = [b'{"text":"no key"}', b"caf\xe9 \x00", "plain é".encode()]
    docs.write_bytes(b'{"key":"a","text":"A"}\n' + b"\n".join(bad))
    problems = [found for found in read_records(docs) if isinstance(found, Problem)]
    path = tmp_path / "out.rejected.jsonl"
    assert set_aside(problems, path) == 3
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["record"].encode("utf-8", "surrogateescape") for line in lines] == bad
    assert lines[0] == {
        "where": "docs.jsonl, line 2",
        "fault": 'it has no "key"',
        "remedy": 'add it, or name another field with --key-field (it has "text")',
        "record": '{"text":"no key"}',
    }


def test_a_record_that_was_cut_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.rejected.jsonl"
    set_aside([Problem("x", "bad", "mend it", b"x" * RAW_BYTES)], path)
    assert json.loads(path.read_bytes())["record_cut"] is True


def test_without_problems_there_is_no_file(tmp_path: Path) -> None:
    assert set_aside([], tmp_path / "x.rejected.jsonl") == 0
    assert not names_in(tmp_path)


def test_problems_can_be_set_aside_as_they_are_met_and_a_break_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.rejected.jsonl"
    problem = Problem("x", "bad", "mend it", b"raw")
    with setting_aside(path) as put:
        put(problem)
        put(problem)
    assert len(path.read_bytes().splitlines()) == 2
    path.unlink()
    with pytest.raises(ZeroDivisionError), setting_aside(path) as put:
        put(problem)
        raise ZeroDivisionError
    assert not names_in(tmp_path)
