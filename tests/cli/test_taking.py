"""`batchdesk run` over what a plugin's source gives, and over the outputs of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import CommandLine
from support.desk import DeskDriver, documents


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the source `files` may read: by the worker, which is in this process, and by the command."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    monkeypatch.setenv("BATCHDESK_FILES", str(allowed))
    (allowed / "docs.csv").write_text("key,text\na,about alpha\nb,about beta\n")
    (allowed / "bad.csv").write_text("key,text\na,about alpha\n,nobody\n")
    return allowed


def test_a_source_is_imported_by_the_workers_and_run_over(
    line: CommandLine, worker: None, folder: Path, desk: DeskDriver
) -> None:
    arguments = ["--set", "labels=alpha,beta", "--source", "files", "--source-set", "path=docs.csv"]
    done = line("run", "classify", *arguments, "--out", "out.jsonl", "--json")

    assert (done.status, done.summary["succeeded"]) == (0, 2), done.err
    assert [one["key"] for one in line.lines("out.jsonl")] == ["a", "b"]
    assert "Run 1 of classify started over dataset 1." in done.err
    assert desk.scalar("SELECT source_name FROM datasets") == "files"


def test_records_that_are_no_use_stop_it_or_are_left_out(
    line: CommandLine, worker: None, folder: Path, desk: DeskDriver
) -> None:
    arguments = ["--set", "labels=alpha,beta", "--source", "files", "--source-set", "path=bad.csv", "--json"]
    done = line("run", "classify", *arguments)
    assert done.status == 2
    assert "bad.csv, line 3: its key is empty" in done.err and "add --skip-bad" in done.err
    assert desk.scalar("SELECT state FROM uploads") == "discarded"

    done = line("run", "classify", *arguments, "--skip-bad")
    assert (done.status, done.summary["requests"]) == (0, 1)
    assert "line 3: its key is empty" in done.err and "They are left out" in done.err


def test_the_outputs_of_a_run_are_run_over(line: CommandLine, worker: None, desk: DeskDriver) -> None:
    run_id = desk.start(documents(3))
    desk.work_until_over(run_id)
    done = line("run", "evaluate", f"run:{run_id}", "--set", "rubric=fits: the label fits", "--json")
    assert done.summary["requests"] == 3, done.err

    assert "no run 99" in line("run", "evaluate", "run:99", "--set", "rubric=fits: the label fits").err


def test_a_source_can_be_rehearsed(line: CommandLine, folder: Path) -> None:
    arguments = ["--set", "labels=alpha,beta", "--source", "files", "--dry-run", "--json"]
    done = line("run", "classify", *arguments, "--source-set", "path=docs.csv")
    assert (done.status, done.summary["requests"]) == (0, 2)
    assert line("run", "classify", *arguments, "--source-set", "path=bad.csv").status == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "file", "--source-set", "path=x"], ["no source 'file'", "Did you mean 'files'"]),
        (["--source", "files"], ["Source 'files' cannot run", "'path' is required"]),
        (["--source", "files", "--source-set", "path"], ["'path' is not NAME=VALUE"]),
        (["docs.csv", "--source", "files", "--source-set", "path=x"], ["INPUT or --source, not both"]),
        (["docs.csv", "--source-set", "path=x"], ["--source-set goes with --source"]),
        (["--source", "files", "--source-set", "path=x", "--key-field", "id"], ["--key-field is for files"]),
        (["run:1", "--dry-run"], ["--dry-run reads files and sources"]),
        (["run:x"], ["run:x", "check the name"]),
        ([], ["Missing argument 'INPUT'"]),
    ],
)
def test_bad_usage_of_sources_is_told(bare: CommandLine, arguments: list[str], words: list[str]) -> None:
    done = bare("run", "summarise", *arguments)
    assert done.status == 2
    for one in words:
        assert one in done.err
