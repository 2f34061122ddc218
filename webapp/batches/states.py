"""The states of runs, batches, requests and items, and the only code that assigns one.
Every step calls `move_run`, `move_batch` and the bulk verbs here, inside its own transaction.

A move is one guarded statement that also appends its event: it happens whole or not at all, and a
move that no longer applies (another worker was faster) touches nothing and says so with False.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.batches.books import note as note
from webapp.batches.books import tally as tally
from webapp.errors import Fenced
from webapp.records.escapes import storable


class RunState(StrEnum):
    PLANNING = "planning"  # its requests are being built and cut into batches
    RUNNING = "running"  # its batches are on their way
    PAUSED = "paused"  # nothing new is sent until it is resumed; the reason says why
    FINISHED = "finished"  # every subject is answered or has failed for good
    CANCELLED = "cancelled"  # by a person; what was paid for is kept


class BatchState(StrEnum):
    PLANNED = "planned"  # requests committed, waiting for its turn
    SUBMITTING = "submitting"  # the one POST is under way
    SUBMIT_UNKNOWN = "submit_unknown"  # the POST may have created a billable batch
    IN_PROGRESS = "in_progress"  # the API is working
    CANCELING = "canceling"  # cancel asked for; the API still finishes, and bills, part of it
    INGESTING = "ingesting"  # the API ended it; results are being stored
    DONE = "done"  # every request is accounted for
    FAILED = "failed"  # cannot go on; the reason is written for people
    DISCARDED = "discarded"  # never sent


class RequestState(StrEnum):
    """States of a request, and of an item by its latest attempt."""

    PENDING = "pending"  # not answered yet
    SUCCEEDED = "succeeded"  # a message came back
    ERRORED = "errored"  # refused, by the API or before it was sent
    CANCELED = "canceled"  # cancelled before it was worked on
    EXPIRED = "expired"  # 24 hours were over before it was worked on
    MISSING = "missing"  # the API ended without a line for it
    STOPPED = "stopped"  # never sent


class OutputState(StrEnum):
    WAITING = "waiting"  # succeeded, its processor has not run
    OK = "ok"  # the output is on the subject
    INVALID = "invalid"  # the answer is no use


class FailureClass(StrEnum):
    RETRY = "retry"  # the API's trouble: goes again by itself
    FIX = "fix"  # the request is at fault: change it first
    ACCOUNT = "account"  # key, permission or credit
    OUTPUT = "output"  # the answer is no use
    STOPPED = "stopped"  # cancelled or never sent


BATCH_MOVES: dict[BatchState, tuple[BatchState, ...]] = {
    BatchState.PLANNED: (BatchState.SUBMITTING, BatchState.DISCARDED),
    BatchState.SUBMITTING: (
        BatchState.IN_PROGRESS,
        BatchState.PLANNED,
        BatchState.SUBMIT_UNKNOWN,
        BatchState.FAILED,
        # 413: its requests moved on to two smaller batches.
        BatchState.DISCARDED,
    ),
    BatchState.SUBMIT_UNKNOWN: (BatchState.IN_PROGRESS, BatchState.PLANNED, BatchState.FAILED),
    BatchState.IN_PROGRESS: (BatchState.CANCELING, BatchState.INGESTING),
    BatchState.CANCELING: (BatchState.INGESTING,),
    BatchState.INGESTING: (BatchState.DONE, BatchState.IN_PROGRESS, BatchState.SUBMIT_UNKNOWN),
    BatchState.DONE: (BatchState.INGESTING,),
    BatchState.FAILED: (BatchState.PLANNED,),
    BatchState.DISCARDED: (),
}

RUN_MOVES: dict[RunState, tuple[RunState, ...]] = {
    RunState.PLANNING: (RunState.RUNNING, RunState.PAUSED, RunState.CANCELLED, RunState.FINISHED),
    RunState.RUNNING: (RunState.PAUSED, RunState.FINISHED, RunState.CANCELLED),
    RunState.PAUSED: (RunState.RUNNING, RunState.PLANNING, RunState.CANCELLED, RunState.FINISHED),
    RunState.FINISHED: (RunState.RUNNING,),
    RunState.CANCELLED: (RunState.RUNNING,),
}

OPEN_BATCH_STATES = tuple(
    state for state in BatchState if state not in (BatchState.DONE, BatchState.FAILED, BatchState.DISCARDED)
)
FAILED_STATES = tuple(state for state in RequestState if state not in (RequestState.PENDING, RequestState.SUCCEEDED))


def move_batch(
    tx: Connection, batch_id: int, to: BatchState, *, actor: str, reason: str | None = None, **columns: Any
) -> bool:
    """Move a batch from whatever state allows it to `to`; False if its state allows it no more.

    :param reason: a sentence for people, kept on the batch and in the event.
    :param columns: other columns of the batch set by the same statement.
    """
    sources = [state.value for state, targets in BATCH_MOVES.items() if to in targets]
    moved = _move(tx, "batches", batch_id, to.value, sources, actor, reason, columns)
    return moved is not None


def move_run(
    tx: Connection, run_id: int, to: RunState, *, actor: str, reason: str | None = None, **columns: Any
) -> bool:
    """Move a run from whatever state allows it to `to`; False if its state allows it no more."""
    sources = [state.value for state, targets in RUN_MOVES.items() if to in targets]
    moved = _move(tx, "runs", run_id, to.value, sources, actor, reason, columns)
    return moved is not None


def _move(
    tx: Connection,
    table: str,
    row_id: int,
    to: str,
    sources: list[str],
    actor: str,
    reason: str | None,
    columns: dict[str, Any],
) -> Any:
    extra = "".join(f", {name} = :{name}" for name in columns) + (", held = false" if table == "batches" else "")
    run, batch = ("old.id", "NULL") if table == "runs" else ("old.run_id", "old.id")
    return db.row(
        tx,
        f"""
        WITH old AS (
            SELECT * FROM {table} WHERE id = :row_id AND state = ANY(:sources) FOR UPDATE
        ), moved AS (
            UPDATE {table} SET state = :to, reason = :reason, state_since = now(){extra}
            FROM old WHERE {table}.id = old.id
        )
        INSERT INTO events (run_id, batch_id, kind, from_state, to_state, actor, reason)
        SELECT {run}, {batch}, 'move', old.state, :to, :actor, :reason FROM old
        RETURNING id
        """,  # noqa: S608 - table and column names come from our own code
        row_id=row_id,
        to=to,
        sources=sources,
        actor=actor,
        reason=storable(reason) if reason else reason,
        **columns,
    )


class Settlement:
    """What one chunk decided about its requests, in columns, so that one statement moves requests and items."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.was: list[str] = []
        self.retried: list[int] = []  # 1 where it was of class retry: a line that comes late
        self.states: list[str] = []
        self.classes: list[str | None] = []
        self.errors: list[str | None] = []

    def add(self, request: Any, state: RequestState, failure: FailureClass | None, error: str | None) -> None:
        """Decide about one request.

        :param request: a row with its `id`, and the `state` and `failure_class` it is in.
        """
        if request.state not in (RequestState.PENDING, RequestState.MISSING):
            raise AssertionError(f"request {request.id} is {request.state}: an outcome is final")
        self.ids.append(request.id)
        self.was.append(request.state)
        self.retried.append(int(request.failure_class == FailureClass.RETRY))
        self.states.append(state.value)
        self.classes.append(failure.value if failure else None)
        self.errors.append(error)


