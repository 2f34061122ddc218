"""What waits for its next attempt is no failure yet, is counted apart from those, and is sent again exactly once."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches import queries
from webapp.batches.states import FailureClass
from webapp.runs import verbs

RETRIED = ("errored", "expired", "missing")


def tallies_know_each_attempt(desk: DeskDriver) -> None:
    """The tallies of items of class retry are the rows, attempt by attempt."""
    told = {
        (row.run_id, row.retry_attempt): tuple(row)[2:]
        for row in desk.rows(
            "SELECT run_id, retry_attempt, sum(errored), sum(expired), sum(missing) FROM tallies "
            "WHERE scope = 'items' AND retry_attempt IS NOT NULL GROUP BY 1, 2"
        )
    }
    seen = {
        (row.run_id, row.attempts): tuple(row)[2:]
        for row in desk.rows(
            "SELECT run_id, attempts, count(*) FILTER (WHERE state = 'errored'), "
            "count(*) FILTER (WHERE state = 'expired'), count(*) FILTER (WHERE state = 'missing') "
            "FROM items WHERE failure_class = 'retry' GROUP BY 1, 2"
        )
    }
    assert {key: counts for key, counts in told.items() if any(counts)} == seen


@pytest.fixture
def waiting(desk: DeskDriver, sandbox: Sandbox) -> int:
    """A run whose first attempts are all answered: some failed for good, some wait for an hour to go again."""
    desk.change(retry_delay=3600)
    sandbox.configure(overloaded_share=0.2, expired_share=0.1, invalid_share=0.2)
    run_id = desk.start(documents(60))
    desk.perform_until("done")
    for _ in range(5):
        desk.perform_due()
    sandbox.configure(overloaded_share=0, expired_share=0, invalid_share=0)
    return run_id


def by_class(desk: DeskDriver, run_id: int) -> Counter[str]:
    found = desk.rows(
        "SELECT failure_class, count(*) AS n FROM items WHERE run_id = :id AND failure_class IS NOT NULL GROUP BY 1",
        id=run_id,
    )
    return Counter({row.failure_class: row.n for row in found})


def test_what_goes_again_is_counted_apart_until_it_has_failed_for_good(
    desk: DeskDriver, sandbox: Sandbox, waiting: int
) -> None:
    """I25: shown as failed while a retry was already on its way."""
    classes = by_class(desk, waiting)
    counts = desk.status(waiting).counts
    assert classes["retry"] and classes["fix"]
    assert (counts.retrying, counts.failed, counts.errored, counts.expired) == (
        classes["retry"],
        classes["fix"],
        classes["fix"],
        0,
    )
    assert counts.total == 60
    tallies_know_each_attempt(desk)

    wishes.ask_cancel_run(waiting, actor="tester")  # nothing goes again now
    counts = desk.status(waiting).counts
    assert (counts.retrying, counts.failed) == (0, classes["retry"] + classes["fix"])
    assert counts.total == 60
    audit(desk, sandbox)


def test_a_lower_ceiling_turns_what_waits_into_failures(desk: DeskDriver, waiting: int) -> None:
    classes = by_class(desk, waiting)
    desk.change(max_attempts=1)
    counts = desk.status(waiting).counts
    assert (counts.retrying, counts.failed) == (0, classes["retry"] + classes["fix"])


def test_what_goes_again_is_pending_and_then_answered(desk: DeskDriver, sandbox: Sandbox, waiting: int) -> None:
    classes = by_class(desk, waiting)
    desk.execute("UPDATE batches SET state_since = now() - interval '2 hours'")
    desk.hurry()
    desk.perform("resubmit", waiting)
    counts = desk.status(waiting).counts
    assert (counts.retrying, counts.pending, counts.failed) == (0, classes["retry"], classes["fix"])
    tallies_know_each_attempt(desk)
    desk.work_until_over(waiting)
    assert desk.summary(waiting).succeeded == 60 - classes["fix"]
    tallies_know_each_attempt(desk)
    audit(desk, sandbox)


def test_an_answer_that_the_api_counts_and_has_not_given_does_not_go_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    """It is paid for: sending it again is for a person, so it is shown as failed at once."""
    desk.change(retry_delay=3600, batch_max_requests=10)
    sandbox.configure(overloaded_share=0.2)
    run_id = desk.start(documents(20))
    desk.perform_until("done")
    for _ in range(10):
        desk.perform_due()
    before = desk.status(run_id).counts
    assert before.retrying and not before.failed
    (batch_id,) = desk.rows("SELECT min(batch_id) FROM requests WHERE state = 'errored'")[0]
    moved = "FROM requests r WHERE r.id = :id AND i.id = r.item_id"
    request = desk.scalar("SELECT min(id) FROM requests WHERE batch_id = :b AND state = 'errored'", b=batch_id)
    desk.execute(f"UPDATE items i SET state = 'missing' {moved}", id=request)
    desk.execute("UPDATE requests SET state = 'missing' WHERE id = :id", id=request)
    desk.execute(
        "INSERT INTO tallies (scope, run_id, retry_attempt, errored, missing) VALUES ('items', :run, 1, -1, 1)",
        run=run_id,
    )
    assert desk.status(run_id).counts.retrying == before.retrying
    desk.execute("UPDATE batches SET owed = 1 WHERE id = :id", id=batch_id)
    counts = desk.status(run_id).counts
    assert (counts.retrying, counts.missing) == (before.retrying - 1, 1)
    assert counts.total == 20


def test_a_late_line_ends_the_wait(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(retry_delay=3600)
    sandbox.configure(missing_share=0.5)
    run_id = desk.start(documents(10))
    batch_id = desk.perform_until("done")
    missing = desk.status(run_id).counts.retrying
    assert missing
    tallies_know_each_attempt(desk)
    sandbox.configure(missing_share=0)
    with db.transaction() as tx:
        from webapp.batches.outcomes import Settlement, settle_requests
        from webapp.batches.states import BatchState, RequestState, move_batch

        settlement = Settlement()
        for request in db.rows(tx, "SELECT id, state, failure_class FROM requests WHERE state = 'missing' LIMIT 1"):
            settlement.add(request, RequestState.EXPIRED, FailureClass.RETRY, "Late, and expired.")
        settle_requests(tx, settlement)
        assert move_batch(tx, batch_id, BatchState.INGESTING, actor="tester")
    assert desk.status(run_id).counts.retrying == missing
    tallies_know_each_attempt(desk)


def test_a_click_beside_the_automatic_retry_makes_one_attempt(desk: DeskDriver, sandbox: Sandbox, waiting: int) -> None:
    """Both are due at the same moment, the click is repeated, and the step runs three times."""
    classes = by_class(desk, waiting)
    desk.execute("UPDATE batches SET state_since = now() - interval '2 hours'")
    for _ in range(2):
        assert wishes.ask_resubmit(waiting, [FailureClass.RETRY], actor="tester") == classes["retry"]
    for _ in range(3):
        desk.execute("INSERT INTO steps (step, target_id, due_at) VALUES ('resubmit', :id, now()) "
                     "ON CONFLICT (step, target_id) DO UPDATE SET due_at = now()", id=waiting)  # fmt: skip
        desk.perform("resubmit", waiting)
    desk.work_until_over(waiting)
    attempts = Counter(row.attempts for row in desk.outputs(waiting))
    assert attempts == {1: 60 - classes["retry"], 2: classes["retry"]}
    assert len(sandbox.accepted()) == 60 + classes["retry"]
    audit(desk, sandbox)


def test_a_click_while_the_automatic_retry_is_under_way_changes_nothing(
    desk: DeskDriver, sandbox: Sandbox, waiting: int
) -> None:
    classes = by_class(desk, waiting)
    desk.execute("UPDATE batches SET state_since = now() - interval '2 hours'")
    desk.hurry()
    desk.perform("resubmit", waiting)
    with db.transaction() as tx:
        assert verbs.resubmit_run(tx, waiting, [FailureClass.RETRY], actor="tester") == 0
    desk.work_until_over(waiting)
    assert len(sandbox.accepted()) == 60 + classes["retry"]
    audit(desk, sandbox)


def test_counts_read_tallies_and_no_items(desk: DeskDriver, waiting: int) -> None:
    with db.transaction() as tx:
        read = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables WHERE relname = :n"
        before = [db.scalar(tx, read, n=name) for name in ("items", "requests")]
        queries.run_counts(tx, [waiting])
        assert [db.scalar(tx, read, n=name) for name in ("items", "requests")] == before


# -- acceptance ------------------------------------------------------------------------------------------------------


def to_the_end(desk: DeskDriver, run_id: int, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not desk.status(run_id).over:
        assert time.monotonic() < deadline, desk.rows("SELECT * FROM steps")
        if not desk.perform_due():
            time.sleep(0.02)


def test_a_run_of_ten_thousand_ends_by_itself_with_only_the_invalid_ones_failed(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    desk.change(max_attempts=9, batch_max_requests=5000)
    sandbox.configure(overloaded_share=0.05, expired_share=0.02, invalid_share=0.01)
    run_id = desk.start(documents(10_000))
    to_the_end(desk, run_id)

    summary = desk.summary(run_id)
    failed = by_class(desk, run_id)
    assert desk.status(run_id).state == "finished"
    assert set(failed) == {"fix"} and 60 < failed["fix"] < 160
    assert (summary.succeeded, summary.errored, summary.expired) == (10_000 - failed["fix"], failed["fix"], 0)
    attempts = Counter(row.attempts for row in desk.outputs(run_id))
    assert sum(count * times for times, count in attempts.items()) == len(sandbox.accepted())
    assert 9100 < attempts[1] < 9500 and 500 < attempts[2] < 850 and 20 < attempts[3] < 90 and max(attempts) <= 9
    counts = desk.status(run_id).counts
    assert (counts.retrying, counts.failed, counts.total) == (0, failed["fix"], 10_000)
    tallies_know_each_attempt(desk)
    audit(desk, sandbox)


def test_what_is_overloaded_for_ever_stops_at_the_ceiling(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I13, and each attempt on its way up is no failure yet."""
    desk.change(retry_delay=1)
    sandbox.configure(overloaded_share=1)
    run_id = desk.start(documents(300))
    waited = 0
    deadline = time.monotonic() + 60
    while not desk.status(run_id).over:
        assert time.monotonic() < deadline
        desk.perform_due()
        counts = desk.status(run_id).counts
        waited += counts.retrying > 0
        assert counts.failed == desk.scalar("SELECT count(*) FROM items WHERE state = 'errored' AND attempts = 3")
        tallies_know_each_attempt(desk)
        time.sleep(0.05)
    assert waited
    counts = desk.status(run_id).counts
    assert (counts.retrying, counts.errored, counts.failed) == (0, 300, 300)
    assert {row.attempts for row in desk.outputs(run_id)} == {3}
    assert len(sandbox.accepted()) == 900
    audit(desk, sandbox)
