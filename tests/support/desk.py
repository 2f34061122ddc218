"""Runs through the road in the test's own process: real database, real queue, real SDK over HTTP, no workers.

`DeskDriver` performs what is due, step by step, with the same function that the workers' jobs call.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Flask
from support.sandbox import API_KEY

from webapp import PLUGINS, db, jobs
from webapp.batches import queries
from webapp.batches.desk import Desk
from webapp.datasets.importing import import_records
from webapp.hooks import load_plugins
from webapp.local import Services
from webapp.records.exporting import OutputRow
from webapp.records.jsontext import dumps
from webapp.records.reading import Problem, read_records
from webapp.records.record import Record
from webapp.runs import verbs
from webapp.runs.verbs import PLAIN, Manner
from webapp.settings import Settings, load

PATIENCE = 100.0  # seconds; machines that run tests are slow and busy


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

    @property
    def desk(self) -> Desk:
        """What the steps work with."""
        found: Desk = self.app.extensions["batchdesk"]
        return found

    def change(self, **settings: Any) -> None:
        """Other values for some settings, by the fields' names, checked as at a start."""
        self.desk.settings = Settings.model_validate({**dict(self.desk.settings), **settings})

    def use_plugin(self, folder: Path, source: str) -> None:
        """Load one plugin of the test's own, from its source, in place of the shipped ones."""
        folder.mkdir(exist_ok=True)
        (folder / "testing.py").write_text(source)
        registry = load_plugins(folder=folder, entry_points=False)
        assert not registry.problems, registry.problems
        self.desk.registry = registry

    def add_plugin(self, folder: Path, source: str) -> None:
        """Load one plugin of the test's own beside the shipped ones."""
        shutil.copytree(PLUGINS, folder)
        (folder / "testing.py").write_text(source)
        registry = load_plugins(folder=folder, entry_points=False)
        assert not registry.problems, registry.problems
        self.desk.registry = registry

    def start(
        self, records: Iterable[dict[str, Any]], task: str = "classify", manner: Manner = PLAIN, **settings: str
    ) -> int:
        """Import records as documents and start a run over them; its id."""
        raw = settings or ({"labels": "alpha,beta"} if task == "classify" else {})
        made = (Record(position, one["key"], "document", dumps(one), None) for position, one in enumerate(records))
        return self._start(made, task, raw, manner)

    def start_folder(self, folder: Path, task: str, **settings: str) -> int:
        """Import a folder of files and start a run over them; its id."""
        found = list(read_records(folder))
        assert not [one for one in found if isinstance(one, Problem)]
        return self._start((one for one in found if isinstance(one, Record)), task, settings)

    def start_records(self, records: Iterable[Record], task: str, **settings: str) -> int:
        """Import records of any kind and start a run over them; its id."""
        return self._start(records, task, settings)

    def _start(self, records: Iterable[Record], task: str, raw: dict[str, str], manner: Manner = PLAIN) -> int:
        registry = self.desk.registry
        chosen = registry.task(task)
        parsed = registry.parse_settings(chosen, raw)
        with db.transaction() as tx:
            dataset, _ = import_records(
                tx, records, name="docs", source=Path("docs.jsonl"), text_field="text", owner="tester"
            )
            return verbs.start_run(tx, dataset_id=dataset, task=chosen, settings=parsed, owner="tester", manner=manner)

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

    def perform(self, step: str, target_id: int) -> None:
        """Perform one step of one row, if it is due."""
        jobs.perform(step, target_id)

    def perform_until(self, batch_state: str, *, times: int = 200) -> int:
        """Perform what is due, hurried, until a batch is in that state; the batch's id."""
        for _ in range(times):
            found: int | None = self.scalar("SELECT min(id) FROM batches WHERE state = :state", state=batch_state)
            if found is not None:
                return found
            self.hurry()
            self.perform_due()
        raise AssertionError(f"no batch gets {batch_state}: {self.rows('SELECT id, state, reason FROM batches')}")

    def hurry(self) -> None:
        """Let all the time pass that steps and accounts still wait for."""
        with db.transaction() as tx:
            db.run(tx, "UPDATE steps SET due_at = now() WHERE due_at > now()")
            db.run(tx, "UPDATE accounts SET throttled_until = now() WHERE throttled_until > now()")

    def lapse(self) -> None:
        """Let every lease lapse, as when its worker was killed a while ago."""
        with db.transaction() as tx:
            db.run(tx, "UPDATE steps SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")

    def work_until_over(self, run_id: int, *, hurry: bool = False) -> queries.RunStatus:
        """Perform what is due until the run is over or waits for a person.

        :param hurry: let the waits of steps pass at once.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            done = self.perform_due()
            status = self.status(run_id)
            if status.over or status.state == "paused" or status.held:
                return status
            broken = self.rows("SELECT step, target_id, error FROM steps WHERE failures > 2")
            if broken or time.monotonic() > deadline:
                raise AssertionError(f"run {run_id} does not end: {broken or status}")
            if hurry:
                self.hurry()
            elif not done:
                time.sleep(0.02)

    def run(self, records: Iterable[dict[str, Any]], task: str = "classify", **settings: str) -> int:
        """Start a run and see it to its end; its id."""
        run_id = self.start(records, task, **settings)
        self.work_until_over(run_id)
        return run_id

    def batch(self, batch_id: int) -> Any:
        """A batch's row."""
        (found,) = self.rows("SELECT * FROM batches WHERE id = :id", id=batch_id)
        return found

    def states(self) -> list[str]:
        """The states of all batches, by id."""
        return [state for (state,) in self.rows("SELECT state FROM batches ORDER BY id")]

    def bill(self, cost: str | None, *, run_id: int | None = None) -> None:
        """Let each answer have cost so much (None: unpriced), or each of one run: in the ledger and in its tallies."""
        mine = "WHERE CAST(:run AS bigint) IS NULL OR run_id = :run"
        self.execute(f"UPDATE ledger_lines SET cost_usd = CAST(:cost AS numeric) {mine}", cost=cost, run=run_id)
        self.execute(
            "UPDATE ledger_tallies SET cost_usd = coalesce(lines * CAST(:cost AS numeric), 0), "
            f"unpriced = CASE WHEN CAST(:cost AS numeric) IS NULL THEN lines ELSE 0 END {mine}",
            cost=cost,
            run=run_id,
        )

    def execute(self, statement: str, **parameters: Any) -> int:
        """One statement in a transaction of its own; the count of rows it touched."""
        with db.transaction() as tx:
            return db.run(tx, statement, **parameters)

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