def settle_requests(tx: Connection, settlement: Settlement) -> None:
    """Move requests (and the items whose latest attempt they are) to their outcome, with their tallies.

    The order of their ids is the order they are locked in: callers give them ascending.

    :raises Fenced: a request is no longer in the state it was read in; the chunk must not be committed.
    """
    if not settlement.ids:
        return
    # The chunk's decisions as rows, and joins from these to a key. The states to be left are a column of them too,
    # never constants: by its statistics the planner takes `state = 'pending'` for next to no rows, and would look
    # through the whole table for those few.
    moved = db.rows(
        tx,
        """
        WITH requests_moved AS (
            UPDATE requests r SET state = v.state, failure_class = v.failure_class
            FROM unnest(CAST(:ids AS bigint[]), CAST(:was AS text[]), CAST(:retried AS int[]), CAST(:states AS text[]),
                        CAST(:classes AS text[]), CAST(:errors AS text[]))
                 AS v(id, was, retried, state, failure_class, error)
            WHERE r.id = v.id AND r.state = v.was
            RETURNING r.batch_id, r.item_id, r.attempt, v.was, v.retried, v.state, v.failure_class, v.error
        ), items_moved AS (
            UPDATE items i SET state = m.state, failure_class = m.failure_class, error = m.error,
                   output_state = CASE WHEN m.state = 'succeeded' THEN 'waiting' END
            FROM requests_moved m WHERE i.id = m.item_id AND i.attempts = m.attempt
            RETURNING m.batch_id, m.was, CASE m.retried WHEN 1 THEN m.attempt END AS was_retry, m.state,
                      CASE m.failure_class WHEN 'retry' THEN m.attempt END AS retry
        )
        SELECT 'requests' AS scope, batch_id, was, NULL AS was_retry, state, NULL AS retry, count(*) AS moved
        FROM requests_moved GROUP BY batch_id, was, state
        UNION ALL
        SELECT 'items', batch_id, was, was_retry, state, retry, count(*) FROM items_moved GROUP BY 2, 3, 4, 5, 6
        """,
        ids=db.array(settlement.ids),
        was=db.array(settlement.was),
        retried=db.array(settlement.retried),
        states=db.array(settlement.states),
        classes=db.array(settlement.classes),
        errors=db.array(settlement.errors),
    )
    if sum(line.moved for line in moved if line.scope == "requests") != len(settlement.ids):
        raise Fenced("Some requests were settled by another worker meanwhile.")
    deltas: dict[tuple[str, int, int | None], Counter[str]] = defaultdict(Counter)
    for line in moved:
        deltas[line.scope, line.batch_id, line.was_retry][line.was] -= line.moved
        deltas[line.scope, line.batch_id, line.retry][line.state] += line.moved
    for (scope, batch_id, retry), changed in deltas.items():
        tally(tx, scope, changed, batch_id=batch_id, retry_attempt=retry)


