"""The states of runs, batches, requests and items, and the only code that assigns one.
Every step calls `move_run`, `move_batch` and the bulk verbs here, inside its own transaction.

A move is one guarded statement that also appends its event: it happens whole or not at all, and a
move that no longer applies (another worker was faster) touches nothing and says so with False.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches.books import explain_batch as explain_batch
from webapp.batches.books import hold_batch as hold_batch
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
        self.states: list[str] = []
        self.classes: list[str | None] = []
        self.errors: list[str | None] = []

    def add(self, request: Any, state: RequestState, failure: FailureClass | None, error: str | None) -> None:
        """Decide about one request.

        :param request: a row with its `id` and the `state` it is in.
        """
        if request.state not in (RequestState.PENDING, RequestState.MISSING):
            raise AssertionError(f"request {request.id} is {request.state}: an outcome is final")
        self.ids.append(request.id)
        self.was.append(request.state)
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
            FROM unnest(CAST(:ids AS bigint[]), CAST(:was AS text[]), CAST(:states AS text[]),
                        CAST(:classes AS text[]), CAST(:errors AS text[])) AS v(id, was, state, failure_class, error)
            WHERE r.id = v.id AND r.state = v.was
            RETURNING r.batch_id, r.item_id, r.attempt, v.was, v.state, v.failure_class, v.error
        ), items_moved AS (
            UPDATE items i SET state = m.state, failure_class = m.failure_class, error = m.error,
                   output_state = CASE WHEN m.state = 'succeeded' THEN 'waiting' END
            FROM requests_moved m WHERE i.id = m.item_id AND i.attempts = m.attempt AND i.state = m.was
            RETURNING m.batch_id, m.was, m.state
        )
        SELECT 'requests' AS scope, batch_id, was, state, count(*) AS moved FROM requests_moved GROUP BY 2, 3, 4
        UNION ALL
        SELECT 'items', batch_id, was, state, count(*) FROM items_moved GROUP BY 2, 3, 4
        """,
        ids=db.array(settlement.ids),
        was=db.array(settlement.was),
        states=db.array(settlement.states),
        classes=db.array(settlement.classes),
        errors=db.array(settlement.errors),
    )
    if sum(line.moved for line in moved if line.scope == "requests") != len(settlement.ids):
        raise Fenced("Some requests were settled by another worker meanwhile.")
    deltas: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for line in moved:
        deltas[line.scope, line.batch_id][line.was] -= line.moved
        deltas[line.scope, line.batch_id][line.state] += line.moved
    for (scope, batch_id), changed in deltas.items():
        tally(tx, scope, changed, batch_id=batch_id)
    turned = [
        request_id
        for request_id, was, state in zip(settlement.ids, settlement.was, settlement.states, strict=True)
        if state != RequestState.SUCCEEDED or was == RequestState.MISSING
    ]
    if turned:
        stand_by_earlier(tx, turned)


def stand_by_earlier(tx: Connection, request_ids: Sequence[int]) -> None:
    """Let items whose latest attempt has failed, or brought nothing of use, stand by an earlier one that succeeded.

    A line may come late: after its request was taken for missing and sent again. The output of a subject is that of
    its lowest succeeded attempt, so an item fails only where none is of use or may still be.

    :param request_ids: any requests of these items; what changes is tallied in their batches.
    """
    mine = "FROM requests mine JOIN items i ON i.id = mine.item_id WHERE mine.id = ANY(CAST(:ids AS bigint[])) "
    ids = db.array(request_ids)
    # Locked before it is looked at: the results of one attempt and the outputs of another are stored at once.
    if not db.rows(tx, f"SELECT i.id {mine} AND i.attempts > 1 ORDER BY i.id FOR UPDATE OF i", ids=ids):
        return
    moved = db.rows(
        tx,
        f"""
        WITH old AS (
            SELECT i.id, i.state, i.output_state, max(mine.batch_id) AS batch_id {mine}
            AND i.attempts > 1 AND (i.state NOT IN ('pending', 'succeeded') OR i.output_state <> 'ok') GROUP BY i.id
        ), standing AS (
            SELECT old.*, best.output_state AS becomes, best.reason FROM old JOIN LATERAL (
                SELECT coalesce(o.state, 'waiting') AS output_state, o.reason
                FROM requests r LEFT JOIN outputs o ON o.request_id = r.id
                WHERE r.item_id = old.id AND r.state = 'succeeded'
                ORDER BY array_position(ARRAY['ok', 'waiting', 'invalid'], coalesce(o.state, 'waiting')), r.attempt
                LIMIT 1
            ) AS best ON best.output_state <> 'invalid' OR old.output_state = 'waiting'
        ), moved AS (
            UPDATE items i SET state = 'succeeded', output_state = s.becomes,
                   failure_class = CASE s.becomes WHEN 'invalid' THEN 'output' END,
                   error = CASE s.becomes WHEN 'invalid' THEN s.reason END
            FROM standing s
            WHERE i.id = s.id AND i.state NOT IN ('pending') AND s.output_state IS DISTINCT FROM s.becomes
            RETURNING s.batch_id, s.state, s.output_state, s.becomes
        )
        SELECT batch_id, state, output_state, becomes, count(*) AS moved FROM moved GROUP BY 1, 2, 3, 4 ORDER BY 1
        """,  # noqa: S608 - a constant
        ids=ids,
    )
    deltas: dict[int, Counter[str]] = defaultdict(Counter)
    for line in moved:
        changed = deltas[line.batch_id]
        changed.update({RequestState.SUCCEEDED: line.moved, line.becomes: line.moved})
        changed.subtract([*[line.state] * line.moved, *[line.output_state or OutputState.WAITING] * line.moved])
    for batch_id, changed in deltas.items():
        tally(tx, "items", changed, batch_id=batch_id)


