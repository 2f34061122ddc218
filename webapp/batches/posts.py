"""What a POST came to, written down: its outcome, the API's id on the batch, and the undoing of a wrong adoption.
Submission records what it is told, settling what it finds, ingestion and polling undo what proves wrong.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches.books import note
from webapp.batches.states import BatchState, SubmissionOutcome, move_batch
from webapp.batches.steps import StepName, due
from webapp.gateway import ApiBatch
from webapp.records.escapes import storable


def record_created(
    tx: Connection, batch_id: int, submission_id: int, created: ApiBatch, *, actor: str, proved: bool = True
) -> bool:
    """Record the API's id, stale epoch or not: an id in hand is money at work.

    False when the batch has gone another way meanwhile, so that the API works on something nobody waits for.

    :param proved: False for an adoption, until a line of its results carries one of our custom_ids.
    """
    end_post(tx, submission_id, SubmissionOutcome.CREATED, None, api_id=created.id)
    columns: dict[str, Any] = {
        "api_id": created.id,
        "processing_status": created.processing_status,
        "api_created_at": created.created_at,
        "expires_at": created.expires_at,
        "results_url": created.results_url,
        "proved": proved,
        "incomplete_since": None,
        "cancel_unproved": False,
    }
    if _carries_its_ids(tx, batch_id, submission_id):
        due(tx, StepName.POLL, batch_id)  # before the batch is locked, as the step has it
        # Given up and planned again meanwhile: it is there all the same, and must not be sent a second time.
        move_batch(tx, batch_id, BatchState.SUBMITTING, actor=actor, reason="The answer to an earlier POST came late.")
        if _take(tx, batch_id, columns, actor):
            return True
    run_id = db.scalar(
        tx,
        "SELECT run_id FROM batches WHERE id = :id AND api_id IS DISTINCT FROM :api",
        id=batch_id,
        api=created.id,
    )
    if run_id is not None:
        note(
            tx,
            run_id=run_id,
            batch_id=batch_id,
            actor=actor,
            reason=f"The API also created batch {created.id} for this one, after it was given up: it is cancelled "
            "there, and what it has done by then is paid for and not read.",
        )
    return run_id is None


def _carries_its_ids(tx: Connection, batch_id: int, submission_id: int) -> bool:
    """Whether a POST carried the custom_ids that its batch has now: a copy of the database has drawn others since."""
    others = "SELECT s.place <> b.place FROM submissions s JOIN batches b ON b.id = :batch WHERE s.id = :post"
    return not db.scalar(tx, others, batch=batch_id, post=submission_id)


def _take(tx: Connection, batch_id: int, columns: dict[str, Any], actor: str) -> bool:
    """Give a batch that waits for its id, or has one by a guess, the id of the API's."""
    batch = db.row(tx, "SELECT state, api_id FROM batches WHERE id = :id FOR UPDATE", id=batch_id)
    waits = batch.api_id is None and batch.state in (BatchState.SUBMITTING, BatchState.SUBMIT_UNKNOWN)
    if waits and move_batch(tx, batch_id, BatchState.IN_PROGRESS, actor=actor, **columns):
        return True
    if not columns["proved"]:
        return False
    if batch.api_id == columns["api_id"]:
        # The guess was right: its own answer is proof enough.
        db.run(tx, "UPDATE batches SET proved = true WHERE id = :id AND NOT proved", id=batch_id)
        return True
    return _replace_guess(tx, batch_id, columns, actor)


