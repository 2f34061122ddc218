"""Schedules: a saved run that repeats over what is new or changed, or over all. What people ask of them, and the step
`repeat`, which makes a run when one is due.

A run and the next time are written in one transaction, so that a step that is killed or performed twice makes one run.
Times are compared by the database's clock. What was missed while everything was down is made up for once.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import JSON, CheckConstraint, Connection, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.batches.desk import Desk
from webapp.batches.models import big_id, moment
from webapp.batches.naming import TOKEN_BYTES
from webapp.batches.states import RunState
from webapp.batches.steps import Lease, StepName, due
from webapp.db import Base
from webapp.delivery import destinations
from webapp.errors import InputError, NotFound, PluginError, Refused
from webapp.hooks import Task
from webapp.records import jsontext
from webapp.runs import verbs
from webapp.runs.staleness import Over
from webapp.runs.timetable import times

ACTOR = "repeat"


class Schedule(Base):
    """A run that repeats."""

    __tablename__ = "schedules"
    __table_args__ = (CheckConstraint("over IN ('all', 'stale')", name="over"),)

    id: Mapped[int] = big_id()
    name: Mapped[str]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    task: Mapped[str]
    settings: Mapped[Any] = mapped_column(JSON)
    over: Mapped[str]
    cron: Mapped[str]
    zone: Mapped[str]
    enabled: Mapped[bool] = mapped_column(server_default="true")
    problem: Mapped[str | None]  # why it was stopped, when no person did it
    next_at: Mapped[datetime] = moment()
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))  # the latest that it made
    outcome: Mapped[str | None]  # what came of its last time, in words
    outcome_at: Mapped[datetime | None] = moment()
    token: Mapped[str] = mapped_column(unique=True)  # the tokens of its runs are made of it
    owner: Mapped[str]
    created_at: Mapped[datetime] = moment(now=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A schedule as people want it.

    :param cron: five fields, read in the time of `zone`, the name of a time zone.
    :param to: the names of the destinations that the outputs of its runs go to.
    """

    name: str
    over: Over
    cron: str
    zone: str
    to: tuple[str, ...] = ()


def create(
    tx: Connection, dataset_id: int, task: Task[Any], settings: BaseModel, wanted: Wanted, *, owner: str, token: str
) -> int:
    """Make a schedule, which is on; its id. May be repeated: one for each token.

    :raises InputError: its time makes no sense.
    """
    db.run(tx, "SELECT pg_advisory_xact_lock(hashtextextended(:token, 0))", token=token)
    made = db.scalar(tx, "SELECT id FROM schedules WHERE token = :token", token=token)
    if made is not None:
        return int(made)
    schedule_id: int = db.scalar(
        tx,
        "INSERT INTO schedules (name, dataset_id, task, settings, over, cron, zone, next_at, token, owner) VALUES "
        "(:name, :dataset, :task, CAST(:settings AS json), :over, :cron, :zone, :next, :token, :owner) RETURNING id",
        name=wanted.name,
        dataset=dataset_id,
        task=task.name,
        settings=_stored(settings),
        over=wanted.over.value,
        cron=wanted.cron,
        zone=wanted.zone,
        next=_next(tx, wanted.cron, wanted.zone),
        token=token,
        owner=owner,
    )
    destinations.name_for_schedule(tx, schedule_id, destinations.check(tx, wanted.to))
    note(tx, run_id=None, schedule_id=schedule_id, actor=owner, reason="Schedule made.", kind="wish")
    _wake(tx, schedule_id)
    return schedule_id