def settle_pending(tx: Connection, batch_id: int, state: RequestState, failure: FailureClass, error: str) -> None:
    """Move every request of a batch that is still pending to one outcome."""
    settlement = Settlement()
    for request in db.rows(
        tx,
        "SELECT id, state, failure_class FROM requests WHERE batch_id = :batch AND state = 'pending' "
        "ORDER BY id FOR UPDATE",
        batch=batch_id,
    ):
        settlement.add(request, state, failure, error)
    settle_requests(tx, settlement)


def hold_batch(tx: Connection, batch_id: int, reason: str, *, actor: str) -> None:
    """Say that a batch waits for a person, and for what; its next move ends that. May be repeated."""
    held = db.row(
        tx,
        "UPDATE batches SET held = true, reason = :reason WHERE id = :id "
        "AND (NOT held OR reason IS DISTINCT FROM :reason) RETURNING run_id",
        id=batch_id,
        reason=reason,
    )
    if held is not None:
        note(tx, run_id=held.run_id, batch_id=batch_id, actor=actor, reason=reason)


def explain_batch(tx: Connection, batch_id: int, reason: str | None) -> None:
    """Say why a batch does not get on just now, or (None) that it does again. No move, and no wait for a person."""
    db.run(
        tx,
        "UPDATE batches SET held = false, reason = :reason WHERE id = :id "
        "AND (held OR reason IS DISTINCT FROM :reason)",
        id=batch_id,
        reason=reason,
    )


