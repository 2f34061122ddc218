"""Deliveries: one row for each round in which the outputs of a run go to a destination, and for each in which a plugin
is told that a run is over. Made in the transaction that ends the run, or changes its outputs after that; the step
`deliver` works through them.

Each round has all outputs of its run, and takes the place of an earlier one that has not come through. Locked are steps
first, then runs, then deliveries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, Integer, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.batches.models import big_id, moment, one_of
from webapp.batches.naming import new_token
from webapp.batches.states import DeliveryState, RunState, move_delivery
from webapp.batches.steps import StepName, due
from webapp.db import Base
from webapp.delivery import destinations
from webapp.errors import NotFound, Refused

SHOWN = 50


class Kind(StrEnum):
    """What is to be done."""

    SINK = "sink"  # the outputs go to a destination
    HOOK = "hook"  # a plugin's on_run_finished is called
    NEWS = "news"  # a row for each plugin that has the hook is to be made: whoever ends a run loads no plugins


class Delivery(Base):
    """One round of one run to one destination, or plugin."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("run_id", "kind", "name", "round"),
        one_of("kind", Kind),
        one_of("state", DeliveryState),
        Index(None, "name", "id"),
        Index("ix_deliveries_failed", "id", postgresql_where=text("state = 'failed'")),
    )

    id: Mapped[int] = big_id()
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    kind: Mapped[str]
    name: Mapped[str]  # of the destination, or of the plugin; none of news
    round: Mapped[int] = mapped_column(Integer)
    token: Mapped[str]  # the keys that the receiver gets are made of it
    state: Mapped[str] = mapped_column(server_default=DeliveryState.WAITING.value)
    state_since: Mapped[datetime] = moment(now=True)
    reason: Mapped[str | None]  # what went wrong the last time
    started_at: Mapped[datetime | None] = moment()
    # How far it has come: the outputs of items up to this position are taken, so many of them.
    position: Mapped[int] = mapped_column(Integer, server_default="-1")
    outputs: Mapped[int] = mapped_column(Integer, server_default="0")
    failures: Mapped[int] = mapped_column(Integer, server_default="0")  # since it last came any further
    created_at: Mapped[datetime] = moment(now=True)


def make(tx: Connection, run_id: int) -> None:
    """A round of everything: the run is over. The caller holds the run's lock."""
    _make(tx, run_id, Kind.SINK, (one.name for one in destinations.of_run(tx, run_id)))
    _spread(tx, run_id)


def renew(tx: Connection, run_id: int) -> None:
    """Some outputs of a run have changed: if it is over, what has been delivered, or begun to be, is delivered anew.

    A round that has not begun yet waits until nothing of its run is being processed, and has the new outputs.
    """
    if not _over(tx, run_id, "") or not _over(tx, run_id, " FOR UPDATE"):
        return  # its end makes a round
    fresh = db.rows(
        tx,
        "SELECT name FROM deliveries WHERE run_id = :run AND kind = 'sink' AND state = 'waiting' "
        "AND started_at IS NULL ORDER BY id FOR UPDATE",
        run=run_id,
    )
    waiting = {name for (name,) in fresh}
    _make(tx, run_id, Kind.SINK, (one.name for one in destinations.of_run(tx, run_id) if one.name not in waiting))
    _spread(tx, run_id)


def tell_each(tx: Connection, news: Any, plugins: Iterable[str]) -> None:
    """Put a round for each plugin in the place of news, which has not begun."""
    db.row(tx, "SELECT id FROM runs WHERE id = :id FOR UPDATE", id=news.run_id)
    if db.run(tx, "DELETE FROM deliveries WHERE id = :id AND state = 'waiting'", id=news.id):
        _make(tx, news.run_id, Kind.HOOK, plugins)


def give_way(tx: Connection, delivery: Any) -> None:
    """Give a round up that has not begun, for its run is under way again. The caller holds the locks of both."""
    if delivery.kind == Kind.NEWS:
        db.run(tx, "DELETE FROM deliveries WHERE id = :id", id=delivery.id)
        return
    again = "the run is under way again, and its end brings everything"
    words = f"{whither(delivery)}, round {delivery.round}, is given up: {again}."
    move_delivery(tx, delivery.id, DeliveryState.SUPERSEDED, actor="worker", words=words)


def deliver_run(tx: Connection, run_id: int, destination_ids: Iterable[int], *, actor: str) -> int:
    """Let the outputs of a run go to some destinations, at its end, or, if it is over, now and whole; how many rounds
    were made.
    """
    run = db.row(tx, "SELECT id FROM runs WHERE id = :id FOR UPDATE", id=run_id)
    if run is None:
        raise NotFound(f"There is no run {run_id}.")
    wanted = set(destination_ids)
    destinations.name_for(tx, run_id, wanted)
    names = [one.name for one in destinations.of_run(tx, run_id) if one.id in wanted]
    note(tx, run_id=run_id, actor=actor, reason=f"Delivery to {', '.join(names)} asked for.", kind="wish")
    if not _over(tx, run_id, ""):
        return 0
    _make(tx, run_id, Kind.SINK, names)
    return len(names)


