"""Wishes to send failures again: what a person asks of a run, what the step `resubmit` takes of it, how far it has got.
Pages and the command line ask through `runs.resubmit_run`; reads of a click's progress are here.

A wish is taken once, however often its step is killed or run: it is about the latest attempts that had been made when
it was asked, so what it has sent itself, and what fails after it, is none of its matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, JSON, Connection, ForeignKey, Identity, Integer, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches import selecting
from webapp.batches.queries import Counts
from webapp.batches.selecting import Meant
from webapp.batches.states import FAILED_STATES, FailureClass
from webapp.db import Base

MOST_COUNTED = 50_000  # subjects that a click counts before it says "more than"


class Resubmission(Base):
    """A wish: those failures of a run that are meant are to be sent again. One click makes one for each of its runs."""

    __tablename__ = "resubmissions"
    __table_args__ = (UniqueConstraint("token", "run_id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    # Of the click: the same for all its runs, and for a second click on the same form.
    token: Mapped[str]
    classes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    chosen: Mapped[Any] = mapped_column(JSON)  # of `selecting.Meant`
    latest_request: Mapped[int]  # that had been made: later ones are not meant
    counted: Mapped[int] = mapped_column(Integer)  # that were meant when it was asked; one too many: more than counted
    marked: Mapped[int] = mapped_column(Integer, server_default="0")  # that the step has made new attempts of
    started_at: Mapped[datetime | None]
    taken_at: Mapped[datetime | None]
    dropped: Mapped[str | None]  # why nothing (more) is done about it
    asked_by: Mapped[str]
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())


# Of items i with their latest request r: a wish means them. Binds `:classes`, `:latest` and what `fits` does.
BY_HAND = """
    i.failure_class = ANY(:classes) AND i.failure_class IS NOT NULL AND (r.id IS NULL OR r.id <= :latest)
    AND (i.state NOT IN ('pending', 'succeeded') OR i.output_state = 'invalid')
"""


def count(tx: Connection, run_id: int, classes: Sequence[FailureClass], meant: Meant) -> int:
    """How many subjects of a run would be sent again, one more than `MOST_COUNTED` standing for more."""
    found: int = db.scalar(
        tx,
        f"SELECT count(*) FROM (SELECT 1 FROM items i LEFT JOIN requests r ON r.item_id = i.id "  # noqa: S608 - constants
        f"AND r.attempt = i.attempts WHERE i.run_id = :of AND i.failure_class = ANY(:classes) "
        f"AND i.failure_class IS NOT NULL AND {selecting.SENDABLE} AND {selecting.condition(meant)} "
        "LIMIT :most) AS one",
        of=run_id,
        classes=[failure.value for failure in classes],
        most=MOST_COUNTED + 1,
        **selecting.binds(meant),
    )
    return found


def counted(number: int) -> str:
    """A count as people are told it."""
    return f"more than {MOST_COUNTED:,}" if number > MOST_COUNTED else f"{number:,}"


def wish(
    tx: Connection, run_id: int, classes: Sequence[FailureClass], meant: Meant, *, number: int, token: str, actor: str
) -> bool:
    """Note a wish; the caller holds the run. False when this very click was noted before."""
    return bool(
        db.run(
            tx,
            "INSERT INTO resubmissions (run_id, token, classes, chosen, latest_request, counted, asked_by) "
            "SELECT :run, :token, :classes, CAST(:chosen AS json), coalesce(max(id), 0), :number, :actor FROM requests "
            "ON CONFLICT (token, run_id) DO NOTHING",
            run=run_id,
            token=token,
            classes=[failure.value for failure in classes],
            chosen=meant.as_json(),
            number=number,
            actor=actor,
        )
    )


def drop(tx: Connection, run_id: int, reason: str) -> None:
    """Give up what is left of a run's wishes."""
    db.run(
        tx,
        "UPDATE resubmissions SET dropped = :reason WHERE run_id = :run AND taken_at IS NULL AND dropped IS NULL",
        reason=reason,
        run=run_id,
    )


def waiting(tx: Connection, run_id: int) -> Sequence[Any]:
    """The wishes about a run that are not taken yet, in the order they were asked in."""
    return db.rows(
        tx,
        "SELECT id, classes, chosen::text AS chosen, latest_request, started_at FROM resubmissions "
        "WHERE run_id = :run AND taken_at IS NULL AND dropped IS NULL ORDER BY id",
        run=run_id,
    )


