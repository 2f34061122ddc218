"""Runs by the command line against servers of one's own: outputs, objects, statuses, and what one asks of runs."""

from __future__ import annotations

import csv
import json

import pytest
from support.command_line import CommandLine
from support.desk import DeskDriver, documents
from support.installation import until
from support.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("worker")

KEYS = ["run", "requests", "succeeded", "errored", "canceled", "expired", "missing", "stopped", "invalid"]
COLUMNS = ["key", "status", "output", "error", "custom_id", "attempts"]


def at_the_api(desk: DeskDriver) -> None:
    """Wait until the batch of a run is there: whoever stops waiting may do so before it is planned."""
    until(lambda: "in_progress" in desk.states(), "its batch is at the API")


@pytest.mark.parametrize(
    "command", [["status"], ["resubmit"], ["pause"], ["resume"], ["cancel"], ["export", "--out", "out.jsonl"]]
)
def test_an_unknown_run_is_bad_usage(line: CommandLine, command: list[str]) -> None:
    done = line(*command, "77")
    assert (done.status, done.out) == (2, "")
    assert "There is no run 77." in done.err


def test_a_run_is_paused_and_resumed(line: CommandLine, desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    assert line.classify(line.write("docs.jsonl", *documents(3)), "--timeout", "0.3").status == 4
    at_the_api(desk)
    paused = line("pause", "1")
    assert (paused.status, paused.out) == (0, "")
    assert "batchdesk resume 1" in paused.err
    assert "paused (Paused by command line.)" in line("status", "1").out
    assert line("pause", "1").status == 2
    sandbox.advance(4000)
    assert line("resume", "1").status == 0
    assert line("resume", "1").status == 2
    assert line("resubmit", "1", "--json").summary["succeeded"] == 3


def test_status_without_runs_says_how_to_start_one(line: CommandLine) -> None:
    done = line("status")
    assert done.status == 0 and "batchdesk run" in done.out
    assert json.loads(line("status", "--json").out) == []


def test_the_object_and_the_lines_of_a_run_with_failures(line: CommandLine, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=0.2)
    source = line.write("docs.jsonl", *documents(40))
    done = line.classify(source, "--json", "--out", "out.jsonl")
    assert done.status == 3, done.err
    assert list(done.summary) == [*KEYS, "batches", "cost_usd", "sync_cost_usd"]
    assert done.out.count("\n") == 1
    lines = line.lines("out.jsonl")
    assert [list(one) for one in lines] == [COLUMNS] * 40
    assert [one["key"] for one in lines] == [f"doc-{n}" for n in range(40)]
    failed = [one for one in lines if one["status"] == "errored"]
    assert len(failed) == done.summary["errored"] == 40 - done.summary["succeeded"] > 0
    assert all("content filtering" in one["error"] and one["output"] is None for one in failed)

    assert line("status", "1", "--json").summary == done.summary
    assert json.loads(line("status", "--json").out) == [done.summary]
    assert "classify, finished" in line("status").out

    nothing = line("resubmit", "1", "--class", "retry", "--json")
    assert (nothing.status, nothing.summary) == (3, done.summary)
    assert "nothing to send again" in nothing.err
    sandbox.configure(invalid_share=0)
    again = line("resubmit", "1", "--class", "fix", "--json", "--out", "again.jsonl")
    assert (again.status, again.summary["succeeded"]) == (0, 40), again.err
    assert [one["attempts"] for one in line.lines("again.jsonl")] == [1 + (one in failed) for one in lines]
    assert line("export", "1", "--out", "third.jsonl").status == 0
    assert line.lines("third.jsonl") == line.lines("again.jsonl")


def test_without_json_or_out_people_are_told_and_stdout_stays_empty(line: CommandLine) -> None:
    done = line.classify(line.write("docs.jsonl", *documents(3)))
    assert (done.status, done.out) == (0, "")
    assert "Run 1: 3 of 3 succeeded" in done.err and "USD" in done.err


def test_resubmit_without_waiting_leaves_at_once(line: CommandLine, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=1)
    line.classify(line.write("docs.jsonl", *documents(3)))
    sandbox.configure(invalid_share=0)
    left = line("resubmit", "1", "--no-wait")
    assert left.status == 0 and "3 subjects are sent again" in left.err
    assert line("resubmit", "1", "--json").summary["succeeded"] == 3


def test_answers_that_are_no_use_are_invalid_and_not_succeeded(line: CommandLine, sandbox: Sandbox) -> None:
    sandbox.configure(nasty_share=1, nasty_bytes=1000)
    done = line.classify(line.write("docs.jsonl", *documents(30)), "--json", "--out", "out.jsonl")
    assert done.status == 3
    lines = line.lines("out.jsonl")
    invalid = [one for one in lines if one["status"] == "invalid"]
    assert len(invalid) == done.summary["invalid"] > 0
    assert done.summary["succeeded"] == sum(one["status"] == "succeeded" for one in lines)
    assert all(one["error"] and one["output"] is None for one in invalid)


def test_a_csv_is_safe_to_open_in_a_spreadsheet(line: CommandLine) -> None:
    source = line.write("docs.jsonl", {"key": "=1+1", "text": "about alpha"}, {"key": "+b", "text": "beta \x00"})
    done = line.classify(source, "--out", "out.csv")
    assert (done.status, done.out) == (0, ""), done.err
    with (line.folder / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == COLUMNS
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+b"]
    assert [row[2] for row in rows[1:]] == ['{"label":"alpha"}', '{"label":"beta"}']


def test_fields_may_have_other_names_and_names_may_be_anything(line: CommandLine) -> None:
    source = line.write("bücher & 'so' 😀.csv", 'id;words\n"😀 ""x\'";about alpha\n'.encode())
    done = line.classify(source, "--key-field", "id", "--text-field", "words", "--out", "it's 😀.jsonl", "--json")
    assert done.status == 0, done.err
    assert [one["key"] for one in line.lines("it's 😀.jsonl")] == ["😀 \"x'"]


def test_a_timeout_leaves_the_run(line: CommandLine, desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=1000, cancel_delay=1000)
    done = line.classify(line.write("docs.jsonl", *documents(3)), "--timeout", "0.3", "--json", "--out", "out.jsonl")
    assert done.status == 4 and "the time is over" in done.err and "batchdesk status 1" in done.err
    assert done.summary["requests"] == 3 and done.summary["succeeded"] == 0
    assert not (line.folder / "out.jsonl").exists()
    at_the_api(desk)
    cancelled = line("cancel", "1")
    assert cancelled.status == 0, cancelled.err
    assert line("resubmit", "1", "--timeout", "0.1").status == 4, "the API is still ending it"


def test_doctor_names_alarms(line: CommandLine, desk: DeskDriver, sandbox: Sandbox) -> None:
    """I9, I12: a batch of which nothing came, and answers that cost nothing."""
    run_id = desk.run(documents(2))
    desk.bill("0")
    sandbox.configure(invalid_share=1)
    desk.run(documents(3))
    found = line("doctor").out
    assert f"BAD  Run {run_id}: 2 answers came, and all of them together cost nothing." in found
    assert "BAD  Batch 2 of run 2: None of its 3 requests was answered. The first says: " in found
    assert "-> Mend the cause, then resubmit" in found


def test_doctor_looks_at_everything(line: CommandLine, desk: DeskDriver) -> None:
    done = line("doctor")
    assert done.status == 1
    for words in ("Database: version", "Queue: answers", "API: ", "organization", "BAD  workers up: 0"):
        assert words in done.out
    assert line.environ["BATCHDESK_SECRET_KEY"] not in done.out and line.environ["DATABASE_URL"] not in done.out
