"""Polling and cancelling: when the API is asked, what a wish to stop comes to in each state."""

from __future__ import annotations

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db
from webapp.errors import NotFound, Refused
from webapp.gateway import Gateway
from webapp.runs import verbs
from webapp.settings import PollSchedule


def sent(desk: DeskDriver, sandbox: Sandbox, count: int = 20, **settings: object) -> tuple[int, int]:
    """A run whose one batch is being worked on: (run id, batch id)."""
    sandbox.configure(**({"delay": 3600} | settings))
    run_id = desk.start(documents(count))
    return run_id, desk.perform_until("in_progress")


def poll(desk: DeskDriver, batch_id: int) -> str:
    desk.hurry()
    desk.perform("poll", batch_id)
    return str(desk.batch(batch_id).state)


def wait_for_poll(desk: DeskDriver) -> float:
    return float(desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = 'poll'"))


def cancel(run_id: int) -> None:
    with db.transaction() as tx:
        verbs.cancel_run(tx, run_id, actor="tester")


@pytest.mark.parametrize(("age", "every"), [(0, 30), (299, 30), (301, 60), (1799, 60), (1801, 300), (90_000, 300)])
def test_the_schedule_says_how_long_to_wait_by_age(age: float, every: float) -> None:
    assert PollSchedule.parse("300:30,1800:60,*:300").every(age) == every


def test_a_batch_is_polled_by_its_age(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(poll_schedule="300:30,1800:60,*:300")
    _, batch_id = sent(desk, sandbox)
    poll(desk, batch_id)
    assert 29 < wait_for_poll(desk) <= 30
    desk.execute("UPDATE batches SET state_since = now() - interval '1000 seconds'")
    poll(desk, batch_id)
    assert 59 < wait_for_poll(desk) <= 60


def test_the_apis_own_words_are_kept_beside_our_state(desk: DeskDriver, sandbox: Sandbox) -> None:
    _, batch_id = sent(desk, sandbox)
    assert poll(desk, batch_id) == "in_progress"
    batch = desk.batch(batch_id)
    assert batch.processing_status == "in_progress"
    assert batch.api_counts == {"processing": 20, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert batch.polled_at is not None


@pytest.mark.parametrize("fault", ["500", "529", "drop_before", "429:120", "garbled", "401"])
def test_a_poll_that_fails_changes_nothing_and_comes_again(desk: DeskDriver, sandbox: Sandbox, fault: str) -> None:
    _, batch_id = sent(desk, sandbox)
    sandbox.configure(retrieve_faults=fault)
    assert poll(desk, batch_id) == "in_progress"
    assert (wait_for_poll(desk) > 100) == (fault == "429:120")
    assert poll(desk, batch_id) == "in_progress"
    assert desk.scalar("SELECT count(*) FROM steps WHERE failures > 0") == 0


def test_a_batch_that_the_key_does_not_know_is_held_with_the_reason(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I22: a 404 for another key's batch is not a loss."""
    run_id, batch_id = sent(desk, sandbox)
    right, desk.desk.gateway = desk.desk.gateway, Gateway(api_key="ws:other:key", base_url=sandbox.url)
    assert poll(desk, batch_id) == "in_progress"
    assert "held, not lost" in desk.batch(batch_id).reason
    desk.desk.gateway = right
    assert poll(desk, batch_id) == "in_progress"
    assert desk.batch(batch_id).reason is None
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_cancelling_midway_keeps_and_bills_what_was_done(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I8: a cancelled batch's partial spend was never recorded."""
    run_id, batch_id = sent(desk, sandbox, 40, cancel_delay=3600)
    cancel(run_id)
    assert poll(desk, batch_id) == "canceling"
    assert poll(desk, batch_id) == "canceling"
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    summary = desk.summary(run_id)
    assert desk.status(run_id).state == "cancelled"
    assert summary.succeeded and summary.canceled and summary.succeeded + summary.canceled == 40
    assert summary.cost_usd
    assert {row.failure_class for row in desk.rows("SELECT failure_class FROM items WHERE state = 'canceled'")} == {
        "stopped"
    }
    audit(desk, sandbox)


@pytest.mark.parametrize("fault", ["", "400", "409", "500"])
def test_cancelling_a_batch_that_has_ended_reads_it_like_any_other(
    desk: DeskDriver, sandbox: Sandbox, fault: str
) -> None:
    run_id, _ = sent(desk, sandbox)
    sandbox.advance(4000)
    sandbox.configure(cancel_faults=fault)
    cancel(run_id)
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 20
    assert desk.status(run_id).state == "cancelled"
    audit(desk, sandbox)


def test_cancelling_a_planned_run_discards_it_unsent(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.start(documents(5))
    desk.perform("plan", run_id)
    cancel(run_id)
    desk.work_until_over(run_id)
    assert desk.states() == ["discarded"]
    assert desk.summary(run_id).stopped == 5
    assert sandbox.accepted() == []
    assert desk.status(run_id).state == "cancelled"
    audit(desk, sandbox)


def test_a_run_cancelled_before_its_planning_sends_nothing(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.start(documents(5))
    cancel(run_id)
    desk.work_until_over(run_id)
    assert desk.status(run_id).state == "cancelled"
    assert sandbox.accepted() == []
    audit(desk, sandbox)


def test_cancelling_one_batch_leaves_the_others(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(batch_max_requests=5)
    run_id = desk.start(documents(9))
    desk.perform("plan", run_id)
    first = desk.scalar("SELECT min(id) FROM batches")
    with db.transaction() as tx:
        verbs.cancel_batch(tx, first, actor="tester")
    desk.work_until_over(run_id)
    summary = desk.summary(run_id)
    assert (summary.succeeded, summary.stopped) == (4, 5)
    assert desk.status(run_id).state == "finished"
    audit(desk, sandbox)


def test_cancelling_twice_is_cancelling_once(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id = sent(desk, sandbox, cancel_delay=3600)
    cancel(run_id)
    cancel(run_id)
    with db.transaction() as tx:
        verbs.cancel_batch(tx, batch_id, actor="tester")
    assert poll(desk, batch_id) == "canceling"
    with pytest.raises(Refused), db.transaction() as tx:
        verbs.cancel_batch(tx, batch_id, actor="tester")
    wishes = "SELECT count(*) FROM events WHERE kind = 'wish' AND reason = 'Cancel asked for.' AND batch_id IS NULL"
    assert desk.scalar(wishes) == 1
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_what_is_over_cannot_be_cancelled_resumed_or_polled(desk: DeskDriver) -> None:
    run_id = desk.run(documents(2))
    batch_id = desk.scalar("SELECT id FROM batches")
    for verb, target in (
        (verbs.cancel_run, run_id),
        (verbs.resume_run, run_id),
        (verbs.cancel_batch, batch_id),
        (verbs.poll_now, batch_id),
    ):
        with pytest.raises(Refused), db.transaction() as tx:
            verb(tx, target, actor="tester")


def test_what_does_not_exist_is_said_so(desk: DeskDriver) -> None:
    for verb in (verbs.cancel_run, verbs.resume_run, verbs.cancel_batch, verbs.poll_now):
        with pytest.raises(NotFound), db.transaction() as tx:
            verb(tx, 999, actor="tester")


def test_poll_now_makes_the_next_look_due(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(poll_schedule="*:300")
    run_id, batch_id = sent(desk, sandbox)
    poll(desk, batch_id)
    sandbox.advance(4000)
    with db.transaction() as tx:
        verbs.poll_now(tx, batch_id, actor="tester")
    desk.work_until_over(run_id)
    audit(desk, sandbox)
