"""Runs through the road in the test's own process: real database, real queue, real SDK over HTTP, no workers.

`DeskDriver` performs what is due, step by step, with the same function that the workers' jobs call.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
from flask import Flask
from support.sandbox import API_KEY

from webapp import db, jobs
from webapp.batches import queries, runs
from webapp.batches.exporting import OutputRow
from webapp.batches.importing import import_records
from webapp.batches.record import Record
from webapp.local import Services
from webapp.settings import Settings, load

PATIENCE = 60.0


def make_settings(database_url: str, services: Services, *, sandbox_url: str | None, **changes: str) -> Settings:
    """Settings of an installation over a test's database and sandbox; polls at once, retries at once."""
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": services.redis_url,
        "BATCHDESK_SECRET_KEY": "only for tests, and long enough",
        "BATCHDESK_POLL_SCHEDULE": "*:0.05",
        "BATCHDESK_RETRY_DELAY": "0",
        "BATCHDESK_MISSING_WAIT": "0",
        "BATCHDESK_UNKNOWN_GRACE": "0",
    }
    if sandbox_url is not None:
        environ |= {"ANTHROPIC_API_KEY": API_KEY, "ANTHROPIC_BASE_URL": sandbox_url}
    return load(environ | changes)


def documents(count: int, size: int = 60) -> list[dict[str, Any]]:
    """Records whose texts share words with the labels `alpha` and `beta`."""
    return [
        {"key": f"doc-{n}", "text": (f"Text {n} about {'alpha' if n % 2 else 'beta'}. " + "word " * size)[:size]}
        for n in range(count)
    ]


class DeskDriver:
    """One installation's verbs, for tests."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def start(self, records: Iterable[dict[str, Any]], task: str = "classify", **settings: str) -> int:
        """Import records as documents and start a run over them; its id."""
        registry = self.app.extensions["batchdesk"].registry
        chosen = registry.task(task)
        raw = settings or ({"labels": "alpha,beta"} if task == "classify" else {})
        parsed = registry.parse_settings(chosen, raw)
        made = (
            Record(position, one["key"], "document", orjson.dumps(one), None) for position, one in enumerate(records)
        )
        with db.transaction() as tx:
            dataset, _ = import_records(
                tx, made, name="docs", source=Path("docs.jsonl"), text_field="text", owner="tester"
            )
            return runs.start_run(tx, dataset_id=dataset, task=chosen, settings=parsed, owner="tester")

    def perform_due(self) -> int:
        """Perform every step that is due now, once; how many."""
        with db.transaction() as tx:
            ready = db.rows(
                tx,
                "SELECT step, target_id FROM steps WHERE (due_at <= now() OR lease_until IS NOT NULL) "
                "AND (lease_until IS NULL OR lease_until < now()) ORDER BY due_at, step, target_id",
            )
        for step, target_id in ready:
            jobs.perform(step, target_id)
        return len(ready)

    def work_until_over(self, run_id: int) -> queries.RunStatus:
        """Perform what is due until the run is over or waits for a person."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = self.perform_due()
            status = self.status(run_id)
            if status.over or status.state == "paused" or status.held:
                return status
            if time.monotonic() > deadline:
                raise AssertionError(f"run {run_id} does not end: {status}")
            if not done:
                time.sleep(0.02)

    def run(self, records: Iterable[dict[str, Any]], task: str = "classify", **settings: str) -> int:
        """Start a run and see it to its end; its id."""
        run_id = self.start(records, task, **settings)
        self.work_until_over(run_id)
        return run_id

    def status(self, run_id: int) -> queries.RunStatus:
        with db.transaction() as tx:
            return queries.run_status(tx, run_id)

    def summary(self, run_id: int) -> queries.Summary:
        with db.transaction() as tx:
            return queries.summary(tx, run_id)

    def outputs(self, run_id: int) -> list[OutputRow]:
        with db.transaction() as tx:
            return list(queries.outputs(tx, run_id))

    def rows(self, statement: str, **parameters: Any) -> list[Any]:
        with db.transaction() as tx:
            return list(db.rows(tx, statement, **parameters))

    def scalar(self, statement: str, **parameters: Any) -> Any:
        with db.transaction() as tx:
            return db.scalar(tx, statement, **parameters)