def _replace_guess(tx: Connection, batch_id: int, columns: dict[str, Any], actor: str) -> bool:
    """Put the id of our own POST in the place of an adoption that nothing has proved yet."""
    names = ", ".join(f"{name} = :{name}" for name in columns)
    replaced = db.run(
        tx,
        f"UPDATE batches SET {names} WHERE id = :id AND NOT proved AND api_id <> :api_id",  # noqa: S608 - our own names
        id=batch_id,
        **columns,
    )
    if replaced:
        reason = f"The answer to its own POST came late: it is {columns['api_id']} at the API, and the guess was wrong."
        run_id = db.scalar(tx, "SELECT run_id FROM batches WHERE id = :id", id=batch_id)
        note(tx, run_id=run_id, batch_id=batch_id, actor=actor, reason=reason)
        move_batch(tx, batch_id, BatchState.IN_PROGRESS, actor=actor, reason=reason)
    return bool(replaced)


def end_post(
    tx: Connection, submission_id: int, outcome: SubmissionOutcome, error: str | None, api_id: str | None = None
) -> bool:
    """Note what a POST came to; an API id, once known, stays, and so does the time of its end.

    False when something surer is known of it already, by another worker's doing: then nothing may be made of this.
    """
    noted = db.run(
        tx,
        "UPDATE submissions SET outcome = :outcome, error = :error, api_id = coalesce(:api_id, api_id), "
        "ended_at = coalesce(ended_at, now()) WHERE id = :id "
        "AND (outcome IS NULL OR :outcome = 'created' OR (:outcome = 'not_created' AND outcome = 'unknown'))",
        outcome=outcome.value,
        error=storable(error) if error else error,
        api_id=api_id,
        id=submission_id,
    )
    return bool(noted)


def lock_guess(tx: Connection, batch_id: int, api_id: str) -> None:
    """Take the locks of `disprove` in their order, before the batch's own: its submit step, then its POST."""
    due(tx, StepName.SUBMIT, batch_id)
    lock = "SELECT 1 FROM submissions WHERE batch_id = :id AND api_id = :api FOR UPDATE"
    db.scalar(tx, lock, id=batch_id, api=api_id)


def forget_guess(tx: Connection, batch: Any) -> None:
    """Undo an adoption of what is not there any more. That it was a stranger's is not known: if the list shows it
    again, it may be taken again.

    :param batch: a row with `id` and `api_id`, as it was when the API was asked.
    """
    reason = f"Batch {batch.api_id}, taken for this one by its count alone, is not there any more"
    disprove(tx, batch.id, batch.api_id, reason, for_good=False)


def first_break(batch_id: int) -> bool:
    """Whether a POST that broke off before its end is the first one of its batch lately that came to nothing."""
    ended = "SELECT count(*) FROM submissions WHERE batch_id = :id AND outcome = 'not_created' "
    with db.transaction() as tx:
        return bool(db.scalar(tx, ended + "AND ended_at > now() - interval '10 minutes'", id=batch_id) <= 1)


def disprove(tx: Connection, batch_id: int, api_id: str, reason: str, *, for_good: bool = True) -> bool:
    """Undo an adoption of that batch of the API; False when the batch holds another by now, or a line has proved it.

    The POST is unknown again, and the search is due.

    :param for_good: that batch of the API is never taken for it a second time; False when it only cannot be found.
    """
    lock_guess(tx, batch_id, api_id)
    guessed = db.scalar(
        tx, "SELECT 1 FROM batches WHERE id = :id AND api_id = :api AND NOT proved FOR UPDATE", id=batch_id, api=api_id
    )
    if guessed is None:
        return False
    undone = move_batch(
        tx,
        batch_id,
        BatchState.SUBMIT_UNKNOWN,
        actor="ingest",
        reason=f"{reason}, and the search goes on.",
        api_id=None,
        proved=True,
        processing_status=None,
        api_counts=None,
        incomplete_since=None,
    )
    if undone:
        db.run(
            tx,
            "UPDATE submissions SET outcome = 'unknown', searched_again = true, api_id = NULL, "
            "ruled_out = CASE WHEN :for_good THEN ruled_out || CAST(:api AS text) ELSE ruled_out END "
            "WHERE batch_id = :id AND api_id = :api",
            for_good=for_good,
            api=api_id,
            id=batch_id,
        )
    return undone
