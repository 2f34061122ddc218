"""Leases and epochs: one holder at a time, a fence for those that come late, and no deadlock with people's wishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from support.desk import DeskDriver, documents

from webapp import db, jobs
from webapp.batches import completion, steps
from webapp.batches.states import FailureClass
from webapp.batches.steps import Lease, StepName
from webapp.errors import Fenced
from webapp.runs import verbs


def take(step: StepName = StepName.POLL, target: int = 1) -> Lease | None:
    with db.transaction() as tx:
        return steps.take(tx, step, target)


def due(after: float = 0.0) -> None:
    with db.transaction() as tx:
        steps.due(tx, StepName.POLL, 1, after=after)


def test_a_step_is_taken_only_when_it_is_due(desk: DeskDriver) -> None:
    assert take() is None
    due(after=60)
    assert take() is None
    due()
    assert take() is not None


def test_a_step_is_taken_by_one_at_a_time(desk: DeskDriver) -> None:
    due()
    taken: list[Lease | None] = []
    start = threading.Barrier(4)

    def one() -> None:
        with desk.app.app_context():
            start.wait(10)
            taken.append(take())

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len([lease for lease in taken if lease]) == 1


def test_a_lapsed_lease_is_taken_over_and_its_holder_fenced(desk: DeskDriver) -> None:
    due()
    old = take()
    desk.lapse()
    new = take()
    assert old and new and new.epoch > old.epoch and new.starts == 2
    with pytest.raises(Fenced), db.transaction() as tx:
        old.hold(tx)
    with db.transaction() as tx:
        new.hold(tx)


def test_a_late_giving_back_takes_nothing_from_the_new_holder(desk: DeskDriver) -> None:
    due()
    old = take()
    desk.lapse()
    new = take()
    assert old and new
    with db.transaction() as tx:
        steps.give_back(tx, old)
        assert steps.fail(tx, old, "late") == 0.0
    with db.transaction() as tx:
        new.hold(tx)
    assert desk.scalar("SELECT error FROM steps") is None


def test_epochs_are_never_used_again_even_for_a_row_made_anew(desk: DeskDriver) -> None:
    due()
    old = take()
    assert old
    with db.transaction() as tx:
        steps.give_back(tx, old)
    due()
    new = take()
    assert new and new.epoch > old.epoch
    with pytest.raises(Fenced), db.transaction() as tx:
        old.hold(tx)


def test_what_is_made_due_while_it_runs_stays_due(desk: DeskDriver) -> None:
    due()
    lease = take()
    assert lease
    due()
    with db.transaction() as tx:
        steps.give_back(tx, lease)
    assert take() is not None


def test_an_earlier_due_time_stays(desk: DeskDriver) -> None:
    due(after=5)
    due(after=500)
    assert desk.scalar("SELECT due_at < now() + interval '6 seconds' FROM steps")


def test_a_step_that_breaks_waits_longer_each_time(desk: DeskDriver) -> None:
    due()
    waits = []
    for _ in range(12):
        desk.hurry()
        lease = take()
        assert lease
        with db.transaction() as tx:
            waits.append(steps.fail(tx, lease, "broke \0 \ud800"))
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-1] == 300
    assert desk.scalar("SELECT error FROM steps") == "broke \\u0000 \\ud800"


def test_progress_forgets_earlier_deaths(desk: DeskDriver) -> None:
    due()
    take()
    desk.lapse()
    lease = take()
    assert lease and lease.starts == 2
    with db.transaction() as tx:
        lease.progress(tx)
    assert desk.scalar("SELECT starts FROM steps") == 1


def test_the_clock_nudges_each_due_step_once_in_a_while(desk: DeskDriver) -> None:
    due()
    with db.transaction() as tx:
        assert steps.nudgeable(tx, 10) == [("poll", 1)]
    with db.transaction() as tx:
        assert steps.nudgeable(tx, 10) == []
    desk.execute("UPDATE steps SET nudged_at = now() - interval '6 seconds'")
    with db.transaction() as tx:
        assert steps.nudgeable(tx, 10) == [("poll", 1)]


def test_the_clock_does_not_nudge_what_is_leased(desk: DeskDriver) -> None:
    due()
    take()
    with db.transaction() as tx:
        assert steps.nudgeable(tx, 10) == []
    desk.lapse()
    with db.transaction() as tx:
        assert steps.nudgeable(tx, 10) == [("poll", 1)]


def test_a_kept_lease_outlasts_its_length(desk: DeskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LEASE_SECONDS", 0.4)
    due()
    lease = take()
    assert lease
    with lease.kept():
        time.sleep(1)
        assert take() is None


def test_a_lease_lapses_on_the_databases_clock(desk: DeskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.db.utcnow", lambda: pytest.fail("our own clock was asked"))
    due()
    take()
    desk.lapse()
    assert take() is not None


WISHES: dict[str, Callable[[object, int, int], object]] = {
    "cancel run": lambda tx, run, batch: verbs.cancel_run(tx, run, actor="tester"),  # type: ignore[arg-type]
    "cancel batch": lambda tx, run, batch: verbs.cancel_batch(tx, batch, actor="tester"),  # type: ignore[arg-type]
    "poll": lambda tx, run, batch: verbs.poll_now(tx, batch, actor="tester"),  # type: ignore[arg-type]
    "resubmit": lambda tx, run, batch: verbs.resubmit_run(tx, run, list(FailureClass), actor="tester"),  # type: ignore[arg-type]
    "pause": lambda tx, run, batch: verbs.pause(tx, run, actor="tester"),  # type: ignore[arg-type]
    "resume": lambda tx, run, batch: verbs.resume_run(tx, run, actor="tester"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_and_a_step_of_the_same_batch_never_deadlock(desk: DeskDriver, wish: str) -> None:
    """The step locks its own row first, then the batch, then the run: wishes must go the same way."""
    desk.change(batch_max_requests=5)
    run_id = desk.start(documents(9))
    batch_id = desk.perform_until("in_progress")
    desk.execute("UPDATE runs SET pause_wanted_at = now() WHERE :paused", paused=wish == "resume")
    desk.execute("UPDATE items SET failure_class = 'fix', state = 'errored' WHERE position = 8")
    desk.hurry()
    lease = take(StepName.POLL, batch_id)
    assert lease
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            with desk.app.app_context(), db.transaction() as tx:
                WISHES[wish](tx, run_id, batch_id)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the test tells it
            failed.append(error)

    person = threading.Thread(target=ask)
    with db.transaction() as tx:
        lease.hold(tx)
        person.start()
        time.sleep(0.3)  # the wish has taken what it can by now
        db.run(tx, "UPDATE batches SET polled_at = now() WHERE id = :id", id=batch_id)
        steps.due(tx, StepName.INGEST, batch_id)
        steps.due(tx, StepName.PROCESS, batch_id)
        steps.due(tx, StepName.RESUBMIT, run_id)
        completion.finish_if_over(tx, run_id)
    person.join(30)
    assert failed == []


def test_performing_a_step_that_is_not_due_does_nothing(desk: DeskDriver) -> None:
    jobs.perform("poll", 12345)
    assert desk.scalar("SELECT count(*) FROM steps") == 0
