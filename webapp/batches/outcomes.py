"""What becomes of requests and items: their outcomes, their outputs, their next attempts, many at once.
Beside `states`, the only code that assigns a state; steps call it inside their own transaction.

Each verb is one guarded statement with its tally: what no longer is as it was read is not touched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.batches.books import tally
from webapp.batches.states import FailureClass, OutputState, RequestState
from webapp.errors import Fenced


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
            FROM requests_moved m WHERE i.id = m.item_id AND i.attempts = m.attempt AND i.state = m.was
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
    deltas: Deltas = defaultdict(Counter)
    for line in moved:
        deltas[line.scope, line.batch_id, line.was_retry][line.was] -= line.moved
        deltas[line.scope, line.batch_id, line.retry][line.state] += line.moved
    _tally(tx, deltas)
    turned = [
        request_id
        for request_id, was, state in zip(settlement.ids, settlement.was, settlement.states, strict=True)
        if state != RequestState.SUCCEEDED or was == RequestState.MISSING
    ]
    if turned:
        stand_by_earlier(tx, turned)


# (scope, batch, attempt that failed if it is of class retry) -> how many entered and left each state
Deltas = dict[tuple[str, int, int | None], Counter[str]]


def _tally(tx: Connection, deltas: Deltas) -> None:
    for (scope, batch_id, retry), changed in deltas.items():
        tally(tx, scope, changed, batch_id=batch_id, retry_attempt=retry)


class Answered(NamedTuple):
    """What the lines of a chunk say, one column each, as `db.array` writes them; sorted by custom_id, which is the
    order that requests are locked in.
    """

    custom_ids: str
    was: str  # pending, as often as there are lines
    states: str
    classes: str
    errors: str


class Moved(NamedTuple):
    """Requests of one batch that lines have moved: their ids, and each one's place among the lines, from 0 on."""

    batch_id: int
    ids: list[int]
    places: list[int]