def try_again(tx: Connection, delivery_id: int, *, actor: str) -> int:
    """Try a delivery again that has failed, from where it had come to; the id of its run.

    :raises Refused: it has not failed.
    """
    due(tx, StepName.DELIVER, delivery_id)
    found = db.row(tx, "SELECT id, run_id, kind, name, state FROM deliveries WHERE id = :id FOR UPDATE", id=delivery_id)
    if found is None:
        raise NotFound(f"There is no delivery {delivery_id}.")
    if found.state != DeliveryState.FAILED:
        raise Refused(f"Delivery {delivery_id} is {found.state}: there is nothing to try again.")
    db.run(tx, "UPDATE deliveries SET failures = 0 WHERE id = :id", id=delivery_id)
    move_delivery(tx, delivery_id, DeliveryState.WAITING, actor=actor, words=f"{whither(found)} is tried again.")
    run_id: int = found.run_id
    return run_id


def failed_of(tx: Connection, run_id: int) -> list[int]:
    """The deliveries of a run that have failed."""
    found = db.rows(tx, "SELECT id FROM deliveries WHERE run_id = :run AND state = 'failed' ORDER BY id", run=run_id)
    return [delivery_id for (delivery_id,) in found]


def whither(delivery: Any) -> str:
    """A delivery as sentences begin with it."""
    if delivery.kind == Kind.NEWS:
        return "Telling plugins"
    if delivery.kind == Kind.HOOK:
        return f"Telling plugin '{delivery.name}'"
    return f"Delivery to '{delivery.name}'"


def of_run(tx: Connection, run_id: int) -> Sequence[Any]:
    """The latest round of each destination and plugin of a run, for its page; `due_in`: seconds to the next try."""
    return db.rows(
        tx,
        """
        SELECT DISTINCT ON (v.kind, v.name) v.id, v.kind, v.name, v.round, v.state, v.state_since, v.reason,
               v.outputs, v.failures, d.id AS destination_id, d.sink, d.enabled,
               extract(epoch FROM s.due_at - now()) AS due_in, s.lease_until IS NOT NULL AS under_way
        FROM (SELECT * FROM deliveries WHERE run_id = :run AND kind <> 'news' ORDER BY id DESC LIMIT :limit) AS v
        LEFT JOIN destinations d ON v.kind = 'sink' AND d.name = v.name
        LEFT JOIN steps s ON s.step = 'deliver' AND s.target_id = v.id
        ORDER BY v.kind DESC, v.name, v.round DESC
        """,
        run=run_id,
        limit=SHOWN,
    )


def standing(tx: Connection, run_id: int) -> Sequence[Any]:
    """Where the latest rounds of a run stand, for whoever waits for them: `under_way` until each was tried once."""
    return db.rows(
        tx,
        """
        SELECT DISTINCT ON (v.kind, v.name) v.kind, v.name, v.state, v.position, v.outputs, v.failures, v.reason,
               v.state = 'waiting' AND v.failures = 0 AND coalesce(d.enabled, true) AS under_way
        FROM deliveries v LEFT JOIN destinations d ON v.kind = 'sink' AND d.name = v.name
        WHERE v.run_id = :run ORDER BY v.kind, v.name, v.round DESC
        """,
        run=run_id,
    )


def _spread(tx: Connection, run_id: int) -> None:
    """Let plugins be told. News that is there already may be due no more, and steps are locked before runs."""
    db.run(tx, "DELETE FROM deliveries WHERE run_id = :run AND kind = 'news'", run=run_id)
    _make(tx, run_id, Kind.NEWS, [""])


def _over(tx: Connection, run_id: int, lock: str) -> bool:
    state = db.scalar(tx, f"SELECT state FROM runs WHERE id = :id{lock}", id=run_id)  # noqa: S608 - our own words
    return state in (RunState.FINISHED, RunState.CANCELLED)


def _make(tx: Connection, run_id: int, kind: Kind, names: Iterable[str]) -> None:
    for name in names:
        for earlier in db.rows(
            tx,
            "SELECT id, kind, name, round FROM deliveries WHERE run_id = :run AND kind = :kind AND name = :name "
            "AND state IN ('waiting', 'failed') ORDER BY id",
            run=run_id,
            kind=kind.value,
            name=name,
        ):
            words = f"{whither(earlier)}, round {earlier.round}, is given up: the next round brings everything."
            move_delivery(tx, earlier.id, DeliveryState.SUPERSEDED, actor="worker", words=words)
        made = db.scalar(
            tx,
            "INSERT INTO deliveries (run_id, kind, name, round, token) SELECT :run, :kind, :name, "
            "1 + coalesce(max(round), 0), :token FROM deliveries WHERE run_id = :run AND kind = :kind AND name = :name "
            "RETURNING id",
            run=run_id,
            kind=kind.value,
            name=name,
            token=new_token(),
        )
        due(tx, StepName.DELIVER, made)
