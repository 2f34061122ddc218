"""Wishes to process stored results again: what a person asks of a request or run, and what the step `process` takes
from it. The API is not called, the output before is kept, and the same output is never made twice for one wish.

A wish stays in force for what it was about: an output knows the latest wish that it answers, so that a step may be
killed anywhere, or run twice, and goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import JSON, CheckConstraint, Connection, ForeignKey, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.batches.kept import check_kept
from webapp.batches.selecting import Meant, binds, fits
from webapp.batches.steps import StepName, due
from webapp.db import Base
from webapp.errors import NotFound, Refused
from webapp.hooks import Task


class Reprocessing(Base):
    """A wish: the answers of a run, or one of them, are to be processed again with a version of the task."""

    __tablename__ = "reprocessings"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    request_id: Mapped[int | None]  # NULL: all answers of the run
    chosen: Mapped[Any | None] = mapped_column(JSON)  # of `selecting.Meant`; NULL: the same
    invalid_only: Mapped[bool]
    task_version: Mapped[str]
    refused: Mapped[str | None]  # why nothing (more) is done about it
    asked_by: Mapped[str]
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())


class FormerOutput(Base):
    """An output that another has taken the place of. Written once, read by people."""

    __tablename__ = "former_outputs"
    __table_args__ = (CheckConstraint("state IN ('ok', 'invalid')", name="state"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    request_id: Mapped[int] = mapped_column(index=True)
    state: Mapped[str]
    value: Mapped[Any | None] = mapped_column(JSON)
    reason: Mapped[str | None]
    task_version: Mapped[str]
    processed_at: Mapped[datetime]
    replaced_at: Mapped[datetime] = mapped_column(server_default=func.now())


LOOK = 6_000  # requests whose answers a page counts, each with its rows in other tables
MOST_COUNTED = 50_000


class Which(StrEnum):
    """Which answers of a run are processed again."""

    ALL = "all"
    INVALID = "invalid"


# Of outputs o of requests r: a wish w is about them, and newer than what the output answers.
_MEANT = f"""
    w.id > coalesce(o.reprocessing_id, 0) AND (w.request_id IS NULL OR w.request_id = r.id)
    AND (o.state = 'invalid' OR NOT w.invalid_only) AND (w.chosen IS NULL OR (
        SELECT {fits("w.chosen")} FROM items i WHERE i.id = r.item_id))
"""  # noqa: S608 - constants
# Some wish of the run, no later than `:again`, is so.
ASKED_AGAIN = f"""
    EXISTS (SELECT 1 FROM reprocessings w WHERE w.run_id = :run AND w.refused IS NULL AND w.id <= :again AND {_MEANT})
