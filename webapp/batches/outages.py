"""What the steps have found to be down: the API, or room on the database's disk. One row for each, there for good:
where there is no room left, a row can still be changed in its place, but not be added.
The workers note it after a step; health, doctor and the home page tell it, without asking anybody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Integer
from sqlalchemy.orm import Mapped, mapped_column

from webapp import db
from webapp.batches.models import moment
from webapp.batches.steps import StepName
from webapp.db import Base
from webapp.errors import BatchdeskError
from webapp.gateway import Heard
from webapp.records.escapes import storable

# One call in a thousand fails: twice in a row, whoever made them, is worth telling.
TOLD_AFTER = 2
# Steps that fail come back after five minutes at most; what nobody has met for longer is not known to go on.
FRESH = "10 minutes"
# The others write so little that they may get through while there is no room.
WRITERS = (StepName.PLAN, StepName.INGEST, StepName.PROCESS, StepName.RESUBMIT)


class Outage(Base):
    """A part: what was met last, since when, and how often in a row; it is down when that is not 0."""

    __tablename__ = "outages"

    part: Mapped[str] = mapped_column(primary_key=True)
    words: Mapped[str] = mapped_column(server_default="")
    since: Mapped[datetime] = moment(now=True)
    seen_at: Mapped[datetime] = moment(now=True)
    times: Mapped[int] = mapped_column(Integer, server_default="0")


class Part(StrEnum):
    API = "API"  # its calls end without an answer
    DISK = "disk"  # the database has no room to write


def note(tx: Connection, step: StepName, heard: Heard, error: Exception | None = None) -> None:
    """Note what a step has met, at its end.

    :param heard: what the API said to it last.
    :param error: why the step failed, if it did.
    """
    if heard.trouble is not None:
        _down(tx, Part.API, heard.trouble)
    elif heard.answered:
        _up(tx, Part.API)
    if error is not None and db.disk_full(error):
        _down(tx, Part.DISK, error)
    elif error is None and step in WRITERS:
        _up(tx, Part.DISK)


def told(tx: Connection) -> Sequence[Any]:
    """What is down, longest first: part, words, since, seen_at, times (in a row)."""
    return db.rows(
        tx,
        "SELECT part, words, since, seen_at, times FROM outages "  # noqa: S608 - a constant
        f"WHERE seen_at > now() - interval '{FRESH}' AND times >= CASE part WHEN 'API' THEN :many ELSE 1 END "
        "ORDER BY since",
        many=TOLD_AFTER,
    )


def _down(tx: Connection, part: Part, error: Exception) -> None:
    words = str(error) if isinstance(error, BatchdeskError) else str(getattr(error, "orig", error)).splitlines()[0]
    db.run(
        tx,
        "UPDATE outages SET words = :words, times = times + 1, seen_at = now(), "
        "since = CASE times WHEN 0 THEN now() ELSE since END WHERE part = :part",
        part=part.value,
        words=storable(words),
    )


def _up(tx: Connection, part: Part) -> None:
    db.run(tx, "UPDATE outages SET times = 0 WHERE part = :part AND times > 0", part=part.value)
