"""The step `ingest`: a batch's results stream, stored in chunks, each with its states, ledger lines and tally.
Runs in a worker; may run again at any time: a line that is stored already changes nothing. No plugin code runs here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.batches.ahead import ahead
from webapp.batches.completion import batch_over, results_vanished
from webapp.batches.desk import Desk
from webapp.batches.failures import OF_STATE, STATES, Failure, of_error
from webapp.batches.settling import disprove
from webapp.batches.states import (
    BatchState,
    FailureClass,
    RequestState,
    Settlement,
    explain_batch,
    hold_batch,
    note,
    settle_pending,
    settle_requests,
)
from webapp.batches.steps import Lease, StepName, due
from webapp.errors import ApiAccount, ApiNotFound, ApiRefused
from webapp.gateway import ApiBatch
from webapp.money import ledger
from webapp.records import jsontext
from webapp.records.escapes import storable

CHUNK_LINES = 1000
CHUNK_BYTES = 8_000_000
GONE_WAIT = 300.0  # seconds between looks for results that the API does not give
SHORT_WAIT = 10.0  # seconds before a stream that ended early is fetched again

UNPROVABLE = (
    "It was found in the API's list, and its results hold no line at all, so that nothing tells whether it is ours. "
    "Sent again, it might be paid twice: it waits for a person, and its results are looked at again."
)

CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # the API's own rule; others are no ids, and some no text for a query
RESULT_COLUMNS = ("request_id", "kind", "stop_reason", "error_type", "error_message", "size", "line")


class Line(NamedTuple):
    """One line of results, parsed; `result` is what the API says of the request."""

    raw: bytes
    custom_id: str
    kind: str
    result: dict[str, Any]


class Answer(NamedTuple):
    """What a line says of its request, ready to be stored.

    :param result: a row in the order of `RESULT_COLUMNS`, but for the request's id.
    :param bill: what the ledger says of it; None: nothing was billed.
    """

    custom_id: str
    state: RequestState
    failure: Failure | None
    result: tuple[Any, ...]
    bill: ledger.Bill | None


class Chunk(NamedTuple):
    """Answers to be stored together, by their custom_id."""

    answers: dict[str, Answer]
    unreadable: int

    @classmethod
    def read(cls, raws: Iterable[bytes], billed: ledger.Billed) -> Chunk:
        """The first answer of each custom_id, and how many lines are none."""
        answers: dict[str, Answer] = {}
        unreadable = 0
        for raw in raws:
            line = parse(raw)
            if line is None:
                unreadable += 1
            elif line.custom_id not in answers:
                answers[line.custom_id] = _answer(line, billed)
        return cls(answers, unreadable)


@dataclass(slots=True)
class Fetch:
    """What one pass over a results stream has seen."""

    batch: Any
    billed: ledger.Billed
    own_lines: int = 0  # lines of this very batch: they prove an adoption
    stored: int = 0  # answers that were not known before
    strangers: int = 0
    stranger_ids: list[str] = field(default_factory=list)
    unreadable: int = 0


def ingest(desk: Desk, lease: Lease) -> float | None:
    """Store what the results stream holds. Seconds until it is to be fetched again, or None when all is in."""
    with db.transaction() as tx:
        batch = db.row(
            tx,
            "SELECT b.*, EXISTS (SELECT 1 FROM events e WHERE e.batch_id = b.id AND e.kind = 'move' "
            "AND e.to_state = 'done') AS again FROM batches b WHERE b.id = :id",
            id=lease.target_id,
        )
    if batch is None or batch.state != BatchState.INGESTING:
        return None
    billed = ledger.Billed(batch.api_id, batch.account_id, batch.run_id, batch.api_created_at)
    fetch = Fetch(batch, billed)
    try:
        with desk.gateway.results(_api_batch(batch)) as lines:
            for chunk in ahead(Chunk.read(raws, billed) for raws in _chunks(lines)):
                _store(lease, fetch, chunk)
    except (ApiNotFound, ApiAccount) as error:
        return _gone(desk, lease, batch.id, error)
    return _close(desk, lease, fetch)


def _gone(desk: Desk, lease: Lease, batch_id: int, error: ApiRefused) -> float | None:
    reason = (
        f"The API gives no results of this batch to the present key ({error}) They vanish 29 days after its creation; "
        "until then it is held, not lost: check the key."
    )
    with db.transaction() as tx:
        lease.hold(tx)
        if isinstance(error, ApiNotFound) and results_vanished(tx, desk.settings, batch_id, actor="ingest"):
            return None
        hold_batch(tx, batch_id, storable(reason), actor="ingest")
    return GONE_WAIT


def _api_batch(batch: Any) -> ApiBatch:
    return ApiBatch(
        id=batch.api_id,
        processing_status=batch.processing_status,
        counts=batch.api_counts or {},
        created_at=batch.api_created_at,
        ended_at=batch.api_ended_at,
        expires_at=batch.expires_at,
        archived_at=None,
        results_url=batch.results_url,
    )


def _chunks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines in chunks bounded by count and bytes; blank lines are left out."""
    chunk: list[bytes] = []
    size = 0
    for raw in lines:
        line = raw.rstrip(b"\r")
        if not line.strip():
            continue
        chunk.append(line)
        size += len(line)
        if len(chunk) == CHUNK_LINES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def parse(raw: bytes) -> Line | None:
    """One line of results, or None when it is none: cut, not JSON, without id, of a type unknown to us."""
    try:
        value = jsontext.loads(raw)
        identifier, result = value["custom_id"], value["result"]
        kind = result["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(identifier, str) or not CUSTOM_ID.fullmatch(identifier):
        return None
    if not isinstance(kind, str) or kind not in STATES:
        return None
    if kind == "succeeded" and not isinstance(result.get("message"), dict):
        return None
    return Line(raw, identifier, kind, result)


def _answer(line: Line, billed: ledger.Billed) -> Answer:
    state = STATES[line.kind]
    size_and_line = (len(line.raw), line.raw.decode())
    if state == RequestState.SUCCEEDED:
        message = line.result["message"]
        result = (line.kind, _text(message.get("stop_reason")), None, None, *size_and_line)
        return Answer(line.custom_id, state, None, result, ledger.bill(billed, line.custom_id, message))
    failure = OF_STATE[state] if state in OF_STATE else of_error(line.result)
    failure = Failure(failure.kind, _text(failure.type), storable(failure.message))
    return Answer(
        line.custom_id, state, failure, (line.kind, None, failure.type, failure.message, *size_and_line), None
    )


def _store(lease: Lease, fetch: Fetch, chunk: Chunk) -> None:
    """One transaction: results, ledger lines, states and tally of a chunk."""
    answers = chunk.answers
    fetch.unreadable += chunk.unreadable
    with db.transaction(by_key=True) as tx:
        lease.progress(tx)
        known = db.rows(
            tx,
            # Not locked: whoever settles one of them meanwhile makes `settle_requests` refuse the chunk.
            "SELECT id, custom_id, batch_id, state FROM requests WHERE custom_id = ANY(CAST(:ids AS text[])) "
            "ORDER BY id",
            ids=db.array(answers),
        )
        _count(fetch, chunk, known)
        new = [request for request in known if request.state in (RequestState.PENDING, RequestState.MISSING)]
        old = [request for request in known if request.state == RequestState.SUCCEEDED]
        _write(tx, [(request, answers[request.custom_id]) for request in new])
        fetch.stored += len(new)
        _write_duplicates(tx, fetch, [(request.id, answers[request.custom_id]) for request in old])


def _count(fetch: Fetch, chunk: Chunk, known: Sequence[Any]) -> None:
    strangers = chunk.answers.keys() - {request.custom_id for request in known}
    fetch.own_lines += sum(request.batch_id == fetch.batch.id for request in known)
    fetch.strangers += len(strangers)
    fetch.stranger_ids += sorted(strangers)[: max(0, 5 - len(fetch.stranger_ids))]


def _write(tx: Connection, answers: list[tuple[Any, Answer]]) -> None:
    """Store answers that are new: state of request and item, result, ledger line."""
    settlement = Settlement()
    for request, answer in answers:
        failure = answer.failure
        settlement.add(request, answer.state, failure and failure.kind, failure and failure.message)
    settle_requests(tx, settlement)
    db.copy_rows(tx, "results", RESULT_COLUMNS, ((request.id, *answer.result) for request, answer in answers))
    ledger.append(
        tx, (ledger.line(answer.bill, request.id, duplicate=False) for request, answer in answers if answer.bill)
    )


def _write_duplicates(tx: Connection, fetch: Fetch, answers: list[tuple[int, Answer]]) -> None:
    """A second paid answer, from another batch of the API, is money but no result: a ledger line marked so."""
    paid = [answer.custom_id for _, answer in answers if answer.bill]
    if not paid:
        return
    listed = ledger.known(tx, fetch.billed.api_batch_id, paid)
    ledger.append(
        tx,
        [
            ledger.line(answer.bill, request_id, duplicate=True)
            for request_id, answer in answers
            if answer.bill and answer.custom_id not in listed
        ],
    )


def _text(value: Any) -> str | None:
    """A string of the API's, fit for a text column."""
    return storable(value) if isinstance(value, str) else None


def _close(desk: Desk, lease: Lease, fetch: Fetch) -> float | None:
    """After a stream that ended by itself: is everything in, and what if not (rule 6)?"""
    batch_id = fetch.batch.id
    with db.transaction() as tx:
        lease.hold(tx)
        _tell(tx, fetch)
        if not fetch.batch.proved:
            if not fetch.own_lines:
                if not fetch.strangers:
                    # A stream without any line proves nothing, however often it comes: it may be ours, and paid.
                    wait = _missing_after(tx, desk, fetch)
                    if wait is None:
                        hold_batch(tx, batch_id, UNPROVABLE, actor="ingest")
                    return GONE_WAIT if wait is None else wait
                disprove(tx, batch_id)
                due(tx, StepName.SUBMIT, batch_id)
                return None
            db.run(tx, "UPDATE batches SET proved = true WHERE id = :id", id=batch_id)
        due(tx, StepName.PROCESS, batch_id)
        pending = db.scalar(tx, "SELECT count(*) FROM requests WHERE batch_id = :id AND state = 'pending'", id=batch_id)
        if pending:
            wait = _missing_after(tx, desk, fetch)
            if wait is not None:
                explain_batch(tx, batch_id, _lacking(fetch, pending, _owed(tx, fetch)))
                return wait
            failure = OF_STATE[RequestState.MISSING]
            settle_pending(tx, batch_id, RequestState.MISSING, failure.kind, failure.message)
        if pending or fetch.batch.owed:
            db.run(tx, "UPDATE batches SET owed = :owed WHERE id = :id", owed=_owed(tx, fetch), id=batch_id)
        again = fetch.batch.again
        batch_over(
            tx,
            desk.settings,
            batch_id,
            BatchState.DONE,
            actor="ingest",
            reason=_brought(fetch) if again else None,
            # What was refused before has paused the run then; whoever has resumed it since knows.
            pause=None if again else _refusal(tx, batch_id),
        )
    return None


def _brought(fetch: Fetch) -> str:
    """What another fetch of a batch that was done has brought."""
    return f"Fetched again: {f'{fetch.stored:,} results' if fetch.stored else 'no result'} that had not been stored."


def _owed(tx: Connection, fetch: Fetch) -> int:
    """How many answers the API counts as succeeded beyond those that its results have brought."""
    counted = (fetch.batch.api_counts or {}).get("succeeded", 0)
    stored = db.scalar(
        tx, "SELECT count(*) FROM requests WHERE batch_id = :id AND state = 'succeeded'", id=fetch.batch.id
    )
    return max(0, int(counted) - int(stored))


def _lacking(fetch: Fetch, pending: int, owed: int) -> str:
    counted = f", {owed:,} of which the API counts as answered" if owed else ""
    unread = f" {fetch.unreadable:,} lines cannot be read." if fetch.unreadable else ""
    return f"The results lack {pending:,} requests{counted}.{unread} They are fetched again."


def _age_of_gap(tx: Connection, batch_id: int) -> float:
    """Seconds since a complete stream first lacked lines of this batch; 0 when this is the first one."""
    age = db.scalar(
        tx,
        "UPDATE batches SET incomplete_since = coalesce(incomplete_since, now()) WHERE id = :id "
        "RETURNING extract(epoch FROM now() - incomplete_since)",
        id=batch_id,
    )
    return float(age)


def _missing_after(tx: Connection, desk: Desk, fetch: Fetch) -> float | None:
    """Seconds until the next fetch may decide; None when two complete ones, far enough apart, lacked lines."""
    left = desk.settings.missing_wait - _age_of_gap(tx, fetch.batch.id)
    if fetch.batch.incomplete_since is not None and left <= 0:
        return None
    # The first short stream may just have been cut: look again soon, then once more when it counts.
    return min(SHORT_WAIT, max(left, 0.0)) if fetch.batch.incomplete_since is None else max(left, 0.0)


def _tell(tx: Connection, fetch: Fetch) -> None:
    """An event for what the stream held beside our answers."""
    told = []
    if fetch.strangers:
        told.append(f"{fetch.strangers} lines of unknown custom_id (such as {', '.join(fetch.stranger_ids)})")
    if fetch.unreadable:
        told.append(f"{fetch.unreadable} lines that cannot be read")
    if told:
        note(
            tx,
            run_id=fetch.batch.run_id,
            batch_id=fetch.batch.id,
            actor="ingest",
            reason=f"The results held {' and '.join(told)}.",
        )


def _refusal(tx: Connection, batch_id: int) -> str | None:
    """Why the run must pause: answers of this batch failed for the account's sake, whichever pass has stored them."""
    refusal = db.scalar(
        tx,
        "SELECT i.error FROM requests r JOIN items i ON i.id = r.item_id AND i.attempts = r.attempt "
        "WHERE r.batch_id = :id AND r.failure_class = :account LIMIT 1",
        id=batch_id,
        account=FailureClass.ACCOUNT.value,
    )
    return None if refusal is None else f"The API refuses this account: {refusal}"