"""  # noqa: S608 - constants


def reprocess_run(
    tx: Connection, run_id: int, which: Which, *, version: str, actor: str, meant: Meant | None = None
) -> int:
    """Ask that answers of a run are processed again; how many subjects have one (0: nothing is done).

    :param version: of the task, that is to do it.
    :param meant: which of them, counted up to `MOST_COUNTED`; None: all.
    """
    count = reprocessable(tx, run_id)[which] if meant is None else _count(tx, run_id, which, meant)
    for (batch_id,) in db.rows(
        tx,
        "SELECT batch_id FROM tallies WHERE run_id = :run AND scope = 'requests' GROUP BY batch_id "
        "HAVING sum(succeeded) > 0 ORDER BY batch_id",
        run=run_id if count else None,
    ):
        due(tx, StepName.PROCESS, batch_id)
    _lock(tx, run_id)
    if count:
        _wish(tx, run_id, None, which, version, actor, meant)
        what = "all answers" if which == Which.ALL else "the answers that are no use"
        what += f" ({meant.told()})" if meant is not None and meant.told() else ""
        reason = f"Processing of {what} again, {count:,}, was asked for, with version {version} of the task."
        note(tx, run_id=run_id, actor=actor, reason=reason, kind="wish")
    return count


def reprocess_request(tx: Connection, request_id: int, *, version: str, actor: str) -> int:
    """Ask that one answer is processed again; see `reprocess_run`. Its run."""
    request = db.row(
        tx,
        "SELECT r.batch_id, b.run_id, o.state AS output FROM requests r JOIN batches b ON b.id = r.batch_id "
        "LEFT JOIN outputs o ON o.request_id = r.id WHERE r.id = :id",
        id=request_id,
    )
    if request is None:
        raise NotFound(f"There is no request {request_id}.")
    if request.output is None:
        raise Refused(f"Request {request_id} has no output yet: there is nothing to process again.")
    due(tx, StepName.PROCESS, request.batch_id)
    _lock(tx, request.run_id)
    _wish(tx, request.run_id, request_id, Which.ALL, version, actor)
    note(
        tx,
        run_id=request.run_id,
        batch_id=request.batch_id,
        actor=actor,
        reason=f"Processing of request {request_id} again was asked for, with version {version} of the task.",
        kind="wish",
    )
    run_id: int = request.run_id
    return run_id


def _lock(tx: Connection, run_id: int) -> None:
    """One wish about a run at a time: so their ids are in the order in which steps come to see them."""
    if db.row(tx, "SELECT id FROM runs WHERE id = :id FOR UPDATE", id=run_id) is None:
        raise NotFound(f"There is no run {run_id}.")
    check_kept(tx, run_id, "there is nothing to process again")


def reprocessable(tx: Connection, run_id: int) -> dict[Which, int]:
    """How many subjects of a run have an output, and how many one that is no use. From tallies."""
    found = db.row(
        tx,
        "SELECT coalesce(sum(ok) + sum(invalid), 0) AS outputs, coalesce(sum(invalid), 0) AS invalid FROM tallies "
        "WHERE run_id = :run AND scope = 'items'",
        run=run_id,
    )
    return {Which.ALL: int(found.outputs), Which.INVALID: int(found.invalid)}


class Answers(NamedTuple):
    """How many answers with an output are meant, how many of them are no use, and whether there may be more."""

    all: int
    invalid: int
    more: bool


def answers(tx: Connection, run_id: int, meant: Meant) -> Answers:
    """Count the answers of a run that are meant, among the first `LOOK` requests that may be."""
    tx.execute(db.BY_KEY)
    found = db.row(
        tx,
        f"SELECT count(*) AS looked, count(o.state) FILTER (WHERE {fits(':chosen')}) AS outputs, "  # noqa: S608 - constants
        f"count(*) FILTER (WHERE o.state = 'invalid' AND {fits(':chosen')}) AS invalid "
        f"FROM ({_requests(meant)} LIMIT :look) AS r JOIN items i ON i.id = r.item_id "
        "LEFT JOIN outputs o ON o.request_id = r.id",
        look=LOOK,
        of=run_id,
        **binds(meant),
    )
    return Answers(found.outputs, found.invalid, found.looked >= LOOK)


def _count(tx: Connection, run_id: int, which: Which, meant: Meant) -> int:
    count: int = db.scalar(
        tx,
        f"SELECT count(*) FROM (SELECT 1 FROM ({_requests(meant)}) AS r JOIN items i ON i.id = r.item_id "  # noqa: S608 - constants
        "JOIN outputs o ON o.request_id = r.id WHERE (o.state = 'invalid' OR :all) "
        f"AND {fits(':chosen')} LIMIT :most) AS one",
        of=run_id,
        all=which == Which.ALL,
        most=MOST_COUNTED,
        **binds(meant),
    )
    return count


def _requests(meant: Meant) -> str:
    """The requests of a run, by what narrows them best."""
    where = "b.run_id = :of"
    if meant.request_id is not None:
        where += " AND r.id = :request"
    if meant.batch_id is not None:
        where += " AND b.id = :batch"
    return (
        "SELECT r.* FROM batches b JOIN requests r ON r.batch_id = b.id "  # noqa: S608 - constants
        f"WHERE {where}"
    )


def _wish(
    tx: Connection,
    run_id: int,
    request_id: int | None,
    which: Which,
    version: str,
    actor: str,
    meant: Meant | None = None,
) -> None:
    db.run(
        tx,
        "INSERT INTO reprocessings (run_id, request_id, invalid_only, task_version, asked_by, chosen) "
        "VALUES (:run, :request, :invalid_only, :version, :actor, CAST(:chosen AS json))",
        chosen=None if meant is None else meant.as_json(),
        run=run_id,
        request=request_id,
        invalid_only=which == Which.INVALID,
        version=version,
        actor=actor,
    )


def take(tx: Connection, run_id: int, batch_id: int, task: Task[Any]) -> int | None:
    """The latest wish about a run that this pass over a batch answers; None: there is none.

    A wish for another version of the task than the installed one is refused, unless it was answered while that was.
    """
    wishes = _wishes(tx, run_id)
    for wish in wishes:
        if wish.task_version != task.version and _unanswered(tx, batch_id, wish.id):
            _refuse(
                tx,
                run_id,
                wish.id,
                f"Nothing was processed again with version {wish.task_version} of task '{task.name}': version "
                f"{task.version} is installed. Install the other, or ask again.",
            )
    return wishes[-1].id if wishes else None


def refuse(tx: Connection, run_id: int, batch_id: int, reason: str) -> None:
    """Say of the wishes about a batch that are not answered yet why nothing is done about them."""
    for wish in _wishes(tx, run_id):
        if _unanswered(tx, batch_id, wish.id):
            _refuse(tx, run_id, wish.id, reason)


def _wishes(tx: Connection, run_id: int) -> Sequence[Any]:
    return db.rows(
        tx,
        "SELECT id, task_version FROM reprocessings WHERE run_id = :run AND refused IS NULL ORDER BY id",
        run=run_id,
    )


def _unanswered(tx: Connection, batch_id: int, wish_id: int) -> bool:
    return bool(
        db.scalar(
            tx,
            "SELECT EXISTS (SELECT 1 FROM reprocessings w JOIN requests r ON r.batch_id = :batch "  # noqa: S608 - a constant
            f"JOIN outputs o ON o.request_id = r.id WHERE w.id = :wish AND {_MEANT})",
            batch=batch_id,
            wish=wish_id,
        )
    )


def _refuse(tx: Connection, run_id: int, wish_id: int, reason: str) -> None:
    if db.run(tx, "UPDATE reprocessings SET refused = :reason WHERE id = :id AND refused IS NULL", reason=reason,
              id=wish_id):  # fmt: skip
        note(tx, run_id=run_id, actor="process", reason=reason)


def put_aside(tx: Connection, request_ids: Sequence[int]) -> None:
    """Keep the present outputs of some requests as former ones, to make room for the next, in this transaction."""
    if request_ids:
        db.run(
            tx,
            "WITH former AS (DELETE FROM outputs WHERE request_id = ANY(CAST(:ids AS bigint[])) RETURNING *) "
            "INSERT INTO former_outputs (request_id, state, value, reason, task_version, processed_at) "
            "SELECT request_id, state, value, reason, task_version, processed_at FROM former",
            ids=db.array(request_ids),
        )