def edit(tx: Connection, schedule_id: int, settings: BaseModel, wanted: Wanted, *, actor: str) -> None:
    """Change a schedule; its next time is worked out anew.

    :raises InputError: its time makes no sense.
    """
    found = find(tx, schedule_id, lock=True)
    problem = found.problem if not found.enabled else None
    db.run(
        tx,
        "UPDATE schedules SET name = :name, settings = CAST(:settings AS json), over = :over, cron = :cron, "
        "zone = :zone, next_at = :next, problem = :problem WHERE id = :id",
        id=schedule_id,
        name=wanted.name,
        settings=_stored(settings),
        over=wanted.over.value,
        cron=wanted.cron,
        zone=wanted.zone,
        next=_next(tx, wanted.cron, wanted.zone),
        problem=problem,
    )
    kept = {one.name for one in destinations.of_schedule(tx, schedule_id)}
    destinations.name_for_schedule(tx, schedule_id, destinations.check(tx, wanted.to, kept=kept))
    note(tx, run_id=None, schedule_id=schedule_id, actor=actor, reason="Schedule changed.", kind="wish")
    if found.enabled:
        _wake(tx, schedule_id)


def pause(tx: Connection, schedule_id: int, *, actor: str) -> None:
    """Make no more runs until it is resumed. A run under way goes on."""
    if not find(tx, schedule_id, lock=True).enabled:
        raise Refused(f"Schedule {schedule_id} is paused already.")
    db.run(tx, "UPDATE schedules SET enabled = false WHERE id = :id", id=schedule_id)
    note(tx, run_id=None, schedule_id=schedule_id, actor=actor, reason="Schedule paused.", kind="wish")
    due(tx, StepName.REPEAT, schedule_id)  # which ends with it


def resume(tx: Connection, schedule_id: int, *, actor: str) -> None:
    """Go on at the next time from now. What fell into the pause is not made up for."""
    found = find(tx, schedule_id, lock=True)
    if found.enabled:
        raise Refused(f"Schedule {schedule_id} is not paused.")
    db.run(
        tx,
        "UPDATE schedules SET enabled = true, problem = NULL, next_at = :next WHERE id = :id",
        id=schedule_id,
        next=_next(tx, found.cron, found.zone),
    )
    note(tx, run_id=None, schedule_id=schedule_id, actor=actor, reason="Schedule resumed.", kind="wish")
    _wake(tx, schedule_id)


def delete(tx: Connection, schedule_id: int, *, actor: str) -> None:
    """Take a schedule away. Its runs and their outputs stay."""
    found = find(tx, schedule_id, lock=True)
    destinations.name_for_schedule(tx, schedule_id, ())
    db.run(tx, "DELETE FROM schedules WHERE id = :id", id=schedule_id)
    note(tx, run_id=None, schedule_id=schedule_id, actor=actor, reason=f"Schedule “{found.name}” deleted.", kind="wish")
    due(tx, StepName.REPEAT, schedule_id)  # which ends with it


def find(tx: Connection, schedule_id: int, *, lock: bool = False) -> Any:
    """A schedule's row, with `early`, the seconds until its next time.

    :raises NotFound: there is none.
    """
    found = _find(tx, schedule_id, lock=lock)
    if found is None:
        raise NotFound(f"There is no schedule {schedule_id}.")
    return found


def _find(tx: Connection, schedule_id: int, *, lock: bool = False) -> Any:
    return db.row(
        tx,
        "SELECT id, name, dataset_id, task, settings::text AS settings, over, cron, zone, enabled, problem, next_at, "  # noqa: S608 - no words of others
        "run_id, outcome, outcome_at, token, owner, created_at, "
        "CAST(extract(epoch FROM next_at - now()) AS float) AS early "
        f"FROM schedules WHERE id = :id{' FOR UPDATE' if lock else ''}",
        id=schedule_id,
    )


def _stored(settings: BaseModel) -> str:
    return jsontext.dumps(settings.model_dump(mode="json")).decode()


def _next(tx: Connection, cron: str, zone: str) -> datetime:
    return times(cron, zone, db.scalar(tx, "SELECT now()"), 1)[0]


def _wake(tx: Connection, schedule_id: int) -> float:
    """Make the step due at the schedule's next time; in how many seconds that is."""
    early = max(0.0, float(find(tx, schedule_id).early))
    due(tx, StepName.REPEAT, schedule_id, after=early)
    return early


class _Task(NamedTuple):
    """What a schedule's run is made with."""

    task: Task[Any]
    settings: BaseModel
    plugin_version_id: int | None


# -- the step ----------------------------------------------------------------------------------------------------


