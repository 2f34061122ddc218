"""Whether the installation works: `/healthz` and `/readyz` for machines, `faults` for the home page.
Read from our own rows and one word with the queue; the API is never called from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, jsonify
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from webapp import db, jobs
from webapp.batches import outages
from webapp.batches.outages import Part
from webapp.batches.queries import SEEN_WITHIN, Work, processes_up, work

OUTAGES = {
    Part.API: "The API does not answer; what is at work there goes on, and we ask again by ourselves. It said last:",
    Part.DISK: "The database's disk is full: make room, and work goes on by itself. It said last:",
}

blueprint = Blueprint("health", __name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """A part that is down: its name for machines, and a sentence for people."""

    part: str
    words: str


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process is up."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 while the database answers, with the parts that are down; 503 otherwise."""
    try:
        with db.transaction() as tx:
            found = faults(tx)
    except SQLAlchemyError as error:
        jobs.database_away.away(db.trouble(error) or str(error))
        return jsonify(error="The database does not answer."), 503
    jobs.database_away.back()
    return jsonify(degraded=[fault.part for fault in found]), 200


def faults(tx: Connection) -> list[Fault]:
    """What is down, apart from the database."""
    found = []
    queue = jobs.queue_trouble()
    if queue is not None:
        words = f"The queue (Redis or Valkey) takes nothing: work waits until it does. It said last: {queue}"
        found.append(Fault("queue", words))
    up = processes_up(tx)
    if not up["worker"]:
        found.append(Fault("workers", "No worker has been seen for a minute: nothing is sent or stored."))
    if not up["clock"]:
        found.append(Fault("clock", "No clock has been seen for a minute: nothing is polled."))
    found += [Fault(down.part, f"{OUTAGES[Part(down.part)]} {down.words}") for down in outages.told(tx)]
    return found


@dataclass(frozen=True, slots=True)
class Health:
    """What the home page tells of the installation, from heartbeats and the steps' own rows."""

    faults: list[Fault]
    work: Work
    processes: Sequence[Any]  # role, count, and when the youngest of them was seen and the oldest started
    api_heard_at: datetime | None  # the latest look at a batch that is at the API

    def down(self, part: str) -> bool:
        return any(fault.part == part for fault in self.faults)


def health(tx: Connection) -> Health:
    """How the parts do."""
    processes = db.rows(
        tx,
        "SELECT role, count(*) AS count, max(seen_at) AS seen_at, min(started_at) AS started_at FROM processes "
        "WHERE seen_at > now() - make_interval(secs => :within) GROUP BY role ORDER BY role DESC",
        within=SEEN_WITHIN,
    )
    heard = db.scalar(tx, "SELECT max(polled_at) FROM batches WHERE state NOT IN ('done', 'failed', 'discarded')")
    return Health(faults(tx), work(tx), processes, heard)
