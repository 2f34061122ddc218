"""Batches that go ahead of the rest of their run: one request that writes the shared part into the cache, and a pilot
that people look at before the rest is released. Planning asks which shards these are, submission whether another batch
must wait for them. A pilot's end is seen in `webapp.runs.pilots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.batches.cutting import Lead
from webapp.batches.states import BatchRole, BatchState
from webapp.batches.steps import StepName, due

#: Seconds that the others wait for the request that writes the cache. What it saves is worth no more of anybody's time.
PRIME_PATIENCE = 3600.0
# Where a batch has no answers yet: it may still write the cache, once it is there.
_BEFORE = [
    BatchState.PLANNED.value,
    BatchState.SUBMITTING.value,
    BatchState.SUBMIT_UNKNOWN.value,
    BatchState.IN_PROGRESS.value,
    BatchState.CANCELING.value,
]
PILOTING = "It waits for the pilot: the rest is sent when somebody has looked at its outputs and releases it."


class Wait(NamedTuple):
    """Why a batch is not sent yet. `seconds` until it is looked at in any case; None: whoever lets it go wakes it."""

    words: str
    seconds: float | None


def leading(tx: Connection, run_id: int) -> Sequence[Lead]:
    """The first requests of a run that go ahead and are not cut yet, in order."""
    run = db.row(tx, "SELECT pilot, priming IS NOT NULL AS primed FROM runs WHERE id = :id", id=run_id)
    cut = db.rows(
        tx,
        "SELECT role, CAST(sum(total) AS int) AS total FROM batches WHERE run_id = :id AND role IS NOT NULL "
        "AND state <> 'discarded' GROUP BY role",
        id=run_id,
    )
    done = {one.role: one.total for one in cut}
    wanted = {BatchRole.PRIME: int(run.primed), BatchRole.PILOT: (run.pilot or 0) - int(run.primed)}
    left = {role: count - done.get(role, 0) for role, count in wanted.items()}
    return [Lead(count, role) for role, count in left.items() if count > 0]


def in_front(tx: Connection, batch_id: int) -> Wait | None:
    """Why a batch that is to be sent must wait for one that goes ahead of it; None: it need not."""
    found = db.row(
        tx,
        """
        SELECT b.role, r.pilot IS NOT NULL AND r.pilot_released_at IS NULL AND b.resubmission_id IS NULL AS piloting,
                p.id AS prime, p.seconds
        FROM batches b JOIN runs r ON r.id = b.run_id LEFT JOIN LATERAL (
            SELECT p.id, CAST(:patience - extract(epoch FROM now() - coalesce(
                (SELECT max(s.armed_at) FROM submissions s WHERE s.batch_id = p.id),
                GREATEST(p.created_at, r.state_since))) AS float) AS seconds
            FROM batches p WHERE p.run_id = r.id AND p.role = 'prime' AND p.state = ANY(:before) ORDER BY p.id LIMIT 1
        ) AS p ON true WHERE b.id = :id
        """,
        id=batch_id,
        patience=PRIME_PATIENCE,
        before=_BEFORE,
    )
    if found.role == BatchRole.PRIME:
        return None
    if found.prime is not None and found.seconds > 0:
        words = f"It waits for batch {found.prime}, a single request that writes the shared part into the cache."
        return Wait(words, found.seconds)
    if found.role is None and found.piloting:
        return Wait(PILOTING, None)
    return None


def arrived(tx: Connection, batch_id: int) -> None:
    """A batch has ended: where the others wait for what it writes into the cache, they are due.

    Called before the batch is moved, as steps are locked before runs.
    """
    waiting = db.rows(
        tx,
        "SELECT b.id FROM batches p JOIN batches b ON b.run_id = p.run_id AND b.state = 'planned' AND b.id <> p.id "
        "WHERE p.id = :id AND p.role = 'prime' ORDER BY b.id",
        id=batch_id,
    )
    for (other_id,) in waiting:
        due(tx, StepName.SUBMIT, other_id)
