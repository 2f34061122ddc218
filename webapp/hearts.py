"""Heartbeats: the rows by which processes say that they live, and which set of plugins they have taken up.
Workers, the clock and web processes each have one heart.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.desk import Desk
from webapp.batches.models import moment
from webapp.db import Base
from webapp.installed import pluginset, versions
from webapp.jobs import database_away

log = logging.getLogger("batchdesk")

HEARTBEAT_SECONDS = 10.0
LOOK_SECONDS = 1.0  # between two looks at whether the set of plugins changed
FORGET_PROCESSES = "1 day"


class Process(Base):
    """A heartbeat: one row per worker, clock and web process, written by itself."""

    __tablename__ = "processes"

    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    started_at: Mapped[datetime] = moment(now=True)
    seen_at: Mapped[datetime] = moment(now=True)
    # Which generation of the set of plugins it has taken up, and what of it could not be loaded there.
    generation: Mapped[int | None]
    plugin_problems: Mapped[Any | None] = mapped_column(JSON)


class Heart:
    """Says every ten seconds that this process lives."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.name = f"{role} {socket.gethostname()} {os.getpid()}"
        self.generation: int | None = None
        self.problems: Sequence[Any] = ()
        self._last: float | None = None

    def beat(self) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last > HEARTBEAT_SECONDS:
            self._last = now
            beat(self.name, self.role, self.generation, self.problems)

    def took_up(self, generation: int, problems: Sequence[Any]) -> None:
        """Say at once that a set of plugins was taken up, and what of it could not be loaded."""
        self.generation, self.problems, self._last = generation, problems, None
        for problem in problems:
            log.warning("%s", problem["error"])
        self.beat()

    def stop(self) -> None:
        forget(self.name)


class PluginHeart(Heart):
    """Of a worker: sees beside it what loading a changed set of plugins comes to. Nothing is loaded in its process."""

    def __init__(self, role: str, desk: Desk) -> None:
        super().__init__(role)
        self._desk = desk
        self._looked: float | None = None

    def beat(self) -> None:
        super().beat()
        now = time.monotonic()
        if self._looked is None or now - self._looked > LOOK_SECONDS:
            self._looked = now
            self._look()

    def _look(self) -> None:
        try:
            with db.transaction() as tx:
                changed = versions.generation(tx) != self.generation
            if changed:
                seen = pluginset.look_over(self._desk.loader, self._desk.settings)
                with db.transaction() as tx:
                    pluginset.tidy(tx, self._desk.settings)
                self.took_up(seen.generation, seen.problems)
        except SQLAlchemyError as error:
            database_away.away(db.trouble(error) or str(error))
        except (OSError, RuntimeError) as error:  # no room for a process, or a fault of ours: told once it can be seen
            log.exception("The set of plugins could not be looked over; it is tried again.")
            self.problems = [{"plugin": "all", "source": "", "error": f"The plugins: {error}", "traceback": ""}]


def beat(name: str, role: str, generation: int | None = None, problems: Sequence[Any] = ()) -> None:
    """Write a heartbeat row."""
    try:
        with db.transaction() as tx:
            db.run(
                tx,
                "INSERT INTO processes (name, role, generation, plugin_problems) "
                "VALUES (:name, :role, :generation, CAST(:problems AS json)) ON CONFLICT (name) DO UPDATE SET "
                "seen_at = now(), generation = excluded.generation, plugin_problems = excluded.plugin_problems",
                name=name,
                role=role,
                generation=generation,
                problems=json.dumps(list(problems)) if problems else None,
            )
            db.run(tx, f"DELETE FROM processes WHERE seen_at < now() - interval '{FORGET_PROCESSES}'")  # noqa: S608
    except SQLAlchemyError as error:
        database_away.away(db.trouble(error) or str(error))
    else:
        database_away.back()


def forget(name: str) -> None:
    """Take a heartbeat row away, at an orderly end."""
    try:
        with db.transaction() as tx:
            db.run(tx, "DELETE FROM processes WHERE name = :name", name=name)
    except SQLAlchemyError:
        log.warning("The heartbeat of %s could not be taken away.", name)
