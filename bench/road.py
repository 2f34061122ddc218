"""One dataset's way through the product, a step at a time, so that each can be timed by itself.
The measures drive it; every step is the job that a worker performs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.data import LABELS, records, result_lines
from bench.house import House
from webapp import db, jobs
from webapp.batches.states import BatchState
from webapp.batches.steps import StepName, due
from webapp.datasets.importing import import_records
from webapp.records.reading import Problem
from webapp.records.record import Record
from webapp.runs import verbs


class Road:
    """A run over `count` new records of `size` bytes, which fit into one batch.

    :param source: where they come from; None: they are made up.
    """

    def __init__(self, house: House, count: int, size: int, source: Iterable[Record | Problem] | None = None) -> None:
        self._house = house
        self.count = count
        registry = house.app.extensions["batchdesk"].registry
        task = registry.task("classify")
        settings = registry.parse_settings(task, {"labels": ",".join(LABELS)})
        with db.transaction() as tx:
            dataset, _ = import_records(
                tx,
                source or records(count, size),
                name="bench",
                source=Path("bench.jsonl"),
                text_field="text",
                owner="bench",
            )
            self.run_id = verbs.start_run(tx, dataset_id=dataset, task=task, settings=settings, owner="bench")

    def batch_id(self) -> int:
        """The run's one batch, once it is planned."""
        with db.transaction() as tx:
            ((batch_id, total),) = db.rows(tx, "SELECT id, total FROM batches WHERE run_id = :id", id=self.run_id)
        assert total == self.count, f"{total} of {self.count} requests are in the batch"
        return int(batch_id)

    def perform(self, step: StepName) -> None:
        """Do a step as a worker's job does."""
        jobs.perform(step.value, self.run_id if step == StepName.PLAN else self.batch_id())

    def end(self, line_size: int) -> bytes:
        """Have the API end the batch: the lines of its results, which the sink is ready to stream."""
        batch_id = self.batch_id()
        with db.transaction() as tx:
            api_id = db.scalar(tx, "SELECT api_id FROM batches WHERE id = :id", id=batch_id)
            found = db.rows(tx, "SELECT custom_id FROM requests WHERE batch_id = :id ORDER BY id", id=batch_id)
            due(tx, StepName.POLL, batch_id)
        lines = b"".join(result_lines([custom_id for (custom_id,) in found], line_size))
        self._house.results_file(api_id).write_bytes(lines)
        self.perform(StepName.POLL)
        return lines

    def expect(self, state: BatchState) -> None:
        """Pass when the batch has got to a state.

        :raises AssertionError: it has not, so that what was timed is not the step.
        """
        with db.transaction() as tx:
            batch = db.row(tx, "SELECT state, reason FROM batches WHERE id = :id", id=self.batch_id())
            errors = db.rows(tx, "SELECT step, error FROM steps WHERE error IS NOT NULL")
        assert batch.state == state, f"the batch is {batch.state}, not {state}: {batch.reason or errors}"

    def expect_outputs(self) -> None:
        """Pass when every request has its output.

        :raises AssertionError: some have none, or one that is no use.
        """
        with db.transaction() as tx:
            found = db.scalar(tx, "SELECT count(*) FROM outputs WHERE state = 'ok'")
        assert found == self.count, f"{found} of {self.count} results became outputs"
