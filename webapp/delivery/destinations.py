"""Destinations: named, saved places where the outputs of runs go, and which run or schedule names which.
What people ask of them; `deliveries` and the step `deliver` read them. Secrets stand in their settings as `env:NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy import JSON, Connection, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.books import note
from webapp.batches.models import big_id, moment
from webapp.batches.steps import StepName, due
from webapp.db import Base
from webapp.errors import InputError, NotFound, Refused
from webapp.hooks import Sink
from webapp.records import jsontext

TARGET = "destination"  # what events name as their target
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAMING = "a letter or digit, then letters, digits, '.', '_' and '-', at most 64 in all"


class Destination(Base):
    """A place where outputs go: a sink, with settings. Its name stays as it is."""

    __tablename__ = "destinations"

    id: Mapped[int] = big_id()
    name: Mapped[str] = mapped_column(unique=True)
    sink: Mapped[str]
    settings: Mapped[Any] = mapped_column(JSON)
    enabled: Mapped[bool] = mapped_column(server_default="true")
    created_by: Mapped[str]
    created_at: Mapped[datetime] = moment(now=True)
    changed_by: Mapped[str]
    changed_at: Mapped[datetime] = moment(now=True)


class RunDestination(Base):
    """One place where the outputs of a run go."""

    __tablename__ = "run_destinations"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    destination_id: Mapped[int] = mapped_column(ForeignKey("destinations.id"), primary_key=True, index=True)


class ScheduleDestination(Base):
    """One place where the outputs of a schedule's runs go."""

    __tablename__ = "schedule_destinations"

    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedules.id"), primary_key=True)
    destination_id: Mapped[int] = mapped_column(ForeignKey("destinations.id"), primary_key=True, index=True)


