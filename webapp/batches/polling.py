"""The step `poll`: ask the API how far a batch is, ask it to cancel when a person wants that, see it end.
Runs in a worker; asks by single GET, at the ages that the poll schedule names.
"""

from __future__ import annotations

import json
from typing import Any

from webapp import db
from webapp.batches import strays
from webapp.batches.completion import results_vanished
from webapp.batches.desk import Desk
from webapp.batches.outcomes import forget_guess
from webapp.batches.settling import is_gone
from webapp.batches.states import BatchState, explain_batch, hold_batch, move_batch
from webapp.batches.steps import Lease, StepName, due
from webapp.errors import ApiAccount, ApiNotFound, ApiRefused, ApiUnclear
from webapp.gateway import ApiBatch
from webapp.records.escapes import storable

CANCEL_WAITS = (
    "Cancel was asked for, but this batch is not proved to be ours: cancelling it might stop somebody else's work. It "
    "waits for the first line of its results, or for a person who wants it cancelled all the same."
)
LOST_WAIT = 300.0  # seconds between looks for a batch that the API does not know (another key, or its trouble)


def poll(desk: Desk, lease: Lease) -> float | None:
    """Look at a batch once. Seconds until the next look, or None when it has ended."""
    with db.transaction() as tx:
        batch = db.row(
            tx,
            "SELECT b.id, b.state, b.api_id, b.account_id, b.proved, b.cancel_unproved, b.processing_status, "
            "coalesce(b.cancel_wanted_at, r.cancel_wanted_at) IS NOT NULL AS cancel, "
            "extract(epoch FROM now() - b.state_since) AS age "
            "FROM batches b JOIN runs r ON r.id = b.run_id WHERE b.id = :id",
            id=lease.target_id,
        )
    if batch is None or batch.state not in (BatchState.IN_PROGRESS, BatchState.CANCELING):
        return None
    every = desk.settings.poll_schedule.every(float(batch.age))
    try:
        answer = _look(desk, batch)
    except ApiNotFound as error:
        return _lost(desk, lease, batch, error)
    except ApiAccount as error:
        with db.transaction() as tx:
            lease.hold(tx)
            hold_batch(tx, batch.id, storable(f"The API refuses this account: {error}"), actor="poll")
        return every
    except (ApiUnclear, ApiRefused) as error:
        with db.transaction() as tx:
            lease.hold(tx)
            explain_batch(tx, batch.id, storable(f"The API cannot be asked just now: {error}"))
        return max(error.retry_after or 0.0, every)
    return _store(lease, batch, answer, every)


def _look(desk: Desk, batch: Any) -> ApiBatch:
    """The batch as it is, after asking to cancel it where that is wanted and still possible."""
    # Canceling here and in progress there: a guess was cancelled, and its own batch has been found since.
    told = batch.state == BatchState.CANCELING and batch.processing_status != "in_progress"
    if batch.cancel and not told and (batch.proved or batch.cancel_unproved):
        try:
            return desk.gateway.cancel(batch.api_id)
        except ApiNotFound:
            raise
        except ApiRefused as error:
            if error.status not in (400, 409):
                raise
            # It ended in between: what it did is paid for and read like any other.
    return desk.gateway.retrieve(batch.api_id)


def _store(lease: Lease, batch: Any, answer: ApiBatch, every: float) -> float | None:
    with db.transaction() as tx:
        lease.hold(tx)
        strays.look_when_due(tx, batch.account_id)
        seen = db.run(
            tx,
            "UPDATE batches SET processing_status = :status, api_counts = CAST(:counts AS json), polled_at = now(), "
            "api_ended_at = :ended, results_url = :url WHERE id = :id AND api_id = :api",
            status=answer.processing_status,
            counts=json.dumps(answer.counts),
            ended=answer.ended_at,
            url=answer.results_url,
            id=batch.id,
            api=batch.api_id,
        )
        if not seen:
            return 0.0  # a guess has given way to the answer of its own POST meanwhile
        if answer.ended:
            if move_batch(tx, batch.id, BatchState.INGESTING, actor="poll"):
                due(tx, StepName.INGEST, batch.id)
            return None
        if answer.processing_status == "canceling" and batch.state == BatchState.IN_PROGRESS:
            move_batch(tx, batch.id, BatchState.CANCELING, actor="poll")
        else:
            waits = batch.cancel and not batch.proved and not batch.cancel_unproved
            explain_batch(tx, batch.id, CANCEL_WAITS if waits else None)
    return every


def _lost(desk: Desk, lease: Lease, batch: Any, error: ApiNotFound) -> float | None:
    reason = f"The API does not know this batch with the present key ({error}) It is held, not lost: check the key."
    gone = not batch.proved and is_gone(desk, batch)
    with db.transaction() as tx:
        lease.hold(tx)
        if gone:
            due(tx, StepName.SUBMIT, batch.id)
            move_batch(tx, batch.id, BatchState.INGESTING, actor="poll")
            forget_guess(tx, batch)
            return None
        if results_vanished(tx, desk.settings, batch.id, actor="poll"):
            return None
        hold_batch(tx, batch.id, storable(reason), actor="poll")
    return LOST_WAIT
