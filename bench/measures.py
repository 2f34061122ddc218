"""The measures of speed: each step of a round timed, with its limit timed right after it on the same rows.
`__main__` calls `speed`; the steps themselves are the product's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from bench import limits, rivals
from bench.house import House
from bench.report import Figure, rate, times
from bench.road import Road
from webapp import db
from webapp.batches.states import BatchState
from webapp.batches.steps import StepName

FEWEST_ROUNDS = 3
RIVAL_LINES = 200  # which a rival does: it takes seconds for a thousand
LEAST = 20.0  # times a rival that a step must be
LONG_ENOUGH = 120.0  # seconds after which no further round begins: a slow machine is measured in fewer rounds


def speed(house: House, *, requests: int, rounds: int, record_bytes: int, line_bytes: int) -> list[Figure]:
    """Requests per second of planning, submission, ingestion and processing, medians of up to `rounds`.

    A first round, over fewer requests, is not counted: it loads code and fills caches.
    """
    _round(house, Road(house, max(1, requests // 10), record_bytes), line_bytes)
    taken: defaultdict[str, list[float]] = defaultdict(list)
    began = time.monotonic()
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and time.monotonic() - began > LONG_ENOUGH:
            break
        for name, seconds in _round(house, Road(house, requests, record_bytes), line_bytes).items():
            taken[name].append(seconds)
    return [
        rate("plan", requests, taken["plan"], taken["plan limit"]),
        rate("submit", requests, taken["submit"], taken["submit limit"]),
        rate("ingest", requests, taken["ingest"], taken["ingest limit"]),
        times("ingest over obvious", requests, taken["ingest"], RIVAL_LINES, taken["obvious"], LEAST),
        times("ingest over obvious, one commit", requests, taken["ingest"], RIVAL_LINES, taken["obvious once"]),
        rate("process", requests, taken["process"], taken["process limit"]),
    ]


def _round(house: House, road: Road, line_bytes: int) -> dict[str, float]:
    """Seconds of each step and each limit, over one dataset; leaves the tables empty."""
    taken: dict[str, float] = {}
    with house.connect() as connection:
        taken["plan"] = _seconds(lambda: road.perform(StepName.PLAN))
        road.expect(BatchState.PLANNED)
        taken["plan limit"] = limits.plan(connection)
        taken["submit limit"] = limits.submit(connection, road.batch_id(), house.sink_port)
        taken["submit"] = _seconds(lambda: road.perform(StepName.SUBMIT))
        road.expect(BatchState.IN_PROGRESS)
        lines = road.end(line_bytes)
        road.expect(BatchState.INGESTING)
        taken["ingest"] = _seconds(lambda: road.perform(StepName.INGEST))
        road.expect(BatchState.DONE)
        taken["ingest limit"] = limits.ingest(connection, lines)
        some = lines.splitlines()[:RIVAL_LINES]
        taken["obvious"] = rivals.ingest(db.db.engine, connection, some, each=True) * RIVAL_LINES / len(some)
        taken["obvious once"] = rivals.ingest(db.db.engine, connection, some, each=False) * RIVAL_LINES / len(some)
        taken["process"] = _seconds(lambda: road.perform(StepName.PROCESS))
        road.expect_outputs()
        taken["process limit"] = limits.process(connection)
    house.empty()
    return taken


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
