"""Bad records stop a run before anything is stored or sent, all of them named; or are set aside on request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.command_line import CommandLine
from support.desk import DeskDriver
from support.sandbox import Sandbox

GOOD = {"key": "good", "text": "about alpha"}


def nothing_was_sent(desk: DeskDriver, sandbox: Sandbox) -> bool:
    tables = ("runs", "datasets", "subjects", "steps")
    return not sandbox.accepted() and not any(desk.scalar(f"SELECT count(*) FROM {name}") for name in tables)


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("docs.jsonl", [b"no json\n"], ["docs.jsonl, line 2"]),
        ("docs.jsonl", [b"[1, 2]\n"], ["docs.jsonl, line 2", "object"]),
        ("docs.jsonl", [{"text": "keyless"}], ["docs.jsonl, line 2", 'no "key"', "--key-field"]),
        ("docs.jsonl", [{"key": "", "text": "x"}], ["docs.jsonl, line 2", "its key is empty"]),
        ("docs.jsonl", [{"key": "nul\0", "text": "x"}], ["docs.jsonl, line 2", "NUL"]),
        ("docs.jsonl", [GOOD], ["docs.jsonl, line 2", 'key "good" is already that of line 1']),
        ("docs.jsonl", [{"key": "b"}], ["docs.jsonl, line 2", 'no "text"', "--text-field"]),
        ("docs.jsonl", [{"key": "b", "text": 5}], ["docs.jsonl, line 2", "not text"]),
        ("docs.jsonl", [b'{"key": "b", "text": "caf\xe9"}\n'], ["docs.jsonl, line 2", "UTF-8"]),
        ("docs.csv", [b"c,one,two\n"], ["docs.csv, line 3", "3 fields where the header has 2"]),
        ("docs.csv", [b'c,"open\n'], ["docs.csv, line 3", "not closed"]),
        ('my "own" docs\' 😀.jsonl', [b"no json\n"], ["docs' 😀.jsonl, line 2"]),
    ],
)
def test_a_bad_record_stops_the_run_by_file_line_fault_and_remedy(
    line: CommandLine, desk: DeskDriver, sandbox: Sandbox, name: str, lines: list[Any], words: list[str]
) -> None:
    start = [b"key,text\n", b"good,about alpha\n"] if name.endswith(".csv") else [GOOD]
    done = line.classify(line.write(name, *start, *lines), "--json", "--out", line.folder / "out.jsonl")
    assert (done.status, done.out) == (2, "")
    for word in [*words, "Nothing was sent", "--skip-bad", "; "]:
        assert word in done.err, done.err
    assert nothing_was_sent(desk, sandbox)
    assert not (line.folder / "out.jsonl").exists()


def test_an_image_that_is_none_is_named(line: CommandLine, desk: DeskDriver, sandbox: Sandbox) -> None:
    (line.folder / "pictures").mkdir()
    line.write("pictures/not a picture.png", b"words")
    done = line("run", "alt_text", "pictures")
    assert done.status == 2 and "pictures/not a picture.png" in done.err
    assert nothing_was_sent(desk, sandbox)


def test_the_first_twenty_are_named_and_all_are_counted(line: CommandLine, desk: DeskDriver, sandbox: Sandbox) -> None:
    done = line.classify(line.write("docs.jsonl", *[b"no json\n"] * 30, GOOD))
    assert done.status == 2
    assert "30 records cannot be used" in done.err and "and 10 more" in done.err
    assert "line 20:" in done.err and "line 21:" not in done.err
    assert nothing_was_sent(desk, sandbox)


@pytest.mark.usefixtures("worker")
def test_bad_records_are_set_aside_beside_the_output_and_the_rest_goes_on(line: CommandLine, sandbox: Sandbox) -> None:
    source = line.write("docs.jsonl", b"\xef\xbb\xbf", GOOD, b"no json\n", {"key": "b", "text": "about beta"}, GOOD)
    done = line.classify(source, "--skip-bad", "--json", "--out", line.folder / "out.jsonl")
    assert done.status == 0, done.err
    assert done.summary["requests"] == 2 and len(sandbox.accepted()) == 2
    assert "2 records cannot be used" in done.err and "out.rejected.jsonl" in done.err
    aside = line.lines("out.rejected.jsonl")
    assert [one["where"] for one in aside] == ["docs.jsonl, line 2", "docs.jsonl, line 4"]
    assert aside[0]["record"] == "no json" and json.loads(aside[1]["record"]) == GOOD
    assert all(one["fault"] and one["remedy"] for one in aside)
    assert [one["key"] for one in line.lines("out.jsonl")] == ["good", "b"]


def test_nothing_but_bad_records_is_no_run(line: CommandLine, desk: DeskDriver, sandbox: Sandbox) -> None:
    done = line.classify(line.write("docs.jsonl", b"no json\n"), "--skip-bad")
    assert done.status == 2 and "no usable record" in done.err
    assert nothing_was_sent(desk, sandbox)


def test_a_task_refuses_subjects_of_another_kind(line: CommandLine, desk: DeskDriver, sandbox: Sandbox) -> None:
    done = line("run", "alt_text", line.write("docs.jsonl", GOOD))
    assert done.status == 2 and "takes subjects of kind image" in done.err
    assert nothing_was_sent(desk, sandbox)
