"""What a run is likely to cost and its cap, at the command line."""

from __future__ import annotations

from typing import Any

import pytest
from support.command_line import CommandLine
from support.desk import DeskDriver
from support.sandbox import Sandbox

RECORDS: list[dict[str, Any]] = [{"key": f"k{n}", "text": "about alpha " * (n + 1)} for n in range(20)]


def test_a_dry_run_tells_what_the_run_would_cost(line: CommandLine, sandbox: Sandbox) -> None:
    line.write("docs.jsonl", *RECORDS)
    done = line("run", "summarise", "docs.jsonl", "--dry-run", "--json")
    found = done.summary["estimate"]
    assert 0 < found["low_usd"] < found["likely_usd"] < found["high_usd"] < found["most_usd"]
    assert (found["counted"], found["sandbox"]) == (6, False)
    assert "It would cost $0." in done.err and "The API counted 6 of the 20 requests" in done.err
    assert "nothing sent but 6 requests to be counted, which is free" in done.err
    assert sandbox.accepted() == []


def test_a_dry_run_without_a_key_asks_nobody(bare: CommandLine) -> None:
    bare.write("docs.jsonl", *RECORDS)
    done = bare("run", "summarise", "docs.jsonl", "--dry-run", "--json")
    found = done.summary["estimate"]
    assert (found["counted"], found["sandbox"]) == (0, True)
    assert found["high_usd"] <= 2.5 * found["low_usd"]
    assert "the sandbox answers: that is nobody's money" in done.err and "No tokens were counted" in done.err
    unknown = bare("run", "summarise", "docs.jsonl", "--dry-run", "--json", "--set", "model=claude-nobody-9")
    assert unknown.summary["estimate"]["high_usd"] is None and "What it would cost is unpriced" in unknown.err


@pytest.mark.usefixtures("worker")
def test_a_capped_run_stops_and_goes_on_when_it_is_raised(line: CommandLine, desk: DeskDriver) -> None:
    line.write("docs.jsonl", *RECORDS)
    done = line("run", "summarise", "docs.jsonl", "--cap", "0.000001")
    assert done.status == 4 and "The cap of run 1 is $" in done.err
    assert line("resume", "1", "--cap", "1").status == 0
    assert line("resubmit", "1", "--class", "stopped").status == 0
    assert desk.status(1).state == "finished"


def test_a_cap_that_is_no_amount_is_bad_usage(bare: CommandLine) -> None:
    bare.write("docs.jsonl", *RECORDS)
    done = bare("run", "summarise", "docs.jsonl", "--cap", "much")
    assert done.status == 2 and "amount in US dollars" in done.err
