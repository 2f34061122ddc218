"""`python -m bench.clock`: what a tick costs with 10,000 batches in flight and 100 workers, and how many calls of the
API their polls take in an hour. Prints figures as JSON lines; the database is a house's own, no worker is started.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from bench.house import opened
from bench.report import Figure
from webapp import db, jobs
from webapp.gateway import PAGE, ApiBatch, Gateway, Page

TICK_LIMIT = 50.0  # ms
EVERY = 300  # seconds between polls of batches that are half an hour old

IN_FLIGHT = (
    "INSERT INTO accounts (fingerprint, base_url, sandbox, looked_at) "
    "VALUES ('f', 'https://api.example', false, now())",
    "INSERT INTO datasets (name, source, text_field, created_by) VALUES ('d', 'd.jsonl', 'text', 'bench')",
    "INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner, state, planned_at) "
    "VALUES (1, 'classify', '1', '{}', 't', 1, 'bench', 'running', now())",
    "INSERT INTO batches (run_id, account_id, ordinal, total, body_bytes, state, state_since, api_id, api_created_at) "
    "SELECT 1, 1, n, 100, 1000, 'in_progress', now() - interval '1 hour', 'msgbatch_' || n, now() - interval '1 hour' "
    "FROM generate_series(1, :batches) n",
    "INSERT INTO steps (step, target_id, due_at) SELECT 'poll', id, now() + make_interval(secs => :every * random()) "
    "FROM batches",
    "INSERT INTO processes (name, role, seen_at) SELECT 'worker ' || n, 'worker', now() + interval '1 day' "
    "FROM generate_series(1, 100) n",
    "ANALYZE",
)


def main(arguments: list[str] | None = None) -> None:
    """Measure ticks, then an hour of polls."""
    parser = argparse.ArgumentParser(prog="python -m bench.clock", description=__doc__)
    parser.add_argument("--batches", type=int, default=10_000, help="batches in flight")
    parser.add_argument("--ticks", type=int, default=20, help="ticks of which the median counts")
    given = parser.parse_args(arguments)
    with opened(BATCHDESK_POLL_SCHEDULE=f"*:{EVERY}"):
        with db.transaction() as tx:
            for statement in IN_FLIGHT:
                db.run(tx, statement, **({"batches": given.batches} if ":batches" in statement else {}),
                       **({"every": EVERY} if ":every" in statement else {}))  # fmt: skip
        print(Figure("tick, nothing due", _tick(given.ticks), "ms", TICK_LIMIT).line(), flush=True)
        _due()
        print(Figure("tick, a tenth due", _tick(given.ticks, fresh=True), "ms", TICK_LIMIT).line(), flush=True)
        print(Figure("most jobs queued", float(_queued()), "jobs", float(jobs.MOST_QUEUED)).line(), flush=True)
        calls = _hour(given.batches)
        # docs/operating.md: B / 1,000 calls a round, rounded up, at most 2 rounds in the time between two polls.
        most = 2 * 3600 / EVERY * -(-given.batches // PAGE)
        print(Figure("API calls of polls in an hour", calls, "calls", most).line(), flush=True)


def _due() -> None:
    with db.transaction() as tx:
        db.run(tx, "UPDATE steps SET due_at = now() WHERE target_id % 10 = 0")


def _tick(times: int, *, fresh: bool = False) -> float:
    """Milliseconds of a tick. `fresh`: what it has nudged is forgotten before the next, and the queue is emptied."""
    taken = []
    for _ in range(times):
        if fresh:
            jobs.queue().empty()
            with db.transaction() as tx:
                db.run(tx, "UPDATE steps SET nudged_at = NULL WHERE nudged_at IS NOT NULL")
        began = time.perf_counter()
        jobs.nudge()
        taken.append((time.perf_counter() - began) * 1000)
    return median(taken)


def _queued() -> int:
    while jobs.nudge():
        pass
    return int(jobs.queue().count)


def _hour(batches: int) -> float:
    """Calls of the API in an hour, in which time is made to pass a second at a time."""
    with db.transaction() as tx:
        db.run(tx, "UPDATE steps SET due_at = now() + make_interval(secs => :every * random())", every=EVERY)
        db.run(tx, "UPDATE steps SET nudged_at = NULL")
    calls = 0
    with _listing(batches) as heard:
        began, passed = time.monotonic(), 0
        while (
            passed + time.monotonic() - began < EVERY
        ):  # one interval tells for all; the time it takes has passed, too
            passed += 1
            with db.transaction() as tx:
                db.run(tx, "UPDATE steps SET due_at = due_at - interval '1 second'")
                ready = db.rows(tx, "SELECT target_id FROM steps WHERE due_at <= now() ORDER BY due_at")
            for (target,) in ready:
                jobs.perform("poll", target)
        calls = heard["calls"]
    jobs.queue().empty()
    with db.transaction() as tx:
        polls = db.scalar(tx, "SELECT count(*) FROM batches WHERE polled_at IS NOT NULL")
    assert polls == batches, f"{polls} of {batches} batches were polled"
    return calls * 3600 / EVERY


@contextmanager
def _listing(batches: int) -> Iterator[dict[str, int]]:
    """An API that lists all batches as in progress; its calls are counted."""
    heard = {"calls": 0}
    created = datetime.now(UTC) - timedelta(hours=1)

    def one(number: int) -> ApiBatch:
        return ApiBatch(f"msgbatch_{number}", "in_progress", {"processing": 100}, created, None,
                        created + timedelta(days=1), None, None)  # fmt: skip

    def pages(_: Gateway) -> Iterator[Page]:
        for start in range(1, batches + 1, PAGE):
            heard["calls"] += 1
            yield Page(tuple(one(n) for n in range(start, min(start + PAGE, batches + 1))), start + PAGE > batches)

    def retrieve(_: Gateway, api_id: str) -> ApiBatch:
        heard["calls"] += 1
        return one(int(api_id.rpartition("_")[2]))

    before: dict[str, Any] = {name: getattr(Gateway, name) for name in ("pages", "retrieve")}
    Gateway.pages, Gateway.retrieve = pages, retrieve  # type: ignore[method-assign, assignment]
    try:
        yield heard
    finally:
        for name, verb in before.items():
            setattr(Gateway, name, verb)


if __name__ == "__main__":
    main()
