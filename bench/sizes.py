"""`python -m bench.sizes`: what a request takes in the database beside the bytes of its payloads, what is left once
they are dropped, and whether the room they had is used again. Prints figures as JSON lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from flask import current_app

from bench.house import House, opened
from bench.report import Figure
from bench.road import Road
from webapp import db, jobs
from webapp.batches.steps import StepName
from webapp.runs import retention

# Records are the dataset's, and were there before.
TABLES = ("items", "item_params", "requests", "results", "outputs", "ledger_lines")


def main(arguments: list[str] | None = None) -> None:
    """Send requests all the way, drop their payloads, and send as many again."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizes", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    given = parser.parse_args(arguments)
    settings = {"BATCHDESK_KEEP_PAYLOADS": "1", "BATCHDESK_BATCH_MAX_REQUESTS": str(given.requests)}
    with opened(**settings) as house:
        for figure in _figures(house, given.requests):
            print(figure.line(), flush=True)


def _figures(house: House, count: int) -> Iterator[Figure]:
    _send(house, count)
    with db.transaction() as tx:
        payload = db.scalar(tx, "SELECT sum(octet_length(own::text)) FROM item_params")
        payload += db.scalar(tx, "SELECT sum(size) FROM results")
    full = _size()
    yield Figure("stored", full / count, "bytes/request", float(payload) / count)
    for table in TABLES:
        yield Figure(f"stored in {table}", _size(table) / count, "bytes/request")
    _drop()
    yield Figure("stored once payloads are dropped", _size() / count, "bytes/request", full / count)
    _send(house, count)
    yield Figure("stored once as many were sent again", _size() / count, "bytes/request", 2 * full / count)


def _send(house: House, count: int) -> None:
    road = Road(house, count, 2_500)
    for step in (StepName.PLAN, StepName.SUBMIT):
        road.perform(step)
    road.end(1_000)
    for step in (StepName.INGEST, StepName.PROCESS):
        road.perform(step)


def _drop() -> None:
    with db.transaction() as tx:
        db.run(tx, "UPDATE runs SET state_since = now() - interval '2 days'")
        db.run(tx, "DELETE FROM steps")
    retention.wake(current_app.extensions["batchdesk"].settings)
    while _is_due():
        jobs.perform(StepName.DROP, retention.TARGET)


def _is_due() -> bool:
    with db.transaction() as tx:
        return bool(db.scalar(tx, "SELECT count(*) FROM steps WHERE step = 'drop'"))


def _size(*tables: str) -> float:
    """Bytes of tables with their indexes."""
    with db.transaction() as tx:
        return float(
            db.scalar(
                tx,
                "SELECT sum(pg_total_relation_size(CAST(one AS regclass))) FROM unnest(CAST(:names AS text[])) AS one",
                names=list(tables or TABLES),
            )
        )


if __name__ == "__main__":
    main()