def stop_unsent(tx: Connection, run_id: int) -> None:
    """End the items of a cancelled run that no batch holds: built, or to be sent again, and now never sent.

    One that was sent before stands again as its last request and that one's output do.
    """
    ended = db.rows(
        tx,
        """
        WITH moved AS (
            UPDATE items i SET attempts = unsent.attempts - 1, state = coalesce(r.state, 'stopped'),
                   error = CASE WHEN o.state IS NULL THEN :error ELSE o.reason END,
                   failure_class = CASE WHEN r.state = 'succeeded' THEN CASE o.state WHEN 'invalid' THEN 'output' END
                                   ELSE coalesce(r.failure_class, 'stopped') END,
                   output_state = CASE r.state WHEN 'succeeded' THEN coalesce(o.state, 'waiting') END
            FROM items unsent LEFT JOIN requests r ON r.item_id = unsent.id AND r.attempt = unsent.attempts - 1
            LEFT JOIN outputs o ON o.request_id = r.id
            WHERE i.id = unsent.id AND unsent.run_id = :run AND unsent.state = 'pending' AND NOT EXISTS (
                SELECT 1 FROM requests present
                WHERE present.item_id = unsent.id AND present.attempt = unsent.attempts)
            RETURNING i.state, i.output_state, CASE i.failure_class WHEN 'retry' THEN i.attempts END AS retry
        )
        SELECT state, output_state, retry, count(*) AS moved FROM moved GROUP BY 1, 2, 3
        """,
        run=run_id,
        error="Cancelled before it was sent.",
    )
    _tally_turns(tx, run_id, ended, by=1)


def start_attempts(tx: Connection, run_id: int, item_ids: Sequence[int]) -> int:
    """Make items pending again, one attempt further, with their tally; the count moved.

    Their requests are made by cutting; until then they have none of this attempt.
    """
    moved = db.rows(
        tx,
        """
        WITH old AS (
            SELECT id, state, output_state, CASE failure_class WHEN 'retry' THEN attempts END AS retry FROM items
            WHERE id = ANY(:ids) AND run_id = :run_id AND (state NOT IN ('pending', 'succeeded') OR
                  output_state = 'invalid') ORDER BY id FOR UPDATE
        ), moved AS (
            UPDATE items i SET state = 'pending', attempts = attempts + 1, failure_class = NULL, output_state = NULL,
                   error = NULL
            FROM old WHERE i.id = old.id RETURNING old.state, old.output_state, old.retry
        )
        SELECT state, output_state, retry, count(*) AS moved FROM moved GROUP BY 1, 2, 3
        """,
        ids=list(item_ids),
        run_id=run_id,
    )
    _tally_turns(tx, run_id, moved, by=-1)
    return sum(line.moved for line in moved)


def _tally_turns(tx: Connection, run_id: int, moved: Sequence[Any], *, by: int) -> None:
    """Tally items between pending and their last outcome (state, output_state, retry): `by` 1 to it, -1 from it."""
    deltas: dict[int | None, Counter[str]] = defaultdict(Counter)
    for line in moved:
        deltas[None]["pending"] -= by * line.moved
        deltas[line.retry][line.state] += by * line.moved
        if line.output_state is not None:
            deltas[line.retry][line.output_state] += by * line.moved
    for retry, changed in deltas.items():
        tally(tx, "items", changed, run_id=run_id, retry_attempt=retry)


class Outcome(NamedTuple):
    """What the processor made of one answer, and what it had made of it before (waiting: nothing yet)."""

    item_id: int
    attempt: int
    was: OutputState
    state: OutputState
    reason: str | None


def settle_outputs(tx: Connection, batch_id: int, outcomes: Sequence[Outcome]) -> None:
    """Note on the items whose latest attempt was answered what the processor has made of that now."""
    moved = db.rows(
        tx,
        """
        WITH moved AS (
            UPDATE items i SET output_state = v.output_state, error = v.error,
                   failure_class = CASE WHEN v.output_state = 'invalid' THEN 'output' END
            FROM unnest(CAST(:ids AS bigint[]), CAST(:attempts AS int[]), CAST(:was AS text[]),
                        CAST(:states AS text[]), CAST(:errors AS text[])) AS v(id, attempt, was, output_state, error)
            WHERE i.id = v.id AND i.attempts = v.attempt AND i.output_state = v.was
            RETURNING v.was, i.output_state
        )
        SELECT was, output_state, count(*) AS moved FROM moved GROUP BY 1, 2
        """,
        ids=db.array(outcome.item_id for outcome in outcomes),
        attempts=db.array(outcome.attempt for outcome in outcomes),
        was=db.array(outcome.was.value for outcome in outcomes),
        states=db.array(outcome.state.value for outcome in outcomes),
        errors=db.array(outcome.reason for outcome in outcomes),
    )
    deltas: Counter[str] = Counter()
    for line in moved:
        deltas[line.was] -= line.moved
        deltas[line.output_state] += line.moved
    tally(tx, "items", deltas, batch_id=batch_id)
