"""The step `process`: stored results become outputs, in chunks, through the task's processor.
Runs in a worker, without the API; a first pass, a later one and a mended plugin are the same code. The processor
itself runs in a process of its own, with bounds: see `webapp.batches.bounded`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Connection

from webapp import db
from webapp.batches import leaving, reprocessing
from webapp.batches.ahead import ahead
from webapp.batches.books import note
from webapp.batches.bounded import Broke, bounded
from webapp.batches.building import subject_payload
from webapp.batches.completion import finish_if_over
from webapp.batches.desk import Desk
from webapp.batches.outcomes import Outcome, settle_outputs
from webapp.batches.reprocessing import ASKED_AGAIN
from webapp.batches.states import OutputState, RunState, move_run
from webapp.batches.steps import Lease
from webapp.delivery import deliveries
from webapp.errors import InputError, InvalidOutput, NotFound
from webapp.hooks import Message, Task, calls
from webapp.records import jsontext
from webapp.records.escapes import storable

CHUNK_ROWS = 2000
CHUNK_BYTES = 8_000_000
MOST_OUTPUT = 4_000_000  # bytes: several times what the longest answer can be
TURN_SECONDS = 20.0  # after so long the worker takes other work first, and comes back

OUTPUT_COLUMNS = ("request_id", "state", "value", "reason", "task_version", "reprocessing_id")


class Made(NamedTuple):
    """What became of one stored result: a JSON text, or why it is no use."""

    row: Any
    state: OutputState
    value: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Processor:
    """A run's task with its frozen settings, ready to be asked about one result after the other.

    :param again: the latest wish to process again that this pass answers; None: there was none.
    """

    task: Task[Any]
    settings: BaseModel
    text_field: str
    again: int | None

    def made(self, row: Any, answer: Any) -> Made:
        """What `answer` in its process came to for a stored result."""
        if isinstance(answer, Broke):
            words = f"The processor of task '{self.task.name}', version {self.task.version}, {answer.words}"
            return Made(row, OutputState.INVALID, None, storable(f"{words}. Mend it, then process the answer again."))
        state, value, reason = answer
        return Made(row, OutputState(state), value, reason)

    def answer(self, row: Any) -> tuple[str, str | None, str | None]:
        """(state, JSON text of the value, why it is no use) for one stored result."""
        try:
            message = Message(jsontext.loads(row.line)["result"]["message"])
            value = calls.process(self.task, subject_payload(row, self.text_field), message, self.settings)
            text = jsontext.dumps(value)
            if len(text) > MOST_OUTPUT:
                raise InvalidOutput(
                    f"The processor of task '{self.task.name}', version {self.task.version}, made an output of "
                    f"{len(text):,} bytes; at most {MOST_OUTPUT:,} are kept. Mend it, then process the answer again."
                )
            return OutputState.OK.value, text.decode(), None
        except (InvalidOutput, RecursionError) as error:
            return OutputState.INVALID.value, None, storable(str(error))


def process(desk: Desk, lease: Lease) -> float | None:
    """Process what a batch's results still wait for. 0.0 when there is more to do, else None."""
    with db.transaction() as tx:
        run = db.row(
            tx,
            "SELECT r.id, r.task, r.settings::text AS settings, r.plugin_version_id, d.text_field FROM batches b "
            "JOIN runs r ON r.id = b.run_id JOIN datasets d ON d.id = r.dataset_id WHERE b.id = :id",
            id=lease.target_id,
        )
    try:
        task, settings = desk.task_of(run)
    except (NotFound, InputError) as error:
        _no_task(lease, run.id, str(error))
        return None
    with db.transaction() as tx:
        lease.hold(tx)
        again = reprocessing.take(tx, run.id, lease.target_id, task)
    more = _turn(lease, run.id, Processor(task, settings, run.text_field, again))
    with db.transaction() as tx:
        lease.hold(tx)
        if not more:
            finish_if_over(tx, run.id)
    return 0.0 if more else None


def _turn(lease: Lease, run_id: int, processor: Processor) -> bool:
    """Chunks until there are none, or the worker's turn is over (True: there may be more)."""
    end = time.monotonic() + TURN_SECONDS
    for outputs in ahead(_chunks(lease.target_id, run_id, processor, end)):
        _store(lease, run_id, processor, outputs)
        leaving.look()
    return time.monotonic() >= end


def _chunks(batch_id: int, run_id: int, processor: Processor, end: float) -> Iterator[list[Made]]:
    """What the processor makes of one chunk of results after the other, until there are none or the turn ends."""
    after = 0
    while time.monotonic() < end:
        with db.transaction(by_key=True) as tx:
            chunk = _next(tx, batch_id, run_id, after, processor.again)
        if not chunk:
            return
        outputs: list[Made] = []
        size = 0
        for row, answer in bounded(chunk, processor.answer):
            outputs.append(processor.made(row, answer))
            size += len(outputs[-1].value or "")
            if time.monotonic() >= end or size >= CHUNK_BYTES or leaving.asked():
                break
        yield outputs
        after = outputs[-1].row.request_id


