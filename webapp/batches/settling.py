"""What became of a POST: its outcome recorded, or, without a clear answer, looked for in the API's list.
Called by the submit step (and by ingestion, when an adoption turns out wrong); adopts, plans again, or waits for a
person.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import leaving
from webapp.batches.accounts import find_account
from webapp.batches.desk import Desk
from webapp.batches.models import SubmissionOutcome
from webapp.batches.states import BatchState, explain_batch, hold_batch, move_batch, note
from webapp.batches.steps import Lease, StepName, due
from webapp.errors import ApiAccount, ApiError
from webapp.gateway import ApiBatch, Gateway
from webapp.records.escapes import storable

FIRST_LOOK = 2.0  # seconds after the POST ended without an answer
LOOK_AGAIN = 30.0
HELD_LOOK = 300.0
SEARCHED = "It is looked for in the API's list."
# The API's clock may differ between its machines, and the intent is older than the batch.
CLOCK_MARGIN = timedelta(minutes=10)
OTHER_ACCOUNT = (
    "It was sent with the key of another account, so only that account's list can show it: put that key back;"
)


def settle(desk: Desk, lease: Lease) -> float | None:
    """Look for the batch of an unknown POST. Seconds until the next look, or None when it is settled."""
    with db.transaction() as tx:
        post = db.row(
            tx,
            "SELECT s.id, s.batch_id, s.account_id, s.total, s.api_time, s.ruled_out, b.run_id, b.held, "
            "extract(epoch FROM now() - s.ended_at) AS age "
            "FROM submissions s JOIN batches b ON b.id = s.batch_id "
            "WHERE s.batch_id = :id AND s.outcome = 'unknown'",
            id=lease.target_id,
        )
    if post is None:
        return None
    try:
        if not _same_account(desk, post):
            return _hold(lease, post, f"{OTHER_ACCOUNT} it waits for a person.")
        candidates, complete = _candidates(desk.gateway, post)
    except ApiAccount as error:
        return _hold(lease, post, f"The API refuses this account ({error}), so that its list cannot be searched.")
    except ApiError as error:
        with db.transaction() as tx:
            lease.hold(tx)
            explain_batch(tx, post.batch_id, storable(f"{SEARCHED} The API's list cannot be read just now: {error}"))
        return max(error.retry_after or 0.0, LOOK_AGAIN)
    if len(candidates) == 1:
        _adopt(lease, post, candidates[0])
        return None
    if candidates:
        names = ", ".join(batch.id for batch in candidates)
        return _hold(
            lease, post, f"{len(candidates)} batches at the API may be this one ({names}): it waits for a person."
        )
    if complete and post.age >= desk.settings.unknown_grace:
        return _absent(lease, post)
    _release(lease, post)
    left = desk.settings.unknown_grace - float(post.age)
    return min(LOOK_AGAIN, max(left, 1.0))


def _release(lease: Lease, post: Any) -> None:
    """A batch that was held and has a candidate no more is only searched for."""
    if post.held:
        with db.transaction() as tx:
            lease.hold(tx)
            explain_batch(tx, post.batch_id, SEARCHED)


def _candidates(gateway: Gateway, post: Any) -> tuple[list[ApiBatch], bool]:
    """Batches of the API that this POST may have created, and whether the listing reached far enough to say so."""
    since = post.api_time - CLOCK_MARGIN
    found: list[ApiBatch] = []
    complete = False
    for page in gateway.pages():
        found += [
            batch
            for batch in page.batches
            if batch.created_at >= since and batch.total == post.total and batch.id not in post.ruled_out
        ]
        complete = page.complete or any(batch.created_at < since for batch in page.batches)
        if complete:
            break
        leaving.look()
    with db.transaction() as tx:
        known = {
            api_id
            for (api_id,) in db.rows(
                tx,
                "SELECT api_id FROM submissions WHERE api_id = ANY(:ids) AND outcome = 'created'",
                ids=[batch.id for batch in found],
            )
        }
    return [batch for batch in found if batch.id not in known], complete


def _adopt(lease: Lease, post: Any, batch: ApiBatch) -> None:
    with db.transaction() as tx:
        lease.hold(tx)
        record_created(tx, post.batch_id, post.id, batch, actor="settle", proved=False)
        note(
            tx,
            run_id=post.run_id,
            batch_id=post.batch_id,
            actor="settle",
            reason=f"Found in the API's list as {batch.id}: the only batch of {post.total} requests that no row knew.",
        )


def _same_account(desk: Desk, post: Any) -> bool:
    """Whether the present key sees what the POST's key saw: another account's list proves nothing."""
    identity = desk.gateway.identify()
    with db.transaction() as tx:
        return find_account(tx, desk.settings, identity) == int(post.account_id)


def _hold(lease: Lease, post: Any, reason: str) -> float:
    with db.transaction() as tx:
        lease.hold(tx)
        hold_batch(tx, post.batch_id, reason, actor="settle")
    return HELD_LOOK


def _absent(lease: Lease, post: Any) -> float:
    with db.transaction() as tx:
        lease.hold(tx)
        if not end_post(tx, post.id, SubmissionOutcome.NOT_CREATED, None):
            return 0.0  # its answer came after all
        move_batch(
            tx,
            post.batch_id,
            BatchState.PLANNED,
            actor="settle",
            reason="The API's complete list does not show it: it was never created, and is sent again.",
        )
    return 0.0


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
    }
    # Given up and planned again meanwhile: it is there all the same, and must not be sent a second time.
    move_batch(tx, batch_id, BatchState.SUBMITTING, actor=actor, reason="The answer to an earlier POST came late.")
    moved = move_batch(tx, batch_id, BatchState.IN_PROGRESS, actor=actor, **columns)
    if moved or (proved and _replace_guess(tx, batch_id, columns, actor)):
        due(tx, StepName.POLL, batch_id)
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
            reason=f"The API also created batch {created.id} for this one, after it was given up.",
        )
    return run_id is None


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
        move_batch(tx, batch_id, BatchState.IN_PROGRESS, actor=actor, reason="The answer to its own POST came late.")
    return bool(replaced)


def end_post(
    tx: Connection, submission_id: int, outcome: SubmissionOutcome, error: str | None, api_id: str | None = None
) -> bool:
    """Note what a POST came to; an API id, once known, stays.

    False when something surer is known of it already, by another worker's doing: then nothing may be made of this.
    """
    noted = db.run(
        tx,
        "UPDATE submissions SET outcome = :outcome, error = :error, api_id = coalesce(:api_id, api_id), "
        "ended_at = now() WHERE id = :id "
        "AND (outcome IS NULL OR :outcome = 'created' OR (:outcome = 'not_created' AND outcome = 'unknown'))",
        outcome=outcome.value,
        error=storable(error) if error else error,
        api_id=api_id,
        id=submission_id,
    )
    return bool(noted)


def disprove(tx: Connection, batch_id: int) -> None:
    """Undo an adoption: the batch's results hold no line of ours, so it is a stranger's.

    The POST is unknown again, and that batch of the API is never taken for it a second time.
    """
    stranger = db.scalar(tx, "SELECT api_id FROM batches WHERE id = :id", id=batch_id)
    db.run(
        tx,
        "UPDATE submissions SET outcome = 'unknown', api_id = NULL, ruled_out = ruled_out || CAST(:api AS text) "
        "WHERE batch_id = :id AND api_id = :api",
        api=stranger,
        id=batch_id,
    )
    move_batch(
        tx,
        batch_id,
        BatchState.SUBMIT_UNKNOWN,
        actor="ingest",
        reason=f"Batch {stranger} of the API holds no line of ours: it is a stranger's, and the search goes on.",
        api_id=None,
        proved=True,
        processing_status=None,
        api_counts=None,
        incomplete_since=None,
    )
