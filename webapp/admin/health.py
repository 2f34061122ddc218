"""Whether the installation works: `/healthz` and `/readyz` for machines, `faults` for the home page.
Read from our own rows and one word with the queue; the API is never called from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, Response, jsonify
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from webapp import db, jobs
from webapp.batches import outages
from webapp.batches.outages import Part
from webapp.batches.queries import processes_up

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
