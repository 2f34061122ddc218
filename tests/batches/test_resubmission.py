"""Resubmission: by rule with its delay and ceiling, by hand by class, each click once, attempts counted."""

from __future__ import annotations

import time

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches import resubmission
from webapp.batches.completion import finish_if_over
from webapp.batches.states import FailureClass
from webapp.errors import Refused
from webapp.runs import verbs


def resubmit(run_id: int, *classes: FailureClass) -> int:
    with db.transaction() as tx:
        return verbs.resubmit_run(tx, run_id, classes or list(FailureClass), actor="tester")


def attempts(desk: DeskDriver, run_id: int) -> list[int]:
    return [row.attempts for row in desk.outputs(run_id)]


def ended(desk: DeskDriver, count: int) -> None:
    """Perform what is due until so many batches are done."""
    for _ in range(100):
        if desk.states() == ["done"] * count:
            return
        desk.perform_due()
        time.sleep(0.02)
    raise AssertionError(f"{count} batches do not end: {desk.states()} {desk.rows('SELECT * FROM steps')}")


def test_failures_of_class_retry_go_again_by_themselves(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(overloaded_share=0.2, errored_share=0.1, expired_share=0.1)
    run_id = desk.run(documents(40))
    assert desk.summary(run_id).succeeded > 32
    assert max(attempts(desk, run_id)) > 1
    audit(desk, sandbox)


def test_one_error_that_never_ends_stops_at_the_ceiling(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I13: one deterministic error was retried 1,149 times over 24 days."""
    sandbox.configure(overloaded_share=1)
    run_id = desk.run(documents(3))
    assert attempts(desk, run_id) == [3, 3, 3]
    assert desk.status(run_id).state == "finished"
    assert desk.summary(run_id).errored == 3
    assert len(sandbox.accepted()) == 9
    audit(desk, sandbox)


@pytest.mark.parametrize("share", ["invalid_share"])
def test_failures_of_class_fix_wait_for_a_person(desk: DeskDriver, sandbox: Sandbox, share: str) -> None:
    """I12: an all-failed batch is not discarded in silence: each record is there with its error, and the batch is
    an alarm (see test_alarms).
    """
    sandbox.configure(**{share: 1})
    run_id = desk.run(documents(3))
    assert attempts(desk, run_id) == [1, 1, 1]
    assert desk.summary(run_id).errored == 3
    assert all(row.error for row in desk.outputs(run_id))
    audit(desk, sandbox)


def test_the_delay_grows_with_each_attempt(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(retry_delay=300)
    sandbox.configure(overloaded_share=1)
    run_id = desk.start(documents(2))
    waits = []
    for batches in (1, 3):  # the second attempt of two is cut in two, so that no total follows itself
        ended(desk, batches)
        assert desk.status(run_id).state == "running"
        waits.append(desk.status(run_id).retrying_in)
        desk.execute("UPDATE batches SET state_since = now() - interval '1 hour'")
        desk.hurry()
    assert [round(wait or 0, -1) for wait in waits] == [300, 600]
    desk.work_until_over(run_id)
    assert attempts(desk, run_id) == [3, 3]
    audit(desk, sandbox)


def test_a_retry_that_comes_too_early_waits_for_the_rest_of_its_delay(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(retry_delay=300)
    sandbox.configure(overloaded_share=1)
    run_id = desk.start(documents(2))
    ended(desk, 1)
    desk.hurry()
    desk.perform("resubmit", run_id)
    assert attempts(desk, run_id) == [1, 1]
    assert 290 < (desk.status(run_id).retrying_in or 0) <= 300


def test_a_double_click_makes_one_attempt(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=1)
    run_id = desk.run(documents(4))
    sandbox.configure(invalid_share=0)
    assert resubmit(run_id, FailureClass.FIX) == 4
    assert resubmit(run_id, FailureClass.FIX) == 4
    desk.work_until_over(run_id)
    assert attempts(desk, run_id) == [2] * 4
    assert resubmit(run_id, FailureClass.FIX) == 0
    desk.work_until_over(run_id)
    assert attempts(desk, run_id) == [2] * 4
    assert desk.summary(run_id).succeeded == 4
    audit(desk, sandbox)


def test_only_the_classes_asked_for_go_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(max_attempts=1)
    sandbox.configure(invalid_share=0.3, overloaded_share=0.3)
    run_id = desk.run(documents(40))
    retry, fix = (
        desk.scalar("SELECT count(*) FROM items WHERE failure_class = :name", name=name) for name in ("retry", "fix")
    )
    sandbox.configure(invalid_share=0, overloaded_share=0)
    assert resubmit(run_id, FailureClass.RETRY) == retry
    desk.work_until_over(run_id)
    assert desk.summary(run_id).errored == fix
    assert desk.scalar("SELECT count(*) FROM items WHERE attempts = 2") == retry
    audit(desk, sandbox)


def test_a_record_that_was_never_built_has_nothing_to_send_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.run([{"key": "a", "text": "\udc00"}, {"key": "b", "text": "fine text"}])
    assert resubmit(run_id) == 0
    assert attempts(desk, run_id) == [0, 1]
    audit(desk, sandbox)


def test_a_cancelled_run_can_be_sent_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.start(documents(5))
    desk.perform("plan", run_id)
    with db.transaction() as tx:
        verbs.cancel_run(tx, run_id, actor="tester")
    desk.work_until_over(run_id)
    assert resubmit(run_id, FailureClass.STOPPED) == 5
    desk.work_until_over(run_id)
    assert desk.status(run_id).state == "finished"
    assert desk.summary(run_id).succeeded == 5
    assert attempts(desk, run_id) == [2] * 5
    audit(desk, sandbox)


def test_account_failures_go_again_after_the_top_up(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I11: paused, topped up, resubmitted."""
    sandbox.configure(create_faults="credit")
    run_id = desk.start(documents(3))
    assert desk.work_until_over(run_id).state == "paused"
    desk.execute("UPDATE items SET failure_class = 'account' WHERE state = 'pending' AND position = 99")
    with db.transaction() as tx:
        verbs.resume_run(tx, run_id, actor="tester")
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 3
    audit(desk, sandbox)


def test_a_run_that_is_planned_still_has_nothing_to_send_again(desk: DeskDriver) -> None:
    run_id = desk.start(documents(2))
    with pytest.raises(Refused):
        resubmit(run_id)


def test_a_paused_run_retries_nothing_until_it_is_resumed(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(overloaded_share=1)
    run_id = desk.start(documents(2))
    desk.perform_until("ingesting")
    desk.execute("UPDATE runs SET pause_wanted_at = now()")
    ended(desk, 1)
    for _ in range(3):
        desk.hurry()
        desk.perform_due()
    assert attempts(desk, run_id) == [1, 1]
    sandbox.configure(overloaded_share=0)
    with db.transaction() as tx:
        verbs.resume_run(tx, run_id, actor="tester")
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 2
    audit(desk, sandbox)


@pytest.mark.parametrize("point", ["cut_pending", "note"])
def test_a_worker_killed_while_resubmitting_makes_no_second_attempt(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    sandbox.configure(invalid_share=1)
    run_id = desk.run(documents(4))
    sandbox.configure(invalid_share=0)
    resubmit(run_id, FailureClass.FIX)
    with monkeypatch.context() as patched:
        patched.setattr(resubmission, point, die)
        with pytest.raises(Killed):
            desk.perform("resubmit", run_id)
    desk.lapse()
    desk.work_until_over(run_id)
    assert attempts(desk, run_id) == [2] * 4
    audit(desk, sandbox)


def test_counts_are_right_after_resubmission(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I21: counters were wrong after resubmission (100 against 79)."""
    sandbox.configure(overloaded_share=0.3, invalid_share=0.2)
    run_id = desk.run(documents(50))
    counts = desk.status(run_id).counts
    summary = desk.summary(run_id)
    assert counts.total == summary.requests == 50
    assert (counts.ok, counts.errored) == (summary.succeeded, summary.errored)
    assert summary.succeeded + summary.errored == 50
    audit(desk, sandbox)


def test_rows_of_batches_still_at_work_are_not_taken_early(desk: DeskDriver, sandbox: Sandbox) -> None:
    """A first batch's retries come while a second is half ingested: its failures wait for its end."""
    desk.change(batch_max_requests=10)
    sandbox.configure(overloaded_share=0.5)
    run_id = desk.start(documents(19))
    desk.work_until_over(run_id)
    assert max(attempts(desk, run_id)) <= 3
    audit(desk, sandbox)


def test_a_run_is_not_over_while_a_wish_that_came_late_waits(desk: DeskDriver, sandbox: Sandbox) -> None:
    """The step has looked for wishes, somebody asks, and then the step ends: the run goes on with what was asked."""
    sandbox.configure(invalid_share=1)
    run_id = desk.run(documents(3))
    sandbox.configure(invalid_share=0)
    wishes.ask_resubmit(run_id, [FailureClass.FIX], actor="tester")
    with db.transaction() as tx:
        finish_if_over(tx, run_id, resubmitting=False)
    assert desk.status(run_id).state == "running"
    assert desk.work_until_over(run_id).state == "finished"
    assert desk.summary(run_id).succeeded == 3
