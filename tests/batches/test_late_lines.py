"""Lines that come late: fetched once more by hand, stored and paid once, and the subject has its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches.outcomes import Outcome, settle_outputs, settle_pending, start_attempts
from webapp.batches.states import FailureClass, OutputState, RequestState
from webapp.errors import NotFound, Refused
from webapp.gateway import Gateway

# Two fetches that lack the same four lines: they are taken for missing.
FOUR_LACK = "missing:4*2"


def refetch(desk: DeskDriver, batch_id: int, run_id: int) -> None:
    wishes.ask_refetch(batch_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)


def first_batch(desk: DeskDriver) -> int:
    found: int = desk.scalar("SELECT min(id) FROM batches")
    return found


def sent_again(desk: DeskDriver, sandbox: Sandbox, **fate: float) -> int:
    """A run of which four lines did not come and were asked for once more, with that fate of the new attempts."""
    sandbox.configure(results_faults=FOUR_LACK)
    run_id = desk.run(documents(10))
    sandbox.configure(results_faults="", **fate)
    wishes.ask_resubmit(run_id, [FailureClass.RETRY], actor="tester")
    return run_id


def statuses(desk: DeskDriver, run_id: int) -> list[str]:
    return [row.status for row in desk.outputs(run_id)]


def test_lines_that_came_late_are_fetched_by_hand(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(results_faults=FOUR_LACK)
    run_id = desk.run(documents(10))
    assert desk.summary(run_id).missing == 4
    refetch(desk, first_batch(desk), run_id)
    assert desk.status(run_id).state == "finished"
    assert desk.summary(run_id).succeeded == 10
    assert all(row.output_json for row in desk.outputs(run_id))
    batch = desk.batch(first_batch(desk))
    assert (batch.state, batch.owed, batch.reason) == (
        "done",
        0,
        "Fetched again: 4 results that had not been stored.",
    )
    audit(desk, sandbox)


def test_fetching_again_what_is_all_there_changes_nothing(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.run(documents(5))
    before = desk.rows("SELECT request_id, line::text, received_at FROM results ORDER BY 1")
    for _ in range(2):
        refetch(desk, first_batch(desk), run_id)
    assert desk.rows("SELECT request_id, line::text, received_at FROM results ORDER BY 1") == before
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 5
    assert desk.status(run_id).state == "finished"
    audit(desk, sandbox)


def test_a_late_line_answers_the_subject_though_a_later_attempt_failed_for_good(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    """The output of a subject is that of its lowest succeeded attempt."""
    run_id = sent_again(desk, sandbox, invalid_share=1)
    desk.work_until_over(run_id, hurry=True)
    assert statuses(desk, run_id).count("errored") == 4
    refetch(desk, first_batch(desk), run_id)
    assert statuses(desk, run_id) == ["succeeded"] * 10
    late = [row for row in desk.outputs(run_id) if row.attempts == 2]
    assert len(late) == 4
    assert all(row.output_json and row.error is None and (row.custom_id or "").endswith("-1") for row in late)
    assert desk.summary(run_id).errored == 0
    audit(desk, sandbox)


def test_a_later_attempt_that_fails_after_the_late_line_leaves_the_answer(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = sent_again(desk, sandbox, invalid_share=1, delay=3600)
    desk.perform_until("in_progress")
    wishes.ask_refetch(first_batch(desk), actor="tester")
    for _ in range(3):
        desk.perform_due()
    assert desk.batch(first_batch(desk)).state == "done"
    assert desk.status(run_id).counts.pending == 4
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    assert statuses(desk, run_id) == ["succeeded"] * 10
    audit(desk, sandbox)


@pytest.mark.parametrize("first", ["output", "failure"])
def test_a_late_output_and_a_later_failure_that_are_stored_at_once_leave_the_answer(
    desk: DeskDriver, sandbox: Sandbox, first: str
) -> None:
    """Neither sees what the other has not committed: the second waits for the first, and looks again."""
    run_id = sent_again(desk, sandbox, invalid_share=1, delay=3600)
    desk.perform_until("in_progress")
    wishes.ask_refetch(first_batch(desk), actor="tester")
    desk.perform("ingest", first_batch(desk))
    sandbox.advance(4000)
    for _ in range(20):
        for batch_id in [b for (b,) in desk.rows("SELECT id FROM batches WHERE state = 'in_progress'")]:
            desk.hurry()
            desk.perform("poll", batch_id)
    ended = [b for (b,) in desk.rows("SELECT id FROM batches WHERE state = 'ingesting'")]
    late = desk.rows(
        "SELECT r.id, r.item_id FROM requests r JOIN items i ON i.id = r.item_id "
        "WHERE r.batch_id = :batch AND i.attempts = 2 ORDER BY r.id",
        batch=first_batch(desk),
    )
    assert ended and len(late) == 4

    def make_outputs(tx: Any) -> None:
        for request in late:
            values = "(:id, 'ok', '\"late\"', '1')"
            db.run(tx, f"INSERT INTO outputs (request_id, state, value, task_version) VALUES {values}", id=request.id)
        settle_outputs(
            tx, first_batch(desk), [Outcome(one.item_id, 1, OutputState.WAITING, OutputState.OK, None) for one in late]
        )

    def fail(tx: Any) -> None:
        for batch_id in ended:
            settle_pending(tx, batch_id, RequestState.ERRORED, FailureClass.FIX, "No.")

    one, other = (make_outputs, fail) if first == "output" else (fail, make_outputs)
    second = threading.Thread(target=in_a_transaction, args=(desk, other))
    with db.transaction() as tx:
        one(tx)
        second.start()
        second.join(0.7)
        assert second.is_alive()
    second.join(10)
    assert statuses(desk, run_id) == ["succeeded"] * 10
    sums = desk.rows("SELECT sum(pending), sum(succeeded), sum(errored), sum(ok) FROM tallies WHERE scope = 'items'")
    assert sums == [(0, 10, 0, 10)]


def in_a_transaction(desk: DeskDriver, deed: Callable[[Any], None]) -> None:
    with desk.app.app_context(), db.transaction() as tx:
        deed(tx)


def test_a_later_attempt_that_is_never_sent_leaves_the_answer(desk: DeskDriver, sandbox: Sandbox) -> None:
    """Cancelled after its late line had come, with its next attempt only wished for."""
    run_id = sent_again(desk, sandbox)
    with db.transaction() as tx:
        start_attempts(tx, run_id, [i for (i,) in db.rows(tx, "SELECT id FROM items WHERE state = 'missing'")])
    wishes.ask_refetch(first_batch(desk), actor="tester")
    desk.perform("ingest", first_batch(desk))
    desk.perform("process", first_batch(desk))
    wishes.ask_cancel_run(run_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.status(run_id).state == "cancelled"
    assert statuses(desk, run_id) == ["succeeded"] * 10
    audit(desk, sandbox)


def test_a_late_answer_that_is_no_use_is_invalid_and_can_go_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = sent_again(desk, sandbox, invalid_share=1)
    desk.work_until_over(run_id, hurry=True)
    wishes.ask_refetch(first_batch(desk), actor="tester")
    desk.perform("ingest", first_batch(desk))
    waiting = desk.rows("SELECT id FROM items WHERE output_state = 'waiting'")
    assert len(waiting) == 4
    with db.transaction() as tx:
        late = db.rows(
            tx,
            "INSERT INTO outputs (request_id, state, reason, task_version) SELECT id, 'invalid', 'No use.', '1' "
            "FROM requests WHERE batch_id = :batch AND item_id = ANY(:items) RETURNING request_id",
            batch=first_batch(desk),
            items=[i for (i,) in waiting],
        )
        assert len(late) == 4
        settle_outputs(
            tx,
            first_batch(desk),
            [Outcome(i, 1, OutputState.WAITING, OutputState.INVALID, "No use.") for (i,) in waiting],
        )
    desk.work_until_over(run_id, hurry=True)
    assert statuses(desk, run_id).count("invalid") == 4
    sandbox.configure(invalid_share=0)
    wishes.ask_resubmit(run_id, [FailureClass.OUTPUT], actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert statuses(desk, run_id) == ["succeeded"] * 10
    audit(desk, sandbox)


def test_a_late_line_of_each_of_two_attempts_is_paid_and_answers_once(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = sent_again(desk, sandbox)
    sandbox.configure(results_faults=FOUR_LACK)
    desk.work_until_over(run_id, hurry=True)
    assert statuses(desk, run_id).count("missing") == 4
    for batch_id in [b for (b,) in desk.rows("SELECT id FROM batches ORDER BY id")]:
        refetch(desk, batch_id, run_id)
    assert statuses(desk, run_id) == ["succeeded"] * 10
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 14
    desk.perform_due()  # the output of an answer that nobody waits for
    audit(desk, sandbox)


def test_fetching_again_keeps_the_wish_to_cancel(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600, results_faults=FOUR_LACK)
    run_id = desk.start(documents(10))
    desk.perform_until("in_progress")
    wishes.ask_cancel_run(run_id, actor="tester")
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    assert desk.status(run_id).state == "cancelled"
    refetch(desk, first_batch(desk), run_id)
    assert desk.status(run_id).state == "cancelled"
    assert desk.summary(run_id).missing == 0
    audit(desk, sandbox)


def test_fetching_again_does_not_pause_a_run_for_what_was_refused_before(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.run(documents(4))
    desk.execute("UPDATE requests SET failure_class = 'account' WHERE id = (SELECT min(id) FROM requests)")
    desk.execute("UPDATE items SET error = 'refused' WHERE id = (SELECT min(id) FROM items)")
    refetch(desk, first_batch(desk), run_id)
    assert desk.status(run_id).state == "finished"
    assert desk.scalar("SELECT pause_wanted_at FROM runs") is None


def test_only_a_batch_that_is_done_and_young_enough_is_fetched_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    run_id = desk.start(documents(2))
    batch_id = desk.perform_until("in_progress")
    with pytest.raises(Refused, match="not done"):
        wishes.ask_refetch(batch_id, actor="tester")
    with pytest.raises(NotFound):
        wishes.ask_refetch(999, actor="tester")
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    desk.execute("UPDATE batches SET api_created_at = now() - interval '30 days'")
    with pytest.raises(Refused, match="29 days"):
        wishes.ask_refetch(batch_id, actor="tester")
    assert desk.states() == ["done"]
    assert desk.scalar("SELECT count(*) FROM steps WHERE step <> 'deliver'") == 0


def test_a_fetch_by_hand_that_meets_another_key_is_held_and_ends_with_the_right_one(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    run_id = desk.run(documents(3))
    right, desk.desk.gateway = desk.desk.gateway, Gateway(api_key="ws:other:key", base_url=sandbox.url)
    wishes.ask_refetch(first_batch(desk), actor="tester")
    desk.perform_due()
    assert "held, not lost" in desk.status(run_id).held[0]
    desk.desk.gateway = right
    desk.hurry()
    desk.work_until_over(run_id)
    assert desk.states() == ["done"]
    audit(desk, sandbox)


def test_what_is_missing_and_not_paid_goes_again_after_the_paid_rest_came_late(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    """While paid lines lack, none of the missing goes again by rule; once they are in, the others do."""
    sandbox.configure(missing_share=0.3, results_faults="missing:2*2")
    run_id = desk.run(documents(20))
    lacking = desk.summary(run_id).missing
    assert lacking > 2 and desk.batch(first_batch(desk)).owed == 2
    assert desk.states() == ["done"]
    sandbox.configure(missing_share=0, results_faults="")
    refetch(desk, first_batch(desk), run_id)
    assert desk.status(run_id).state == "finished"
    assert desk.summary(run_id).succeeded == 20
    assert desk.scalar("SELECT count(*) FROM items WHERE attempts = 2") == lacking - 2
    audit(desk, sandbox)
