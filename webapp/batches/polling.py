"""The step `poll`: ask the API how far a batch is, ask it to cancel when a person wants that, see it end.
Runs in a worker, at the ages that the poll schedule names. Where one page of the API's list costs fewer calls than
single GETs, one poll looks at every batch of the account that is due about now.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import strays, vanguard
from webapp.batches.books import explain_batch, hold_batch
from webapp.batches.completion import results_vanished
from webapp.batches.desk import Desk
from webapp.batches.posts import forget_guess, lock_guess
from webapp.batches.settling import is_gone
from webapp.batches.states import BatchState, move_batch
from webapp.batches.steps import Lease, StepName, due, give_back, still_held, take_due
from webapp.errors import ApiAccount, ApiError, ApiNotFound, ApiRefused
from webapp.gateway import PAGE as LIST_PAGE
from webapp.gateway import ApiBatch
from webapp.records.escapes import storable

CANCEL_WAITS = (
    "Cancel was asked for, but this batch is not proved to be ours: cancelling it might stop somebody else's work. It "
    "waits for the first line of its results, or for a person who wants it cancelled all the same."
)
LOST_WAIT = 300.0  # seconds between looks for a batch that the API does not know (another key, or its trouble)
EARLIER = 0.5  # of its interval: so much earlier a batch may be looked at when a list is read anyway
CHUNK = 100  # batches whose answers are stored in one transaction
ALONE = 20  # batches that a list lacked and that are asked for in the same turn; the rest has turns of its own

LOOK = """
    SELECT b.id, b.state, b.api_id, b.account_id, b.proved, b.cancel_unproved, b.processing_status, b.api_created_at,
           coalesce(b.cancel_wanted_at, r.cancel_wanted_at) IS NOT NULL AS cancel,
           extract(epoch FROM now() - b.state_since) AS age
    FROM batches b JOIN runs r ON r.id = b.run_id
