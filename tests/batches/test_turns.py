"""Steps of many kinds take turns in a short queue, and a look at many that are in flight reads little."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection
from support.desk import DeskDriver

from webapp import db, jobs
from webapp.batches import steps
from webapp.batches.steps import StepName


def waiting(desk: DeskDriver, step: StepName, count: int, *, since: int) -> None:
    """Let so many steps of a kind have been due for so many seconds."""
    desk.execute(
        "INSERT INTO steps (step, target_id, due_at) SELECT :step, n, now() - make_interval(secs => :since) "
        "FROM generate_series(1, :count) n",
        step=step.value,
        since=since,
        count=count,
    )


def handed_out(limit: int) -> Counter[str]:
    with db.transaction() as tx:
        return Counter(step for step, _ in steps.nudgeable(tx, limit))


def test_a_thousand_batches_to_be_processed_do_not_keep_one_from_being_sent(desk: DeskDriver) -> None:
    waiting(desk, StepName.PROCESS, 1000, since=600)
    waiting(desk, StepName.SUBMIT, 3, since=1)
    waiting(desk, StepName.POLL, 1, since=0)
    assert handed_out(3) == {"process": 1, "submit": 1, "poll": 1}
    assert handed_out(6) == {"process": 4, "submit": 2}
    assert handed_out(6) == {"process": 6}


def test_nor_do_a_thousand_that_wait_to_be_sent_keep_one_from_being_processed(desk: DeskDriver) -> None:
    waiting(desk, StepName.SUBMIT, 1000, since=600)
    waiting(desk, StepName.PROCESS, 1, since=0)
    rounds = 0  # where there is room for one at a time, its turn comes by lot
    while not handed_out(1)["process"]:
        rounds += 1
        assert rounds < 500


def test_the_oldest_of_a_kind_is_the_first(desk: DeskDriver) -> None:
    waiting(desk, StepName.POLL, 50, since=1)
    desk.execute("UPDATE steps SET due_at = now() - interval '1 hour' WHERE target_id = 33")
    with db.transaction() as tx:
        assert steps.nudgeable(tx, 1) == [("poll", 33)]


def test_the_queue_is_as_short_as_its_workers_are_few(desk: DeskDriver) -> None:
    waiting(desk, StepName.REPEAT, 500, since=1)
    assert jobs.nudge() == jobs.LEAST_QUEUED
    assert jobs.nudge() == 0
    desk.execute("INSERT INTO processes (name, role) SELECT 'worker ' || n, 'worker' FROM generate_series(1, 10) n")
    assert jobs.nudge() == 2 * 10 - jobs.LEAST_QUEUED
    desk.execute("INSERT INTO processes (name, role) SELECT 'worker ' || n, 'worker' FROM generate_series(11, 1000) n")
    while jobs.nudge():
        pass
    assert jobs.queue().count == jobs.MOST_QUEUED


def test_a_look_at_ten_thousand_in_flight_reads_each_step_once(desk: DeskDriver) -> None:
    waiting(desk, StepName.POLL, 10_000, since=-3600)  # none is due for an hour
    waiting(desk, StepName.PROCESS, 100, since=1)
    desk.execute("ANALYZE steps")
    with db.transaction() as tx:
        before = read(tx)
        assert len(steps.nudgeable(tx, 50)) == 50
        assert read(tx) - before <= 2 * 10_100 + 200


def read(tx: Connection) -> int:
    """Rows of `steps` that this transaction has read so far."""
    found: int = db.scalar(
        tx,
        "SELECT coalesce(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid), 0) "
        "FROM pg_class WHERE relname = 'steps'",
    )
    return found
