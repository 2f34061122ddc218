"""Each kind of input goes the whole road by the command line, and each status comes out of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from support.command_line import CommandLine
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("worker")


def test_a_folder_of_texts_is_classified_file_by_file(line: CommandLine) -> None:
    folder = line.folder / "my texts"
    (folder / "deeper").mkdir(parents=True)
    (folder / "b 😀.txt").write_text("about beta", "utf-8")
    (folder / "deeper" / "a.md").write_text("\ufeffabout alpha", "utf-8")
    done = line.classify(folder, "--out", "out.jsonl")
    assert done.status == 0, done.err
    found = [(one["key"], one["output"]) for one in line.lines("out.jsonl")]
    assert found == [("b 😀.txt", {"label": "beta"}), ("deeper/a.md", {"label": "alpha"})]


def test_a_folder_of_images_gets_alternative_texts(line: CommandLine) -> None:
    folder = line.folder / "pictures"
    folder.mkdir()
    for name, size in (("small.png", (40, 30)), ("large.png", (9000, 10))):
        Image.new("RGB", size, "red").save(folder / name)
    done = line("run", "alt_text", "pictures", "--out", "out.jsonl", "--json")
    assert done.status == 0, done.err
    lines = line.lines("out.jsonl")
    assert [one["key"] for one in lines] == ["large.png", "small.png"]
    assert all(one["output"] for one in lines)


def test_a_csv_with_other_delimiters_is_read(line: CommandLine) -> None:
    source = line.write("docs.csv", b'key;text\n1;about beta\n2;"about\nalpha"\n')
    done = line.classify(source, "--out", "out.jsonl")
    assert done.status == 0, done.err
    assert [one["output"]["label"] for one in line.lines("out.jsonl")] == ["beta", "alpha"]


def test_a_request_over_the_limit_is_errored_by_name_and_the_rest_runs(line: CommandLine, sandbox: Sandbox) -> None:
    source = line.write("docs.jsonl", *documents(2), {"key": "huge", "text": "word " * 6_800_000})
    done = line.classify(source, "--out", "out.jsonl", "--json")
    assert done.status == 3, done.err
    assert (done.summary["succeeded"], done.summary["errored"]) == (2, 1)
    huge = line.lines("out.jsonl")[2]
    assert (huge["key"], huge["status"], huge["attempts"]) == ("huge", "errored", 0) and "bytes" in huge["error"]
    assert len(sandbox.accepted()) == 2


@pytest.mark.parametrize(("share", "status"), [("missing_share", "missing"), ("expired_share", "expired")])
def test_what_never_comes_back_is_named_when_the_attempts_are_over(
    line: CommandLine, desk: DeskDriver, sandbox: Sandbox, share: str, status: str
) -> None:
    desk.change(max_attempts=2)
    sandbox.configure(**{share: 1})
    done = line.classify(line.write("docs.jsonl", *documents(3)), "--out", "out.jsonl", "--json")
    assert (done.status, done.summary[status]) == (3, 3), done.err
    for one in line.lines("out.jsonl"):
        assert (one["status"], one["output"], one["attempts"]) == (status, None, 2) and one["error"]


def test_a_run_without_credit_stops_the_waiting_with_the_reason(line: CommandLine, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="credit")
    done = line.classify(line.write("docs.jsonl", *documents(3)), "--json")
    assert done.status == 4 and "paused" in done.err and "credit balance" in done.err
    again = line("resubmit", "1", "--json")
    assert (again.status, again.summary["succeeded"]) == (0, 3), again.err
    assert "resumed" in again.err


def test_a_run_may_be_started_from_a_path_of_any_name(line: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "my" folder 😀'
    folder.mkdir()
    line.write(f"{folder.name}/docs.jsonl", *documents(2))
    done = line.classify(folder / "docs.jsonl", "--out", folder / "out.csv")
    assert done.status == 0 and (folder / "out.csv").exists(), done.err