"""


class GuessGone(ApiNotFound):
    """What was adopted by its count alone is not at the API any more."""


def poll(desk: Desk, lease: Lease) -> float | None:
    """Look at a batch once, and at others along with it. Seconds until the next look, or None when it has ended."""
    with db.transaction() as tx:
        batch = db.row(tx, f"{LOOK} WHERE b.id = :id", id=lease.target_id)
    if batch is None or batch.state not in (BatchState.IN_PROGRESS, BatchState.CANCELING):
        return None
    seen = {} if _to_cancel(batch) else _look_at_many(desk, batch)
    answer = seen.get(batch.api_id) or _look(desk, batch)
    with db.transaction() as tx:
        lease.hold(tx)
        strays.look_when_due(tx, batch.account_id)
        again = _store(tx, desk, batch, answer)
    if any(isinstance(one, ApiBatch) and one.ended for one in (answer, *seen.values())):
        _wake_next()
    return again


def _to_cancel(batch: Any) -> bool:
    """Whether the API is to be asked to cancel it: a person wants that, and it is not told yet."""
    # Canceling here and in progress there: a guess was cancelled, and its own batch has been found since.
    told = batch.state == BatchState.CANCELING and batch.processing_status != "in_progress"
    return bool(batch.cancel and not told and (batch.proved or batch.cancel_unproved))


def _look(desk: Desk, batch: Any) -> ApiBatch | ApiError:
    """The batch as it is, after asking to cancel it where that is wanted and still possible; or why nobody knows."""
    try:
        if _to_cancel(batch):
            try:
                return desk.gateway.cancel(batch.api_id)
            except ApiRefused as error:
                if error.status not in (400, 409):
                    raise
                # It ended in between: what it did is paid for and read like any other.
        return desk.gateway.retrieve(batch.api_id)
    except ApiNotFound as error:
        return GuessGone(str(error)) if not batch.proved and is_gone(desk, batch) else error
    except ApiError as error:
        return error


# -- many at once ------------------------------------------------------------------------------------------------


def _look_at_many(desk: Desk, batch: Any) -> dict[str, ApiBatch | ApiError]:
    """Look at all of the account that is due about now, where a list takes fewer calls than single GETs would.

    What was heard of them, this batch among them, by the API's id. The others are stored and given back here. Absence
    from a list says nothing: a GET decides.
    """
    within = desk.settings.poll_schedule.every(float(batch.age)) * EARLIER
    with db.transaction() as tx:
        others = [other for other in _due_with(tx, batch, within) if not _to_cancel(other)]
        pages = _pages(tx, [batch, *others])
    if len(others) + 1 <= pages:
        return {}
    with db.transaction() as tx:
        leases = take_due(tx, StepName.POLL, [other.id for other in others], within=within)
    others = [other for other in others if other.id in leases]
    seen = _listed(desk, [batch.api_id, *(other.api_id for other in others)], at_most=max(pages, len(others) // 2))
    lacking = [other for other in others if other.api_id not in seen]
    seen |= {other.api_id: _look(desk, other) for other in lacking[:ALONE]}
    for start in range(0, len(others), CHUNK):
        chunk = others[start : start + CHUNK]
        with db.transaction() as tx:
            held = still_held(tx, [leases[other.id] for other in chunk])
            for other in chunk:
                if other.id in held:
                    answer = seen.get(other.api_id)
                    again = 0.0 if answer is None else _store(tx, desk, other, answer)
                    give_back(tx, leases[other.id], again_after=again)
    return seen


def _due_with(tx: Connection, batch: Any, within: float) -> Sequence[Any]:
    """Batches of the same account whose poll is due `within` seconds and held by nobody."""
    return db.rows(
        tx,
        f"""
        {LOOK} JOIN steps s ON s.step = 'poll' AND s.target_id = b.id
        WHERE b.state IN ('in_progress', 'canceling') AND b.account_id = :account AND b.id <> :id
          AND s.due_at <= now() + make_interval(secs => :within)
          AND (s.lease_until IS NULL OR s.lease_until < now())
        ORDER BY b.id
        """,
        account=batch.account_id,
        id=batch.id,
        within=within,
    )


def _pages(tx: Connection, wanted: Sequence[Any]) -> int:
    """How many pages of the API's list, newest first, it takes at least to see all of these."""
    newer: int = db.scalar(
        tx,
        "SELECT count(*) FROM batches WHERE account_id = :account AND api_created_at >= :oldest",
        account=wanted[0].account_id,
        oldest=min(one.api_created_at for one in wanted),
    )
    return -(-newer // LIST_PAGE)


def _listed(desk: Desk, wanted: Sequence[str], *, at_most: int) -> dict[str, ApiBatch | ApiError]:
    """What the first pages of the API's list say of the wanted ones; or of each of them why it cannot be read."""
    found: dict[str, ApiBatch | ApiError] = {}
    left = set(wanted)
    try:
        for page in islice(desk.gateway.pages(), at_most):
            found |= {one.id: one for one in page.batches if one.id in left}
            left -= found.keys()
            if not left:
                break
    except ApiError as error:
        found |= dict.fromkeys(left, error)
    return found


# -- what an answer comes to -------------------------------------------------------------------------------------


def _store(tx: Connection, desk: Desk, batch: Any, answer: ApiBatch | ApiError) -> float | None:
    """Write down what the API said of a batch; seconds until it is to be asked again, or None."""
    every = desk.settings.poll_schedule.every(float(batch.age))
    if isinstance(answer, GuessGone):
        lock_guess(tx, batch.id, batch.api_id)
        move_batch(tx, batch.id, BatchState.INGESTING, actor="poll")
        forget_guess(tx, batch)
        return None
    if isinstance(answer, ApiNotFound):
        return _lost(tx, desk, batch, answer)
    if isinstance(answer, ApiAccount):
        hold_batch(tx, batch.id, storable(f"The API refuses this account: {answer}"), actor="poll")
        return every
    if isinstance(answer, ApiError):
        explain_batch(tx, batch.id, storable(f"The API cannot be asked just now: {answer}"))
        return max(answer.retry_after or 0.0, every)
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
        vanguard.arrived(tx, batch.id)
        if move_batch(tx, batch.id, BatchState.INGESTING, actor="poll"):
            due(tx, StepName.INGEST, batch.id)
        return None
    if answer.processing_status == "canceling" and batch.state == BatchState.IN_PROGRESS:
        move_batch(tx, batch.id, BatchState.CANCELING, actor="poll")
    else:
        waits = batch.cancel and not batch.proved and not batch.cancel_unproved
        explain_batch(tx, batch.id, CANCEL_WAITS if waits else None)
    return every


def _lost(tx: Connection, desk: Desk, batch: Any, error: ApiNotFound) -> float | None:
    if results_vanished(tx, desk.settings, batch.id, actor="poll"):
        return None
    reason = f"The API does not know this batch with the present key ({error}) It is held, not lost: check the key."
    hold_batch(tx, batch.id, storable(reason), actor="poll")
    return LOST_WAIT


def _wake_next() -> None:
    """There is room at the API: the batch that has waited longest to be sent is looked at."""
    with db.transaction() as tx:
        waiting = db.scalar(
            tx,
            "SELECT b.id FROM batches b JOIN runs r ON r.id = b.run_id "
            "WHERE b.state = 'planned' AND r.state = 'running' ORDER BY b.id LIMIT 1",
        )
        if waiting is not None:
            due(tx, StepName.SUBMIT, waiting)