def mark(tx: Connection, wish_id: int, number: int) -> None:
    """Note that the step has made new attempts of some subjects, in the transaction that did."""
    db.run(
        tx,
        "UPDATE resubmissions SET marked = marked + :number, started_at = coalesce(started_at, now()) WHERE id = :id",
        number=number,
        id=wish_id,
    )


def taken(tx: Connection, wish_id: int) -> int | None:
    """Note that all of a wish is on its way; how many subjects that are, or None when it was over before."""
    number: int | None = db.scalar(
        tx,
        "UPDATE resubmissions SET taken_at = now() WHERE id = :id AND taken_at IS NULL RETURNING marked",
        id=wish_id,
    )
    return number


def of_token(tx: Connection, token: str) -> int | None:
    """The first wish of a click."""
    found: int | None = db.scalar(tx, "SELECT min(id) FROM resubmissions WHERE token = :token", token=token)
    return found


# -- how far they have got -----------------------------------------------------------------------------------------

_COLUMNS = "w.id, w.run_id, w.token, w.classes, w.counted, w.marked, w.taken_at, w.dropped, w.asked_by, w.asked_at"


def click(tx: Connection, wish_id: int, limit: int) -> list[Any]:
    """The wishes of the click that a wish belongs to, with their runs, that wish's own first."""
    return list(
        db.rows(
            tx,
            f"SELECT {_COLUMNS}, w.chosen::text AS chosen, run.task, run.state FROM resubmissions w "  # noqa: S608 - a constant
            "JOIN runs run ON run.id = w.run_id "
            "WHERE w.token = (SELECT token FROM resubmissions WHERE id = :id) ORDER BY w.id <> :id, w.id LIMIT :limit",
            id=wish_id,
            limit=limit,
        )
    )


def click_ids(tx: Connection, wish_id: int) -> list[int]:
    """All wishes of the click that a wish belongs to."""
    found = db.rows(
        tx,
        "SELECT id FROM resubmissions WHERE token = (SELECT token FROM resubmissions WHERE id = :id)",
        id=wish_id,
    )
    return [one for (one,) in found]


def latest(tx: Connection, run_id: int | None, limit: int) -> list[Any]:
    """The latest wishes about a run, or about any."""
    return list(
        db.rows(
            tx,
            f"SELECT {_COLUMNS}, w.chosen::text AS chosen, run.task, run.state FROM resubmissions w "  # noqa: S608 - a constant
            f"JOIN runs run ON run.id = w.run_id WHERE {'true' if run_id is None else 'w.run_id = :run'} "
            "ORDER BY w.id DESC LIMIT :limit",
            run=run_id,
            limit=limit,
        )
    )


def progress(tx: Connection, wish_ids: Sequence[int]) -> Mapping[int, tuple[int, Counts]]:
    """By wish, how many subjects it is about and what became of the attempts it made, from tallies of its batches."""
    states = ("succeeded", *(state.value for state in FAILED_STATES))
    sums = ", ".join(f"coalesce(sum(t.{name}) FILTER (WHERE t.scope = 'requests'), 0) AS {name}" for name in states)
    cut = " + ".join(f"t.{name}" for name in ("pending", *states))
    found = db.rows(
        tx,
        "SELECT w.id, CASE WHEN w.dropped IS NOT NULL "  # noqa: S608 - constants
        f"THEN coalesce(sum({cut}) FILTER (WHERE t.scope = 'requests'), 0) "
        f"WHEN w.taken_at IS NULL THEN greatest(w.marked, w.counted) ELSE w.marked END AS total, {sums}, "
        "coalesce(sum(t.invalid) FILTER (WHERE t.scope = 'items'), 0) AS invalid "
        "FROM resubmissions w LEFT JOIN batches b ON b.run_id = w.run_id AND b.resubmission_id = w.id "
        "LEFT JOIN tallies t ON t.batch_id = b.id WHERE w.id = ANY(:ids) GROUP BY w.id",
        ids=list(wish_ids),
    )
    return {
        line.id: (
            int(line.total),
            Counts(invalid=int(line.invalid), **{name: int(getattr(line, name)) for name in states}),
        )
        for line in found
    }
