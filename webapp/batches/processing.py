"""The step `process`: stored results become outputs, in chunks, through the task's processor.
Runs in a worker, without the API; a first pass, a later one and a mended plugin are the same code.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection

from webapp import db
from webapp.batches import leaving
from webapp.batches.completion import finish_if_over
from webapp.batches.desk import Desk
from webapp.batches.planning import subject_payload
from webapp.batches.states import OutputState, RunState, move_run, settle_outputs
from webapp.batches.steps import Lease
from webapp.errors import InputError, InvalidOutput, NotFound
from webapp.hooks import Message, Task, calls
from webapp.records import jsontext
from webapp.records.escapes import storable

CHUNK_ROWS = 500
CHUNK_BYTES = 8_000_000
TURN_SECONDS = 20.0  # after so long the worker takes other work first, and comes back
DEATHS = 2  # a chunk that killed its worker so often is processed one by one; a record alone, so often, is at fault

OUTPUT_COLUMNS = ("request_id", "state", "value", "reason", "task_version")


@dataclass(frozen=True, slots=True)
class Processor:
    """A run's task with its frozen settings, ready to be asked about one result after the other."""

    task: Task[Any]
    settings: BaseModel
    text_field: str

    def output(self, row: Any) -> tuple[OutputState, str | None, str | None]:
        """(state, JSON text of the value, why it is no use) for one stored result."""
        try:
            message = Message(jsontext.loads(row.line)["result"]["message"])
            value = calls.process(self.task, subject_payload(row, self.text_field), message, self.settings)
            return OutputState.OK, jsontext.dumps(value).decode(), None
        except (InvalidOutput, RecursionError) as error:
            return OutputState.INVALID, None, storable(str(error))


def process(desk: Desk, lease: Lease) -> float | None:
    """Process what a batch's results still wait for. 0.0 when there is more to do, else None."""
    with db.transaction() as tx:
        run = db.row(
            tx,
            "SELECT r.id, r.task, r.settings::text AS settings, d.text_field FROM batches b "
            "JOIN runs r ON r.id = b.run_id JOIN datasets d ON d.id = r.dataset_id WHERE b.id = :id",
            id=lease.target_id,
        )
    try:
        task = desk.registry.task(run.task)
        settings = desk.registry.parse_settings(task, jsontext.loads(run.settings))
    except (NotFound, InputError) as error:
        _no_task(lease, run.id, str(error))
        return None
    processor = Processor(task, settings, run.text_field)
    if lease.culprit is not None and lease.starts > DEATHS:
        _blame(lease, lease.culprit, task.version)
    more = _turn(lease, processor)
    with db.transaction() as tx:
        lease.hold(tx)
        if not more:
            finish_if_over(tx, run.id)
    return 0.0 if more else None


def _turn(lease: Lease, processor: Processor) -> bool:
    """Chunks until there are none, or the worker's turn is over (True: there may be more)."""
    one_by_one = lease.culprit is not None or lease.starts > DEATHS
    end = time.monotonic() + TURN_SECONDS
    after = 0
    while time.monotonic() < end:
        with db.transaction(by_key=True) as tx:
            chunk = _next(tx, lease.target_id, after, 1 if one_by_one else CHUNK_ROWS)
            if chunk and one_by_one:
                _suspect(tx, lease, chunk[0].request_id)
        if not chunk:
            return False
        after = _process_chunk(lease, processor, chunk, end)
        leaving.look()
    return True


def _process_chunk(lease: Lease, processor: Processor, chunk: Sequence[Any], end: float) -> int:
    """Process and commit rows until the chunk or the turn ends; the id of the last request done."""
    outputs: list[tuple[Any, OutputState, str | None, str | None]] = []
    for row in chunk:
        outputs.append((row, *processor.output(row)))
        if time.monotonic() >= end or leaving.asked():
            break
    with db.transaction(by_key=True) as tx:
        lease.progress(tx)
        _write(tx, lease.target_id, outputs, processor.task.version)
    return int(outputs[-1][0].request_id)