def settle_pending(tx: Connection, batch_id: int, state: RequestState, failure: FailureClass, error: str) -> None:
    """Move every request of a batch that is still pending to one outcome."""
    settlement = Settlement()
    for request in db.rows(
        tx,
        "SELECT id, state FROM requests WHERE batch_id = :batch AND state = 'pending' ORDER BY id FOR UPDATE",
        batch=batch_id,
    ):
        settlement.add(request, state, failure, error)
    settle_requests(tx, settlement)


def stop_unsent(tx: Connection, run_id: int) -> None:
    """End the items of a cancelled run that no batch holds: built, or to be sent again, and now never sent.

    One that was sent before stands again as its last request does.
    """
    ended = db.rows(
        tx,
        """
        WITH moved AS (
            UPDATE items i SET attempts = unsent.attempts - 1, state = coalesce(r.state, 'stopped'),
                   output_state = CASE r.state WHEN 'succeeded' THEN coalesce(o.state, 'waiting') END,
                   failure_class = CASE r.state WHEN 'succeeded' THEN CASE o.state WHEN 'invalid' THEN 'output' END
                                   ELSE coalesce(r.failure_class, 'stopped') END,
                   error = CASE WHEN r.state = 'succeeded' AND o.state IS DISTINCT FROM 'invalid' THEN NULL
                           ELSE :error END
            FROM items unsent LEFT JOIN requests r ON r.item_id = unsent.id AND r.attempt = unsent.attempts - 1
            LEFT JOIN outputs o ON o.request_id = r.id
            WHERE i.id = unsent.id AND unsent.run_id = :run AND unsent.state = 'pending' AND NOT EXISTS (
                SELECT 1 FROM requests present
                WHERE present.item_id = unsent.id AND present.attempt = unsent.attempts)
            RETURNING i.state, i.output_state, r.id AS request_id
        )
        SELECT state, output_state, count(*) AS moved,
               array_agg(request_id) FILTER (WHERE state <> 'succeeded' AND request_id IS NOT NULL) AS failed
        FROM moved GROUP BY 1, 2
        """,
        run=run_id,
        error="Cancelled before it was sent.",
    )
    deltas: Counter[str] = Counter()
    for line in ended:
        deltas["pending"] -= line.moved
        deltas[line.state] += line.moved
        if line.output_state is not None:
            deltas[line.output_state] += line.moved
    tally(tx, "items", deltas, run_id=run_id)
    stand_by_earlier(tx, [request_id for line in ended for request_id in line.failed or ()])


def start_attempts(tx: Connection, run_id: int, item_ids: Sequence[int]) -> int:
    """Make items pending again, one attempt further, with their tally; the count moved.

    Their requests are made by cutting; until then they have none of this attempt.
    """
    moved = db.rows(
        tx,
        """
        WITH old AS (
            SELECT id, state, output_state FROM items
            WHERE id = ANY(:ids) AND run_id = :run_id AND (state NOT IN ('pending', 'succeeded') OR
                  output_state = 'invalid') ORDER BY id FOR UPDATE
        ), moved AS (
            UPDATE items i SET state = 'pending', attempts = attempts + 1, failure_class = NULL, output_state = NULL,
                   error = NULL
            FROM old WHERE i.id = old.id RETURNING old.state, old.output_state
        )
        SELECT state, output_state, count(*) AS moved FROM moved GROUP BY 1, 2
        """,
        ids=list(item_ids),
        run_id=run_id,
    )
    deltas: Counter[str] = Counter()
    for line in moved:
        deltas["pending"] += line.moved
        deltas[line.state] -= line.moved
        if line.output_state is not None:
            deltas[line.output_state] -= line.moved
    tally(tx, "items", deltas, run_id=run_id)
    return sum(line.moved for line in moved)


def settle_outputs(tx: Connection, batch_id: int, outcomes: Sequence[tuple[int, int, OutputState, str | None]]) -> None:
    """Note on items what the processor made of their answer: (item id, attempt, ok or invalid, why)."""
    counts = db.rows(
        tx,
        """
        WITH moved AS (
            UPDATE items i SET output_state = v.output_state, error = v.error,
                   failure_class = CASE WHEN v.output_state = 'invalid' THEN 'output' END
            FROM unnest(CAST(:ids AS bigint[]), CAST(:attempts AS int[]), CAST(:was AS text[]),
                        CAST(:states AS text[]), CAST(:errors AS text[])) AS v(id, attempt, was, output_state, error)
            WHERE i.id = v.id AND i.attempts = v.attempt AND i.output_state = v.was
            RETURNING i.output_state
        )
        SELECT output_state, count(*) AS moved FROM moved GROUP BY 1
        """,
        ids=db.array(item_id for item_id, _, _, _ in outcomes),
        attempts=db.array(attempt for _, attempt, _, _ in outcomes),
        was=db.array([OutputState.WAITING.value] * len(outcomes)),
        states=db.array(state.value for _, _, state, _ in outcomes),
        errors=db.array(error for _, _, _, error in outcomes),
    )
    tally(tx, "items", Counter({line.output_state: line.moved for line in counts}), batch_id=batch_id)
    again = any(attempt > 1 and state == OutputState.INVALID for _, attempt, state, _ in outcomes)
    if again or sum(line.moved for line in counts) < len(outcomes):
        requests = db.rows(
            tx,
            "SELECT id FROM requests WHERE batch_id = :batch AND item_id = ANY(CAST(:ids AS bigint[])) ORDER BY id",
            batch=batch_id,
            ids=db.array(item_id for item_id, _, _, _ in outcomes),
        )
        stand_by_earlier(tx, [request_id for (request_id,) in requests])