def settle_answered(tx: Connection, answered: Answered) -> list[Moved]:
    """Move those requests that are pending, and their items, to the outcome that a line brings; with their tallies.

    It is what nearly every line comes to, in one statement. The requests moved; whatever is not among them was not
    pending, or is not known, and is for the caller to look at.
    """
    # What has moved comes back as two texts: a row for each request would take as long as all else in Python.
    found = db.rows(
        tx,
        """
        WITH requests_moved AS (
            UPDATE requests r SET state = v.state, failure_class = v.failure_class
            FROM unnest(CAST(:custom_ids AS text[]), CAST(:was AS text[]), CAST(:states AS text[]),
                        CAST(:classes AS text[]), CAST(:errors AS text[])) WITH ORDINALITY
                 AS v(custom_id, was, state, failure_class, error, nth)
            WHERE r.custom_id = v.custom_id AND r.state = v.was
            RETURNING r.id, r.batch_id, r.item_id, r.attempt, v.was, v.state, v.failure_class, v.error, v.nth
        ), items_moved AS (
            UPDATE items i SET state = m.state, failure_class = m.failure_class, error = m.error,
                   output_state = CASE WHEN m.state = 'succeeded' THEN 'waiting' END
            FROM requests_moved m WHERE i.id = m.item_id AND i.attempts = m.attempt AND i.state = m.was
            RETURNING m.batch_id, m.state, CASE m.failure_class WHEN 'retry' THEN m.attempt END AS retry
        )
        SELECT 'requests' AS scope, batch_id, state, NULL AS retry, count(*) AS moved,
               CAST(array_agg(id) AS text) AS ids, CAST(array_agg(nth - 1) AS text) AS places
        FROM requests_moved GROUP BY batch_id, state
        UNION ALL
        SELECT 'items', batch_id, state, retry, count(*), NULL, NULL FROM items_moved GROUP BY batch_id, state, retry
        """,
        **answered._asdict(),
    )
    deltas: Deltas = defaultdict(Counter)
    for line in found:
        deltas[line.scope, line.batch_id, None][RequestState.PENDING] -= line.moved
        deltas[line.scope, line.batch_id, line.retry][line.state] += line.moved
    _tally(tx, deltas)
    groups = [line for line in found if line.scope == "requests"]
    moved = [Moved(line.batch_id, db.integers(line.ids), db.integers(line.places)) for line in groups]
    failed = [one.ids for line, one in zip(groups, moved, strict=True) if line.state != RequestState.SUCCEEDED]
    if failed:
        stand_by_earlier(tx, sorted(chain.from_iterable(failed)))
    return moved


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
            SELECT i.id, i.state, i.output_state, CASE i.failure_class WHEN 'retry' THEN i.attempts END AS retry,
                   max(mine.batch_id) AS batch_id {mine} AND i.attempts > 1 AND i.state <> 'pending' GROUP BY i.id
        ), standing AS (
            SELECT old.*, best.output_state AS becomes, best.reason FROM old JOIN LATERAL (
                SELECT coalesce(o.state, 'waiting') AS output_state, o.reason
                FROM requests r LEFT JOIN outputs o ON o.request_id = r.id
                WHERE r.item_id = old.id AND r.state = 'succeeded'
                ORDER BY array_position(ARRAY['ok', 'waiting', 'invalid'], coalesce(o.state, 'waiting')), r.attempt
                LIMIT 1
            ) AS best ON best.output_state <> 'invalid' OR old.output_state IN ('waiting', 'ok')
        ), moved AS (
            UPDATE items i SET state = 'succeeded', output_state = s.becomes,
                   failure_class = CASE s.becomes WHEN 'invalid' THEN 'output' END,
                   error = CASE s.becomes WHEN 'invalid' THEN s.reason END
            FROM standing s
            WHERE i.id = s.id AND i.state NOT IN ('pending') AND s.output_state IS DISTINCT FROM s.becomes
            RETURNING s.batch_id, s.state, s.output_state, s.retry, s.becomes
        )
        SELECT batch_id, state, output_state, retry, becomes, count(*) AS moved FROM moved
        GROUP BY 1, 2, 3, 4, 5 ORDER BY 1
        """,  # noqa: S608 - a constant
        ids=ids,
    )
    deltas: dict[tuple[int, int | None], Counter[str]] = defaultdict(Counter)
    for line in moved:
        deltas[line.batch_id, None].update({RequestState.SUCCEEDED: line.moved, line.becomes: line.moved})
        left = deltas[line.batch_id, line.retry]
        left.subtract({line.state: line.moved})
        left.subtract({line.output_state or OutputState.WAITING: line.moved})
    for (batch_id, retry), changed in deltas.items():
        tally(tx, "items", changed, batch_id=batch_id, retry_attempt=retry)


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
            RETURNING i.state, i.output_state, CASE i.failure_class WHEN 'retry' THEN i.attempts END AS retry,
                      r.id AS request_id
        )
        SELECT state, output_state, retry, count(*) AS moved,
               array_agg(request_id) FILTER (WHERE state <> 'succeeded' AND request_id IS NOT NULL) AS failed
        FROM moved GROUP BY 1, 2, 3
        """,
        run=run_id,
        error="Cancelled before it was sent.",
    )
    _tally_turns(tx, run_id, ended, by=1)
    stand_by_earlier(tx, [request_id for line in ended for request_id in line.failed or ()])


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
    again = any(outcome.attempt > 1 and outcome.state == OutputState.INVALID for outcome in outcomes)
    if again or sum(line.moved for line in moved) < len(outcomes):
        requests = db.rows(
            tx,
            "SELECT id FROM requests WHERE batch_id = :batch AND item_id = ANY(CAST(:ids AS bigint[])) ORDER BY id",
            batch=batch_id,
            ids=db.array(outcome.item_id for outcome in outcomes),
        )
        stand_by_earlier(tx, [request_id for (request_id,) in requests])
