"""What needs a person though nothing is stuck: results that will vanish, batches of which nothing came, no cost."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches.alarms import Alarm, alarms
from webapp.batches.states import FailureClass


def raised() -> list[Alarm]:
    with db.transaction() as tx:
        return alarms(tx)


def made_ago(desk: DeskDriver, days: int) -> None:
    desk.execute("UPDATE batches SET api_created_at = now() - make_interval(days => :days)", days=days)


# -- results that will vanish -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "told"), [(1, False), (21, False), (23, True), (28, True), (30, False)])
def test_results_that_will_vanish_and_are_not_stored_are_told_early(
    desk: DeskDriver, sandbox: Sandbox, days: int, told: bool
) -> None:
    """The API keeps them 29 days from a batch's creation."""
    sandbox.configure(delay=3600)
    desk.start(documents(3))
    batch_id = desk.perform_until("in_progress")
    made_ago(desk, days)
    found = raised()
    assert [(alarm.kind, alarm.batch_id) for alarm in found] == ([("vanishing", batch_id)] if told else [])
    assert all(f"In {29 - days} days" in alarm.words for alarm in found)


def test_paid_answers_that_have_not_come_are_told_before_they_vanish(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(results_faults="missing:2*2")
    run_id = desk.run(documents(6))
    made_ago(desk, 25)
    (alarm,) = raised()
    assert alarm.kind == "vanishing" and "2 of its answers are paid" in alarm.words and "Fetch" in alarm.mend
    assert alarm.batch_id is not None
    wishes.ask_refetch(alarm.batch_id, actor="tester")
    desk.work_until_over(run_id)
    assert raised() == []


def test_what_is_stored_does_not_vanish(desk: DeskDriver) -> None:
    desk.run(documents(3))
    made_ago(desk, 28)
    assert raised() == []


# -- batches of which nothing came ---------------------------------------------------------------------------------


def test_a_batch_that_failed_as_a_whole_is_an_alarm_until_it_is_sent_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I12: a model that cannot be batched: 98 of 98 were discarded in silence."""
    run_id = desk.run(documents(9), labels="alpha,beta", model="claude-does-not-exist-9")
    (alarm,) = raised()
    assert (alarm.kind, alarm.run_id, alarm.batch_id) == ("all failed", run_id, 1)
    assert "None of its 9 requests was answered. The first says: not_found_error: model" in alarm.words
    wishes.ask_resubmit(run_id, [FailureClass.FIX], actor="tester")
    desk.perform_due()
    assert raised() == []


def test_lines_that_all_lack_are_an_alarm(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I12: none of its requests has a result, whatever the API counts."""
    sandbox.configure(results_faults="missing:3*2")
    desk.run(documents(3))
    assert [alarm.kind for alarm in raised()] == ["all failed"]


def test_one_answer_or_a_cancel_is_no_alarm(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=0.5)
    desk.run(documents(20))
    assert raised() == []
    sandbox.configure(delay=3600, cancel_delay=0, canceled_share=1, invalid_share=0)
    run_id = desk.start(documents(3))
    desk.perform_until("in_progress")
    wishes.ask_cancel_run(run_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).canceled == 3
    assert raised() == []


def test_what_failed_long_ago_is_history(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=1)
    desk.run(documents(3))
    assert len(raised()) == 1
    desk.execute("UPDATE batches SET state_since = now() - interval '8 days'")
    assert raised() == []


# -- answers without a cost ----------------------------------------------------------------------------------------


def test_answers_that_cost_nothing_are_an_alarm(desk: DeskDriver) -> None:
    """I9: the cost was always $0, and nobody wondered."""
    run_id = desk.run(documents(4))
    assert raised() == []
    desk.bill("0")
    (alarm,) = raised()
    assert (alarm.kind, alarm.run_id, alarm.batch_id) == ("no cost", run_id, None)
    assert "4 answers came" in alarm.words
    desk.execute("DELETE FROM ledger_lines")
    desk.execute("DELETE FROM ledger_tallies")
    assert [alarm.kind for alarm in raised()] == ["no cost"]


def test_a_batch_of_several_whose_answers_cost_nothing_is_an_alarm(desk: DeskDriver) -> None:
    desk.change(batch_max_requests=3)
    run_id = desk.run(documents(5))
    desk.execute("UPDATE ledger_tallies SET cost_usd = 0 WHERE lines = 2")
    (alarm,) = raised()
    assert (alarm.kind, alarm.run_id) == ("no cost", run_id)
    assert "2 answers came in 1 of its batches" in alarm.words
    desk.execute("UPDATE ledger_tallies SET price = price || ' refused' WHERE lines = 2")
    assert raised() == []


@pytest.mark.parametrize("cost", [None, "0.0000001"])
def test_unpriced_is_not_free_and_a_little_is_a_cost(desk: DeskDriver, cost: str | None) -> None:
    """I9: null is unknown, not zero."""
    desk.run(documents(4))
    desk.bill(cost)
    assert raised() == []


def test_a_run_without_answers_costs_nothing_and_is_no_alarm_of_cost(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=1)
    desk.run(documents(2))
    assert "no cost" not in [alarm.kind for alarm in raised()]


# -- a cost far from the estimate ----------------------------------------------------------------------------------


def estimated(desk: DeskDriver, low: str, high: str) -> None:
    desk.execute("UPDATE run_estimates SET low_usd = CAST(:low AS numeric), high_usd = :high", low=low, high=high)


def test_a_cost_far_from_what_was_estimated_is_an_alarm(desk: DeskDriver) -> None:
    run_id = desk.run(documents(4))
    desk.bill("0.5")  # two dollars in all
    for low, high, is_far in (
        ("1", "2", False),
        ("0.5", "1", False),
        ("0.3", "0.99", True),
        ("4", "5", False),
        ("4.02", "5", True),
    ):
        estimated(desk, low, high)
        found = raised()
        assert [(alarm.kind, alarm.run_id, alarm.batch_id) for alarm in found] == [("cost", run_id, None)] * is_far
        if is_far:
            assert f"all of them cost $2.00, where ${Decimal(low):,.2f} to ${Decimal(high):,.2f}" in found[0].words
    desk.execute("UPDATE accounts SET sandbox = true")
    assert raised() == []


def test_what_is_far_is_told_while_the_run_goes_on_and_no_fraction_of_a_cent_is_far(desk: DeskDriver) -> None:
    desk.run(documents(4))
    desk.bill("0.5")
    estimated(desk, "0.1", "0.2")
    desk.execute("UPDATE run_estimates SET requests = 1000")
    assert raised() == [], "four of a thousand say little"
    desk.execute("UPDATE ledger_tallies SET lines = 20, cost_usd = 2")
    (alarm,) = raised()
    assert "all of them cost $100.00" in alarm.words
    desk.execute("UPDATE ledger_tallies SET unpriced = 1")
    assert raised() == []
    desk.execute("UPDATE ledger_tallies SET unpriced = 0, cost_usd = 0.0001, sync_cost_usd = 0.0002")
    estimated(desk, "0.0001", "0.0002")
    assert raised() == []


def test_a_run_without_an_estimate_or_a_price_is_far_from_nothing(desk: DeskDriver) -> None:
    desk.run(documents(4))
    desk.bill("0.5")
    desk.execute("UPDATE run_estimates SET low_usd = NULL, high_usd = NULL")
    assert raised() == []
    desk.execute("DELETE FROM run_estimates")
    assert raised() == []