def create(tx: Connection, name: str, sink: Sink[Any], settings: BaseModel, *, actor: str) -> int:
    """Save a destination, which is enabled; its id.

    :raises InputError: the name is taken, or is none.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"'{name}' cannot be the name of a destination: write {NAMING}.")
    made: int | None = db.scalar(
        tx,
        "INSERT INTO destinations (name, sink, settings, created_by, changed_by) "
        "VALUES (:name, :sink, CAST(:settings AS json), :actor, :actor) ON CONFLICT (name) DO NOTHING RETURNING id",
        name=name,
        sink=sink.name,
        settings=_stored(settings),
        actor=actor,
    )
    if made is None:
        raise InputError(f"There is a destination '{name}' already: choose another name, or change that one.")
    _note(tx, name, actor, f"Destination '{name}' made, with the sink {sink.name}.")
    return made


def edit(tx: Connection, destination_id: int, settings: BaseModel, *, actor: str) -> None:
    """Change the settings of a destination, for all that is delivered from now on."""
    found = find(tx, destination_id, lock=True)
    db.run(
        tx,
        "UPDATE destinations SET settings = CAST(:settings AS json), changed_by = :actor, changed_at = now() "
        "WHERE id = :id",
        id=destination_id,
        settings=_stored(settings),
        actor=actor,
    )
    _note(tx, found.name, actor, f"Destination '{found.name}' changed.")


def switch(tx: Connection, destination_id: int, *, on: bool, actor: str) -> None:
    """Enable a destination, or disable it: what is to be delivered there waits, and no new run may name it."""
    if on:
        # Before the destination is locked, as the step has it.
        for (delivery_id,) in db.rows(
            tx,
            "SELECT v.id FROM deliveries v JOIN destinations d ON d.name = v.name "
            "WHERE d.id = :id AND v.kind = 'sink' AND v.state = 'waiting' ORDER BY v.id",
            id=destination_id,
        ):
            due(tx, StepName.DELIVER, delivery_id)
    found = find(tx, destination_id, lock=True)
    if found.enabled == on:
        raise Refused(f"Destination '{found.name}' is {'enabled' if on else 'disabled'} already.")
    db.run(
        tx,
        "UPDATE destinations SET enabled = :on, changed_by = :actor, changed_at = now() WHERE id = :id",
        id=destination_id,
        on=on,
        actor=actor,
    )
    _note(tx, found.name, actor, f"Destination '{found.name}' {'enabled' if on else 'disabled'}.")


def delete(tx: Connection, destination_id: int, *, actor: str) -> None:
    """Take a destination away. What was delivered there stays there.

    :raises Refused: a run that is not over, or a schedule, names it.
    """
    found = find(tx, destination_id, lock=True)
    namers = namers_of(tx, destination_id)
    if namers:
        raise Refused(
            f"Destination '{found.name}' cannot be deleted: {', '.join(namers)} names it. Disable it instead."
        )
    db.run(tx, "DELETE FROM run_destinations WHERE destination_id = :id", id=destination_id)
    db.run(tx, "DELETE FROM destinations WHERE id = :id", id=destination_id)
    _note(tx, found.name, actor, f"Destination '{found.name}' deleted.")


def namers_of(tx: Connection, destination_id: int) -> list[str]:
    """What still needs a destination: some runs that are not over, and schedules, in words."""
    found = db.rows(
        tx,
        "(SELECT 'run ' || r.id FROM run_destinations n JOIN runs r ON r.id = n.run_id WHERE n.destination_id = :id "
        "AND r.state NOT IN ('finished', 'cancelled') ORDER BY r.id LIMIT 5) UNION ALL "
        "(SELECT 'schedule ' || schedule_id FROM schedule_destinations WHERE destination_id = :id "
        "ORDER BY schedule_id LIMIT 5)",
        id=destination_id,
    )
    return [words for (words,) in found]


def find(tx: Connection, destination_id: int, *, lock: bool = False) -> Any:
    """A destination's row.

    :raises NotFound: there is none.
    """
    found = db.row(
        tx,
        "SELECT id, name, sink, settings::text AS settings, enabled, created_by, created_at, changed_by, changed_at "  # noqa: S608 - no words of others
        f"FROM destinations WHERE id = :id{' FOR UPDATE' if lock else ''}",
        id=destination_id,
    )
    if found is None:
        raise NotFound(f"There is no destination {destination_id}.")
    return found


def named(tx: Connection, name: str) -> Any:
    """The destination of a name, or None."""
    return db.row(
        tx,
        "SELECT id, name, sink, settings::text AS settings, enabled FROM destinations WHERE name = :name",
        name=name,
    )


def all_of_them(tx: Connection, *, enabled: bool = False) -> Sequence[Any]:
    """Every destination, by name; only those that are enabled, if asked."""
    return db.rows(
        tx,
        "SELECT id, name, sink, settings::text AS settings, enabled, changed_by, changed_at FROM destinations "
        "WHERE enabled OR NOT :enabled ORDER BY name",
        enabled=enabled,
    )


def check(tx: Connection, names: Iterable[str], *, kept: Collection[str] = ()) -> list[int]:
    """The ids of destinations that a run may name.

    :param kept: those that are named already, and may be disabled by now.
    :raises InputError: one does not exist, or is disabled; the message names those there are.
    """
    wanted = dict.fromkeys(names)
    if not wanted:
        return []
    known = {one.name: one for one in all_of_them(tx)}
    for name in wanted:
        if name not in known:
            there = f"There are: {', '.join(known)}." if known else "None is saved yet."
            raise InputError(
                f"There is no destination '{name}'. {there} Save one with `batchdesk destinations add`, or on the "
                "dashboard's page Destinations."
            )
        if not known[name].enabled and name not in kept:
            raise InputError(f"Destination '{name}' is disabled: enable it first, or choose another.")
    return [known[name].id for name in wanted]


def name_for(tx: Connection, run_id: int, destination_ids: Iterable[int]) -> None:
    """Let the outputs of a run go there too."""
    _name(tx, "run", run_id, destination_ids)


def name_for_schedule(tx: Connection, schedule_id: int, destination_ids: Iterable[int]) -> None:
    """Let the outputs of a schedule's runs go there, and nowhere else."""
    db.run(tx, "DELETE FROM schedule_destinations WHERE schedule_id = :id", id=schedule_id)
    _name(tx, "schedule", schedule_id, destination_ids)


def _name(tx: Connection, whose: str, row_id: int, destination_ids: Iterable[int]) -> None:
    db.run(
        tx,
        f"INSERT INTO {whose}_destinations ({whose}_id, destination_id) "  # noqa: S608 - our own words
        "SELECT :row, d.id FROM destinations d WHERE d.id = ANY(CAST(:ids AS bigint[])) ON CONFLICT DO NOTHING",
        row=row_id,
        ids=db.array(destination_ids),
    )


def of_run(tx: Connection, run_id: int) -> Sequence[Any]:
    """Where the outputs of a run go, by name: id, name, enabled."""
    return _of(tx, "run", run_id)


def of_schedule(tx: Connection, schedule_id: int) -> Sequence[Any]:
    """Where the outputs of a schedule's runs go, by name: id, name, enabled."""
    return _of(tx, "schedule", schedule_id)


def _of(tx: Connection, whose: str, row_id: int) -> Sequence[Any]:
    return db.rows(
        tx,
        f"SELECT d.id, d.name, d.enabled FROM {whose}_destinations n JOIN destinations d ON d.id = n.destination_id "  # noqa: S608 - our own words
        f"WHERE n.{whose}_id = :row ORDER BY d.name",
        row=row_id,
    )


def _stored(settings: BaseModel) -> str:
    return jsontext.dumps(settings.model_dump(mode="json")).decode()


def _note(tx: Connection, name: str, actor: str, reason: str) -> None:
    note(tx, run_id=None, actor=actor, reason=reason, kind="wish", target=(TARGET, name))