def repeat(desk: Desk, lease: Lease) -> float | None:
    """Make the run of a schedule whose time has come, or say why not; the seconds until its next time."""
    with db.transaction() as tx:
        seen = _find(tx, lease.target_id)
    if seen is None or not seen.enabled:
        return None
    if seen.early > 0:
        return float(seen.early)
    # A task's own checks of its settings may take a while, so they are not made within the transaction.
    wanted = _readable(desk, seen)
    with db.transaction() as tx:
        lease.hold(tx)
        return _repeat(tx, seen, wanted)


def _readable(desk: Desk, schedule: Any) -> _Task | str:
    """The task with its settings, and the version that brings it; or why they cannot be had."""
    registry = desk.registry
    try:
        task = registry.task(schedule.task)
        settings = registry.parse_settings(task, jsontext.loads(schedule.settings))
        return _Task(task, settings, registry.version_of(task))
    except (NotFound, InputError, PluginError) as error:
        return str(error)


def _repeat(tx: Connection, seen: Any, wanted: _Task | str) -> float | None:
    now = _find(tx, seen.id, lock=True)
    if now is None or not now.enabled:
        return None
    if now.next_at != seen.next_at or now.settings != seen.settings:
        return max(0.0, float(now.early))  # changed meanwhile: looked at anew
    if isinstance(wanted, str):
        db.run(tx, "UPDATE schedules SET enabled = false, problem = :words WHERE id = :id", id=now.id, words=wanted)
        _tell(tx, now.id, f"Stopped: {wanted}")
        return None
    former = _under_way(tx, now)
    if former is not None:
        _tell(tx, now.id, f"Skipped: run {former}, made the last time, is still under way.")
    else:
        _make(tx, now, wanted)
    db.run(tx, "UPDATE schedules SET next_at = :next WHERE id = :id", id=now.id, next=_next(tx, now.cron, now.zone))
    return max(0.0, float(find(tx, now.id).early))


def _under_way(tx: Connection, schedule: Any) -> int | None:
    """The latest run of a schedule, if it is not over."""
    found: int | None = db.scalar(
        tx,
        "SELECT id FROM runs WHERE id = :id AND NOT state = ANY(:over)",
        id=schedule.run_id,
        over=[RunState.FINISHED.value, RunState.CANCELLED.value],
    )
    return found


def _make(tx: Connection, schedule: Any, wanted: _Task) -> None:
    """Start the run of this time, unless there is nothing to run over."""
    try:
        with tx.begin_nested():
            run_id = verbs.start_run(
                tx,
                dataset_id=schedule.dataset_id,
                task=wanted.task,
                settings=wanted.settings,
                plugin_version_id=wanted.plugin_version_id,
                owner=schedule.owner,
                token=_token(schedule),
                over=Over(schedule.over),
                schedule_id=schedule.id,
                destination_ids=[one.id for one in destinations.of_schedule(tx, schedule.id)],
            )
    except Refused:
        _tell(tx, schedule.id, "Skipped: nothing is new or changed." if schedule.over == Over.STALE else
              "Skipped: the dataset holds no record.")  # fmt: skip
        return
    count = db.scalar(tx, "SELECT subjects FROM runs WHERE id = :id", id=run_id)
    db.run(tx, "UPDATE schedules SET run_id = :run WHERE id = :id", id=schedule.id, run=run_id)
    _tell(tx, schedule.id, f"Run {run_id} was made over {count:,} subjects.", run_id=run_id)


def _token(schedule: Any) -> str:
    """The token of the run of one planned time: the same however often it is made."""
    digest = hashlib.sha256(f"{schedule.token} {schedule.next_at.isoformat()}".encode("ascii")).digest()
    return base64.b32encode(digest[:TOKEN_BYTES]).decode().lower()


def _tell(tx: Connection, schedule_id: int, words: str, *, run_id: int | None = None) -> None:
    db.run(
        tx,
        "UPDATE schedules SET outcome = :words, outcome_at = now() WHERE id = :id",
        id=schedule_id,
        words=words,
    )
    note(tx, run_id=run_id, schedule_id=schedule_id, actor=ACTOR, reason=words)
