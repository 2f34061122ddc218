"""What is written beside the moves: events, the reason a batch waits for, tallies of what entered and left each state.
Events and tallies are appended and never changed. `states` and `outcomes` write them; steps add notes of their own.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Connection, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches import whence
from webapp.batches.models import big_id, moment
from webapp.db import Base
from webapp.records.escapes import storable

UNTALLIED = "waiting"  # an answer whose output is not made yet is counted as succeeded, and nowhere else


class Event(Base):
    """One append-only row: what moved, from, to, who, why, when, and from where."""

    __tablename__ = "events"
    # Lists go through events by who, by kind, by what they are about, and from a day on; see `webapp.admin.eventlist`.
    __table_args__ = (
        Index(None, "run_id", "id"),
        Index(None, "batch_id", "id"),
        Index(None, "schedule_id", "id"),
        Index(None, "actor", "id"),
        Index(None, "kind", "id"),
        Index(None, "at"),
        Index("ix_events_target", "target_kind", "target", "id", postgresql_where=text("target IS NOT NULL")),
    )

    id: Mapped[int] = big_id()
    at: Mapped[datetime] = moment(now=True)
    run_id: Mapped[int | None]
    batch_id: Mapped[int | None]
    schedule_id: Mapped[int | None]
    # What else it is about: a kind of thing ("person") and which one, as people name it.
    target_kind: Mapped[str | None]
    target: Mapped[str | None]
    kind: Mapped[str]
    from_state: Mapped[str | None]
    to_state: Mapped[str | None]
    actor: Mapped[str]
    address: Mapped[str | None]
    reason: Mapped[str | None]
    data: Mapped[Any | None] = mapped_column(JSON)


def note(
    tx: Connection,
    *,
    run_id: int | None,
    actor: str,
    reason: str,
    batch_id: int | None = None,
    schedule_id: int | None = None,
    kind: str = "note",
    target: tuple[str, str] | None = None,
    **data: Any,
) -> None:
    """Append an event that is no move of a run or batch: a wish, a chunk, something worth telling.

    :param target: what it is about, if that is no run or batch: a kind of thing, and which one.
    """
    db.run(
        tx,
        "INSERT INTO events (run_id, batch_id, schedule_id, kind, target_kind, target, actor, address, reason, data) "
        "VALUES (:run_id, :batch_id, :schedule_id, :kind, :target_kind, :target, :actor, :address, :reason, "
        "CAST(:data AS json))",
        target_kind=target and target[0],
        target=target and storable(target[1]),
        address=whence.address(),
        run_id=run_id,
        batch_id=batch_id,
        schedule_id=schedule_id,
        kind=kind,
        actor=actor,
        reason=storable(reason),
        data=json.dumps(data) if data else None,
    )


def hold_batch(tx: Connection, batch_id: int, reason: str, *, actor: str) -> None:
    """Say that a batch waits for a person, and for what; its next move ends that. May be repeated."""
    held = db.row(
        tx,
        "UPDATE batches SET held = true, reason = :reason WHERE id = :id "
        "AND (NOT held OR reason IS DISTINCT FROM :reason) RETURNING run_id",
        id=batch_id,
        reason=reason,
    )
    if held is not None:
        note(tx, run_id=held.run_id, batch_id=batch_id, actor=actor, reason=reason)


def explain_batch(tx: Connection, batch_id: int, reason: str | None) -> None:
    """Say why a batch does not get on just now, or (None) that it does again. No move, and no wait for a person."""
    db.run(
        tx,
        "UPDATE batches SET held = false, reason = :reason WHERE id = :id "
        "AND (held OR reason IS DISTINCT FROM :reason)",
        id=batch_id,
        reason=reason,
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