def _write(
    tx: Connection, batch_id: int, outputs: Sequence[tuple[Any, OutputState, str | None, str | None]], version: str
) -> None:
    """Store outputs: (row with request_id, item_id and attempt; state; value as JSON text; why it is no use)."""
    db.copy_rows(
        tx,
        "outputs",
        OUTPUT_COLUMNS,
        ((row.request_id, state.value, value, reason, version) for row, state, value, reason in outputs),
    )
    settle_outputs(tx, batch_id, [(row.item_id, row.attempt, state, reason) for row, state, _, reason in outputs])


def _next(tx: Connection, batch_id: int, after: int, limit: int) -> Sequence[Any]:
    """Succeeded results of a batch without an output, bounded by count and bytes, with their subjects."""
    return db.rows(
        tx,
        """
        WITH waiting AS (
            SELECT r.id, r.item_id, r.attempt, row_number() OVER w AS nth, sum(res.size) OVER w - res.size AS before
            FROM (SELECT r.id, r.item_id, r.attempt FROM requests r WHERE r.batch_id = :batch AND r.id > :after
                  AND r.state = 'succeeded' AND NOT EXISTS (SELECT 1 FROM outputs o WHERE o.request_id = r.id)
                  ORDER BY r.id LIMIT :limit) AS r
            JOIN results res ON res.request_id = r.id WINDOW w AS (ORDER BY r.id)
        )
        SELECT w.id AS request_id, w.item_id, w.attempt, res.line::text AS line, s.kind, s.key, s.data::text AS data,
               encode(s.image, 'hex') AS image, b.media_type, b.width, b.height, b.size
        FROM waiting w JOIN results res ON res.request_id = w.id JOIN items i ON i.id = w.item_id
        JOIN subjects s ON s.id = i.subject_id LEFT JOIN blobs b ON b.sha256 = s.image
        WHERE w.nth = 1 OR w.before < :bytes ORDER BY w.id
        """,
        batch=batch_id,
        after=after,
        limit=limit,
        bytes=CHUNK_BYTES,
    )


def _suspect(tx: Connection, lease: Lease, request_id: int) -> None:
    """Note what is about to be processed alone: if the worker dies now, and again, this was it.

    From here on `starts` counts the deaths of this one: a worker may be killed from outside once.
    """
    lease.hold(tx)
    db.run(
        tx,
        "UPDATE steps SET culprit = :request, starts = CASE WHEN culprit = :request THEN starts ELSE 1 END "
        "WHERE step = :step AND target_id = :target",
        request=request_id,
        step=lease.step,
        target=lease.target_id,
    )


def _blame(lease: Lease, request_id: int, version: str) -> None:
    reason = (
        "Its processing killed the worker each time it was tried, the last two times alone. Mend the task's processor."
    )
    with db.transaction() as tx:
        lease.hold(tx)
        culprit = db.row(
            tx,
            "SELECT r.id AS request_id, r.item_id, r.attempt FROM requests r WHERE r.id = :id "
            "AND NOT EXISTS (SELECT 1 FROM outputs o WHERE o.request_id = r.id)",
            id=request_id,
        )
        if culprit is not None:
            _write(tx, lease.target_id, [(culprit, OutputState.INVALID, None, reason)], version)


def _no_task(lease: Lease, run_id: int, error: str) -> None:
    """Results wait until the task is there again; resuming the run makes them due."""
    with db.transaction() as tx:
        lease.hold(tx)
        db.run(tx, "UPDATE runs SET pause_wanted_at = coalesce(pause_wanted_at, now()) WHERE id = :id", id=run_id)
        finish_if_over(tx, run_id, processable=False)
        move_run(tx, run_id, RunState.PAUSED, actor="process", reason=f"Its results cannot be processed: {error}")
