"""Whether the installation works: `/healthz` and `/readyz` for machines, `faults` for the home page.
Read from our own rows and one PING; the API is never called from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, Response, current_app, jsonify
from redis.exceptions import RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from webapp import db

SEEN_WITHIN = 60  # seconds; heartbeats come every ten
# A step that broke once is tried again and mostly gets through; twice in a row is worth telling.
API_FAILURES = 2

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
    except SQLAlchemyError:
        return jsonify(error="The database does not answer."), 503
    return jsonify(degraded=[fault.part for fault in found]), 200


def faults(tx: Connection) -> list[Fault]:
    """What is down, apart from the database."""
    found = []
    if not _queue_answers():
        found.append(Fault("queue", "The queue (Redis or Valkey) does not answer: work waits until it is back."))
    seen = db.row(
        tx,
        """
        SELECT coalesce(bool_or(role = 'worker'), false) AS workers, coalesce(bool_or(role = 'clock'), false) AS clock
        FROM processes WHERE seen_at > now() - make_interval(secs => :within)
        """,
        within=SEEN_WITHIN,
    )
    if not seen.workers:
        found.append(Fault("workers", "No worker has been seen for a minute: nothing is sent or stored."))
    if not seen.clock:
        found.append(Fault("clock", "No clock has been seen for a minute: nothing is polled."))
    broken = db.row(
        tx,
        "SELECT step, error FROM steps WHERE step IN ('submit', 'poll', 'ingest') AND failures >= :many "
        "ORDER BY failures DESC LIMIT 1",
        many=API_FAILURES,
    )
    if broken is not None:
        found.append(Fault("API", f"Calls of the API fail (step {broken.step}): {broken.error}"))
    return found


def _queue_answers() -> bool:
    try:
        return bool(current_app.extensions["batchdesk.redis"].ping())
    except RedisError:
        return False