def _store(lease: Lease, run_id: int, processor: Processor, outputs: Sequence[Made]) -> None:
    """Commit a chunk of outputs."""
    with db.transaction(by_key=True, lazily=True) as tx:
        lease.progress(tx)
        _write(tx, lease.target_id, outputs, processor)
        again = sum(made.row.was is not None for made in outputs)
        if again:
            what = "1 answer was" if again == 1 else f"{again:,} answers were"
            words = f"{what} processed again, with version {processor.task.version} of the task."
            note(tx, run_id=run_id, batch_id=lease.target_id, actor="process", reason=words)
        deliveries.renew(tx, run_id)


def _write(tx: Connection, batch_id: int, outputs: Sequence[Made], processor: Processor) -> None:
    """Store outputs, each in place of the one before it, which is kept beside; items follow."""
    reprocessing.put_aside(tx, [made.row.request_id for made in outputs if made.row.was is not None])
    db.copy_rows(
        tx,
        "outputs",
        OUTPUT_COLUMNS,
        (
            (made.row.request_id, made.state.value, made.value, made.reason, processor.task.version, processor.again)
            for made in outputs
        ),
    )
    settle_outputs(
        tx,
        batch_id,
        [
            Outcome(
                made.row.item_id,
                made.row.attempt,
                OutputState(made.row.was or OutputState.WAITING),
                made.state,
                made.reason,
            )
            for made in outputs
        ],
    )


def _next(tx: Connection, batch_id: int, run_id: int, after: int, again: int | None) -> Sequence[Any]:
    """Succeeded results of a batch without an output, or to be processed again (`was`: the state of the output they
    have), bounded by count and bytes, with their subjects.
    """
    wanted = "o.request_id IS NULL" if again is None else f"(o.request_id IS NULL OR {ASKED_AGAIN})"
    return db.rows(
        tx,
        # OFFSET 0 keeps the planner from turning the joins round: it may take a table that has just been filled for
        # empty, and would read all of it for each row.
        f"""
        WITH waiting AS (
            SELECT r.id, r.item_id, r.attempt, r.was, row_number() OVER w AS nth,
                   sum(res.size) OVER w - res.size AS before
            FROM (SELECT r.id, r.item_id, r.attempt, o.state AS was FROM requests r
                  LEFT JOIN LATERAL (SELECT * FROM outputs WHERE request_id = r.id OFFSET 0) AS o ON true
                  WHERE r.batch_id = :batch AND r.id > :after AND r.state = 'succeeded' AND {wanted}
                  ORDER BY r.id LIMIT :limit) AS r
            CROSS JOIN LATERAL (SELECT size FROM results WHERE request_id = r.id OFFSET 0) AS res
            WINDOW w AS (ORDER BY r.id)
        )
        SELECT w.id AS request_id, w.item_id, w.attempt, w.was, row.* FROM waiting w CROSS JOIN LATERAL (
            SELECT res.line::text AS line, s.kind, s.key, s.data::text AS data, encode(s.image, 'hex') AS image,
                   b.media_type, b.width, b.height, b.size
            FROM results res, items i JOIN subjects s ON s.id = i.subject_id LEFT JOIN blobs b ON b.sha256 = s.image
            WHERE res.request_id = w.id AND i.id = w.item_id OFFSET 0
        ) AS row
        WHERE w.nth = 1 OR w.before < :bytes ORDER BY w.id
        """,  # noqa: S608 - ASKED_AGAIN is a constant
        batch=batch_id,
        run=run_id,
        again=again,
        after=after,
        limit=CHUNK_ROWS,
        bytes=CHUNK_BYTES,
    )


def _no_task(lease: Lease, run_id: int, error: str) -> None:
    """Results wait until the task is there again, and resuming the run makes them due; outputs stay as they are."""
    with db.transaction() as tx:
        waits = bool(_next(tx, lease.target_id, run_id, 0, None))
        lease.hold(tx)
        reprocessing.refuse(tx, run_id, lease.target_id, f"Nothing was processed again: {error}")
        if not waits:
            return
        db.run(tx, "UPDATE runs SET pause_wanted_at = coalesce(pause_wanted_at, now()) WHERE id = :id", id=run_id)
        finish_if_over(tx, run_id, processable=False)
        move_run(tx, run_id, RunState.PAUSED, actor="process", reason=f"Its results cannot be processed: {error}")
