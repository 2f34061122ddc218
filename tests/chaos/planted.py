"""Bugs to be planted in a worker, one small function each, to show which line of the audit catches them.

Each takes away one thing that the product relies on; `test_planted.py` says where the harness must strike to reach it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from webapp import db, gateway
from webapp.batches import (
    books,
    ingestion,
    outcomes,
    polling,
    processing,
    resubmission,
    states,
    submission,
)
from webapp.batches.outcomes import Outcome, settle_outputs
from webapp.batches.states import BatchState, DeliveryState, OutputState, RunState, move_batch
from webapp.delivery import deliveries, delivering
from webapp.errors import ApiError
from webapp.gateway import Gateway
from webapp.money import ledger


def retries_left_on() -> None:
    """The SDK may POST again, with a body that it can read again."""
    made = Gateway.__init__

    def init(self: Gateway, **options: Any) -> None:
        made(self, **options)
        self._client = self._client.with_options(max_retries=2)

    class Kept(gateway._Watched):
        pieces: list[bytes] | None = None

        def __iter__(self) -> Iterator[bytes]:
            if self.pieces is None:
                self.pieces = list(super().__iter__())
            return iter(self.pieces)

    Gateway.__init__ = init
    gateway._Watched = Kept


def guard_removed() -> None:
    """A move happens from whatever state a row is in."""
    real = states._move
    every = [str(state) for kind in (BatchState, RunState, DeliveryState) for state in kind]

    def move(tx: Any, table: str, row_id: int, to: str, sources: list[str], *rest: Any, **options: Any) -> Any:
        return real(tx, table, row_id, to, every, *rest, **options)

    states._move = move


def intent_committed_late() -> None:
    """The row of a POST is written when its answer is there."""
    intended: dict[int, Any] = {}

    def intend(tx: Any, batch: Any, account_id: int, api_time: Any) -> int:
        number: int = db.scalar(tx, "SELECT nextval(pg_get_serial_sequence('submissions', 'id'))")
        intended[number] = {"batch": batch.id, "account": account_id, "total": batch.total, "api_time": api_time}
        return number

    def arm(sending: Any, lease: Any) -> None:
        sending.armed = True

    recorded = submission._record

    def record(desk: Any, sending: Any, created: Any) -> None:
        with db.transaction() as tx:
            db.run(
                tx,
                "INSERT INTO submissions (id, batch_id, account_id, total, api_time, armed_at) "
                "OVERRIDING SYSTEM VALUE VALUES (:id, :batch, :account, :total, :api_time, now())",
                id=sending.submission_id,
                **intended[sending.submission_id],
            )
            move_batch(tx, sending.batch_id, BatchState.SUBMITTING, actor="submit", account_id=sending.account_id)
        recorded(desk, sending, created)

    submission._intend, submission._arm, submission._record = intend, arm, record


def arming_skipped() -> None:
    """`armed_at` is never set, so that a POST whose worker died counts as never made."""

    def arm(sending: Any, lease: Any) -> None:
        sending.armed = True

    submission._arm = arm


def _after_the_chunk(later: Callable[[Any], None]) -> None:
    """Do something after the transaction that stores a chunk of results, in one of its own."""
    stored = ingestion._store

    def store(*arguments: Any) -> None:
        stored(*arguments)
        with db.transaction() as tx:
            later(tx)

    ingestion._store = store


def ledger_outside_the_transaction() -> None:
    """Ledger lines are written after the chunk that they belong to."""
    append = ledger.append
    lines: list[Any] = []
    ledger.append = lambda tx, more: lines.extend(more)

    def later(tx: Any) -> None:
        append(tx, lines)
        lines.clear()

    _after_the_chunk(later)


def tally_outside_the_transaction() -> None:
    """Requests move first, and are counted after."""
    tally, stored = outcomes.tally, ingestion._store
    counted: list[tuple[str, Counter[str], dict[str, Any]]] = []

    def store(*arguments: Any) -> None:
        outcomes.tally = lambda tx, scope, deltas, **whose: counted.append((scope, deltas, whose))
        try:
            stored(*arguments)
        finally:
            outcomes.tally = tally

    def later(tx: Any) -> None:
        for scope, deltas, whose in counted:
            tally(tx, scope, deltas, **whose)
        counted.clear()

    ingestion._store = store
    _after_the_chunk(later)


def results_outside_the_transaction() -> None:
    """Requests are answered first, and their answers stored after."""
    copy_rows = db.copy_rows
    answers: list[Any] = []

    def copy(tx: Any, table: str, columns: Any, records: Any) -> int:
        if table != "results":
            return copy_rows(tx, table, columns, records)
        answers.extend(records)
        return len(answers)

    def later(tx: Any) -> None:
        copy_rows(tx, "results", ingestion.RESULT_COLUMNS, answers)
        answers.clear()

    db.copy_rows = copy
    _after_the_chunk(later)


def outputs_claimed_before_they_are_made() -> None:
    """An item has its output from the moment that its processor is asked: at most once, where it must be once."""
    following = processing._next

    def claim(tx: Any, batch_id: int, *rest: Any) -> Any:
        waiting = {
            item_id
            for (item_id,) in db.rows(
                tx,
                "SELECT i.id FROM items i JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts "
                "WHERE r.batch_id = :batch AND i.output_state = 'waiting'",
                batch=batch_id,
            )
        }
        chunk = [row for row in following(tx, batch_id, *rest) if row.item_id in waiting]
        claimed = [Outcome(row.item_id, row.attempt, OutputState.WAITING, OutputState.OK, None) for row in chunk]
        settle_outputs(tx, batch_id, claimed)
        return chunk

    def write(tx: Any, batch_id: int, outputs: Any, processor: Any) -> None:
        with_version = (processor.task.version, processor.again)
        made = ((one.row.request_id, one.state.value, one.value, one.reason, *with_version) for one in outputs)
        db.copy_rows(tx, "outputs", processing.OUTPUT_COLUMNS, made)

    processing._next, processing._write = claim, write


def a_cut_stream_taken_for_the_end() -> None:
    """A batch is done with what came of its results, however they ended."""
    chunks = ingestion.chunks

    def read(lines: Any) -> Iterator[Any]:
        whole: list[Any] = []
        try:
            for line in lines:
                whole.append(line)
        except ApiError:
            pass
        yield from chunks(whole)

    ingestion.chunks = read
    ingestion._missing_after = lambda tx, desk, fetch: None
    ingestion.settle_pending = lambda *arguments: None


def a_good_answer_is_no_reason_to_stop() -> None:
    """Resubmission takes every record below the ceiling."""
    resubmission.BY_RULE = "i.attempts < :most AND i.state <> 'pending' AND CAST(:delay AS float) IS NOT NULL"

    def start_attempts(tx: Any, run_id: int, item_ids: Any) -> int:
        moved = db.rows(
            tx,
            "WITH old AS (SELECT id, state, output_state FROM items WHERE id = ANY(:ids) FOR UPDATE) "
            "UPDATE items i SET state = 'pending', attempts = attempts + 1, failure_class = NULL, error = NULL, "
            "output_state = NULL FROM old WHERE i.id = old.id RETURNING old.state, old.output_state",
            ids=list(item_ids),
        )
        deltas = Counter({"pending": len(moved)})
        deltas.subtract(line.state for line in moved)
        deltas.subtract(line.output_state for line in moved if line.output_state)
        books.tally(tx, "items", deltas, run_id=run_id)
        return len(moved)

    resubmission.start_attempts = start_attempts


def a_step_that_nothing_makes_due() -> None:
    """A batch that has ended is told to nobody."""
    polling.due = lambda *arguments, **options: None


def deliveries_that_nothing_makes_due() -> None:
    """A round is made when a run ends, and told to nobody."""
    deliveries.due = lambda *arguments, **options: None


def outputs_noted_as_taken_before_they_are() -> None:
    """How far a delivery is gets written down first, and its sink is asked then: at most once."""
    chunks, taken, to_sink = delivering._chunks, delivering._taken, delivering._to_sink
    current: list[Any] = []

    def begin(desk: Any, lease: Any, delivery: Any) -> float | None:
        current[:] = [lease, delivery]
        return to_sink(desk, lease, delivery)

    def note_first(*arguments: Any) -> Iterator[Any]:
        for chunk in chunks(*arguments):
            taken(*current, chunk)
            yield chunk

    delivering._to_sink, delivering._chunks = begin, note_first
    delivering._taken = lambda lease, delivery, chunk: True


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        retries_left_on,
        guard_removed,
        intent_committed_late,
        arming_skipped,
        ledger_outside_the_transaction,
        tally_outside_the_transaction,
        results_outside_the_transaction,
        outputs_claimed_before_they_are_made,
        a_cut_stream_taken_for_the_end,
        a_good_answer_is_no_reason_to_stop,
        a_step_that_nothing_makes_due,
        deliveries_that_nothing_makes_due,
        outputs_noted_as_taken_before_they_are,
    )
}


def plant(name: str) -> None:
    """Plant a bug by its name; none for an empty one."""
    if name:
        BUGS[name]()
