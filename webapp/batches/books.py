"""What is appended and never changed: events, and tallies of what entered and left each state.
The room of states writes both beside its moves; steps add notes of their own.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.records.escapes import storable

UNTALLIED = "waiting"  # an answer whose output is not made yet is counted as succeeded, and nowhere else


def note(
    tx: Connection,
    *,
    run_id: int | None,
    actor: str,
    reason: str,
    batch_id: int | None = None,
    kind: str = "note",
    **data: Any,
) -> None:
    """Append an event that is no move of a run or batch: a wish, a chunk, something worth telling."""
    db.run(
        tx,
        "INSERT INTO events (run_id, batch_id, kind, actor, reason, data) "
        "VALUES (:run_id, :batch_id, :kind, :actor, :reason, CAST(:data AS json))",
        run_id=run_id,
        batch_id=batch_id,
        kind=kind,
        actor=actor,
        reason=storable(reason),
        data=json.dumps(data) if data else None,
    )


def tally(
    tx: Connection,
    scope: str,
    deltas: Counter[str],
    *,
    batch_id: int | None = None,
    run_id: int | None = None,
    retry_attempt: int | None = None,
) -> None:
    """Append how many requests (or items) entered or left each state; sums of tallies are the counts.

    :param batch_id: the batch it happened in; its run is looked up. Without one, give `run_id`.
    :param retry_attempt: for items of class retry, the attempt that failed: so that those below the ceiling of
        attempts are counted without reading them.
    """
    changed = {state: count for state, count in deltas.items() if count and state != UNTALLIED}
    if not changed:
        return
    names = ", ".join(changed)
    values = ", ".join(f":{name}" for name in changed)
    db.run(
        tx,
        f"INSERT INTO tallies (scope, run_id, batch_id, retry_attempt, {names}) "  # noqa: S608 - names are states
        "VALUES (:scope, coalesce(:run_id, (SELECT run_id FROM batches WHERE id = :batch_id)), :batch_id, "
        f":retry_attempt, {values})",
        scope=scope,
        run_id=run_id,
        batch_id=batch_id,
        retry_attempt=retry_attempt,
        **changed,
    )
