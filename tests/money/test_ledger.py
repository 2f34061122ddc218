"""The ledger: one line for each billed answer, never two, never changed; a sum with an unpriced line is unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db
from webapp.batches.auditing import faults
from webapp.batches.states import FailureClass
from webapp.money import ledger
from webapp.runs import verbs

BILLED = ledger.Billed("msgbatch_1", 1, 1, datetime(2026, 11, 22, tzinfo=UTC))
USAGE = {"input_tokens": 1000, "output_tokens": 100}


def line(custom_id: str, *, model: Any = "claude-haiku-4-5", usage: Any = USAGE, duplicate: bool = False) -> Any:
    return ledger.line(ledger.bill(BILLED, custom_id, {"model": model, "usage": usage}), 1, duplicate=duplicate)


def append(*lines: Any) -> None:
    with db.transaction() as tx:
        ledger.append(tx, lines)


def totals() -> ledger.Totals:
    with db.transaction() as tx:
        return ledger.run_totals(tx, 1)


def test_an_answer_is_billed_once_however_often_it_is_read(desk: DeskDriver) -> None:
    append(line("a"))
    with pytest.raises(Exception, match="uq_ledger_lines_api_batch_id_custom_id"):
        append(line("a"))
    with db.transaction() as tx:
        assert ledger.known(tx, "msgbatch_1", ["a", "b"]) == {"a"}
        assert ledger.known(tx, "msgbatch_2", ["a"]) == set()


def test_a_sum_is_exact_and_unrounded(desk: DeskDriver) -> None:
    append(*(line(f"c{n}") for n in range(3)))
    assert totals() == ledger.Totals(Decimal("0.00225"), Decimal("0.0045"), 3)


@pytest.mark.parametrize("odd", [{"model": "claude-unheard-of"}, {"model": None}, {"usage": None}, {"usage": {}}])
def test_one_unpriced_line_makes_the_sum_unknown(desk: DeskDriver, odd: dict[str, Any]) -> None:
    append(line("a"), line("b", **odd))
    assert totals() == ledger.Totals(None, None, 2)


def test_a_run_without_answers_costs_nothing(desk: DeskDriver) -> None:
    assert totals() == ledger.Totals(Decimal(0), Decimal(0), 0)


def test_a_duplicate_costs_but_would_not_have_been_asked_for_synchronously(desk: DeskDriver) -> None:
    append(line("a"), line("b", duplicate=True))
    assert totals() == ledger.Totals(Decimal("0.0015"), Decimal("0.0015"), 2)


def test_totals_of_several_runs_and_batches_are_told_at_once(desk: DeskDriver) -> None:
    append(line("a"), line("b"))
    append(line("c", model="claude-unheard-of"))
    with db.transaction() as tx:
        assert ledger.totals_of_runs(tx, [1, 2]) == {1: ledger.Totals(None, None, 3)}
        assert ledger.totals_of_batches(tx, ["msgbatch_1", "msgbatch_2"]) == {
            "msgbatch_1": ledger.Totals(None, None, 3)
        }


def test_spend_is_told_by_day_and_the_sandbox_is_no_spend(desk: DeskDriver) -> None:
    today = datetime.now(UTC).replace(hour=12)
    desk.execute(
        "INSERT INTO accounts (fingerprint, base_url, sandbox) SELECT 'f' || n, 'u', n = 2 FROM generate_series(1, 2) n"
    )
    for days, account in ((0, 1), (0, 1), (1, 1), (1, 2), (40, 1)):
        billed = ledger.Billed(f"b{days}{account}", account, 1, today - timedelta(days=days))
        lines = [
            ledger.bill(billed, f"{uuid4()}", {"model": model, "usage": USAGE}) for model in ("claude-haiku-4-5", "x")
        ]
        append(*(ledger.line(one, 1, duplicate=False) for one in lines))
    with db.transaction() as tx:
        spent, made_up = ledger.spend_by_day(tx, 30), ledger.spend_by_day(tx, 30, sandbox=True)
    one, two = Decimal("0.00075"), Decimal("0.0015")
    assert [(day.cost_usd, day.sync_cost_usd, day.unpriced, day.lines) for day in spent] == [
        (one, two, 1, 2),
        (2 * one, 2 * two, 2, 4),
    ]
    assert [day.day for day in spent] == [today.date() - timedelta(days=1), today.date()]
    assert [(day.day, day.cost_usd) for day in made_up] == [(today.date() - timedelta(days=1), one)]


def test_the_books_tell_when_tallies_and_ledger_differ(desk: DeskDriver) -> None:
    append(line("a"), line("b", duplicate=True), line("c", model=None, usage=None))
    told = "1 runs whose ledger tallies differ from their ledger lines"
    assert told not in faults()
    desk.execute("UPDATE ledger_tallies SET output_tokens = output_tokens + 1 WHERE model IS NOT NULL")
    assert told in faults()


def test_the_tokens_are_on_the_line_as_they_were_told(desk: DeskDriver) -> None:
    usage = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_creation_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
        "cache_read_input_tokens": 5,
        "server_tool_use": {"web_search_requests": 6},
        "inference_geo": "us",
    }
    append(line("a", usage=usage))
    (row,) = desk.rows(
        "SELECT input_tokens, output_tokens, write_5m_tokens, write_1h_tokens, read_tokens, web_searches, "
        "inference_geo, model, duplicate FROM ledger_lines"
    )
    assert tuple(row) == (1, 2, 3, 4, 5, 6, "us", "claude-haiku-4-5", False)


def test_a_run_that_succeeded_has_a_cost(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I9: succeeded, and a cost of nothing, would be an alarm."""
    run_id = desk.run(documents(5))
    summary = desk.summary(run_id)
    assert summary.succeeded == 5
    assert summary.cost_usd and summary.sync_cost_usd == pytest.approx(2 * summary.cost_usd)
    audit(desk, sandbox)


def test_answers_that_were_paid_and_never_seen_go_again_only_by_hand(desk: DeskDriver, sandbox: Sandbox) -> None:
    """The API counts them as succeeded, so that sending them again by itself would pay twice."""
    sandbox.configure(results_faults="missing:2*2")
    run_id = desk.run(documents(6))
    assert (desk.summary(run_id).succeeded, desk.summary(run_id).missing) == (4, 2)
    with db.transaction() as tx:
        assert verbs.resubmit_run(tx, run_id, [FailureClass.RETRY], actor="tester") == 2
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 6
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 6
    batches = sandbox.bill()["batches"]
    assert sum(batch["total"]["requests"] for batch in batches) == 8  # two were billed and never seen
