"""`batchdesk money`: the same figures as the Money page, for people and for programs."""

from __future__ import annotations

import json

import pytest
from support.command_line import CommandLine
from support.desk import DeskDriver


@pytest.fixture
def billed(desk: DeskDriver) -> None:
    """Two answers of today, one of them a model's without a price and one a second time; and one of the sandbox."""
    for statement in (
        "INSERT INTO accounts (fingerprint, base_url, sandbox) "
        "SELECT 'f' || n, 'u', n = 2 FROM generate_series(1, 2) n",
        "INSERT INTO ledger_tallies (run_id, api_batch_id, account_id, model, day, lines, unpriced, sync_unpriced, "
        "duplicates, cost_usd, sync_cost_usd, uncached_cost_usd, duplicate_cost_usd, input_tokens, write_5m_tokens, "
        "write_1h_tokens, read_tokens, output_tokens, web_searches) "
        "SELECT 1, 'b', CASE model WHEN 'play' THEN 2 ELSE 1 END, model, CAST(now() AT TIME ZONE 'UTC' AS date), 2, "
        "CASE model WHEN 'new' THEN 2 ELSE 0 END, CASE model WHEN 'new' THEN 2 ELSE 0 END, "
        "CASE model WHEN 'old' THEN 1 ELSE 0 END, CASE model WHEN 'new' THEN 0 ELSE 3 END, "
        "CASE model WHEN 'new' THEN 0 ELSE 4 END, CASE model WHEN 'new' THEN 0 ELSE 3.5 END, "
        "CASE model WHEN 'old' THEN 1 ELSE 0 END, 0, 0, 0, 0, 0, 0 FROM unnest(ARRAY['old', 'new', 'play']) model",
    ):
        desk.execute(statement)


@pytest.mark.usefixtures("billed")
def test_what_was_spent_and_saved_is_told_in_words_and_as_an_object(line: CommandLine) -> None:
    told = line("money", "--by", "model")
    assert told.status == 0
    assert "$3.00 and 2 unpriced answers for 4 answers, $1.00 of it for 1 answers billed twice" in told.out
    assert "old: $3.00 for 2 answers" in told.out and "saved $2.00 by batching and -$0.50 by caching" in told.out
    assert "new: unpriced, 2 answers." in told.out and "play" not in told.out
    found = json.loads(line("money", "--by", "model", "--json").out)
    assert (found["cost_usd"], found["priced_usd"], found["answers"], found["unpriced"]) == (None, 3.0, 4, 2)
    old = next(one for one in found["model"] if one["model"] == "old")
    assert (old["cost_usd"], old["saved_by_batching_usd"], old["saved_by_caching_usd"]) == (3.0, 2.0, -0.5)
    play = line("money", "--sandbox")
    assert "the sandbox's play money: nobody is billed" in play.out and "$3.00 for 2 answers" in play.out


def test_a_period_that_makes_no_sense_is_bad_usage(line: CommandLine) -> None:
    for days in (("2026-11-30", "2026-11-01"), ("2025-01-01", "2026-11-01")):
        told = line("money", "--since", days[0], "--until", days[1])
        assert (told.status, told.out) == (2, "") and "must have 1 to 366 days" in told.err
    assert line("money", "--since", "november").status == 2
    assert "$0.00 for 0 answers" in line("money", "--since", "2020-01-01", "--until", "2020-01-31").out
