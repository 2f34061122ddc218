"""The step `ingest`: a batch's results stream, stored in chunks, each with its states, ledger lines and tally.
Runs in a worker; may run again at any time: a line that is stored already changes nothing. No plugin code runs here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import leaving
from webapp.batches.ahead import ahead
from webapp.batches.books import explain_batch, hold_batch, note
from webapp.batches.completion import batch_over, results_vanished
from webapp.batches.desk import Desk
from webapp.batches.failures import OF_STATE
from webapp.batches.lines import RESULT_COLUMNS, Answer, Chunk, chunks
from webapp.batches.outcomes import Settlement, settle_answered, settle_pending, settle_requests
from webapp.batches.posts import disprove, forget_guess, lock_guess
from webapp.batches.settling import is_gone
from webapp.batches.states import BatchState, FailureClass, RequestState
from webapp.batches.steps import Lease, StepName, due
from webapp.errors import ApiAccount, ApiNotFound, ApiRefused
from webapp.gateway import ApiBatch
from webapp.money import ledger, overrides
from webapp.records.escapes import storable

GONE_WAIT = 300.0  # seconds between looks for results that the API does not give
SHORT_WAIT = 10.0  # seconds before a stream that ended early is fetched again


UNPROVABLE = (
    "It was found in the API's list, and its results hold no line at all, so that nothing tells whether it is ours. "
    "Sent again, it might be paid twice: it waits for a person, and its results are looked at again."
)


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
        prices = overrides.book(tx)
    if batch is None or batch.state != BatchState.INGESTING:
        return None
    billed = ledger.Billed(batch.api_id, batch.account_id, batch.run_id, batch.api_created_at, prices)
    fetch = Fetch(batch, billed)
    try:
        with desk.gateway.results(_api_batch(batch)) as lines:
            for chunk in ahead(Chunk.read(raws, billed) for raws in chunks(lines)):
                _store(lease, fetch, chunk)
                leaving.look()
    except (ApiNotFound, ApiAccount) as error:
        return _gone(desk, lease, batch, error)
    return _close(desk, lease, fetch)


def _gone(desk: Desk, lease: Lease, batch: Any, error: ApiRefused) -> float | None:
    gone = isinstance(error, ApiNotFound) and not batch.proved and is_gone(desk, batch)
    reason = (
        f"The API gives no results of this batch to the present key ({error}) They vanish 29 days after its creation; "
        "until then it is held, not lost: check the key."
    )
    with db.transaction() as tx:
        lease.hold(tx)
        if gone:
            forget_guess(tx, batch)
            return None
        if isinstance(error, ApiNotFound) and results_vanished(tx, desk.settings, batch.id, actor="ingest"):
            return None
        hold_batch(tx, batch.id, storable(reason), actor="ingest")
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


def _store(lease: Lease, fetch: Fetch, chunk: Chunk) -> None:
    """One transaction: results, ledger lines, states and tally of a chunk."""
    fetch.unreadable += chunk.unreadable
    with db.transaction(by_key=True, lazily=True) as tx:
        lease.progress(tx)
        moved = settle_answered(tx, chunk.answered) if fetch.batch.proved and chunk.answers else []
        new = [
            (request_id, chunk.answers[at]) for one in moved for request_id, at in zip(one.ids, one.places, strict=True)
        ]
        fetch.own_lines += sum(len(one.ids) for one in moved if one.batch_id == fetch.batch.id)
        if len(new) < len(chunk.answers):
            new += _rest(tx, fetch, chunk, {at for one in moved for at in one.places})
        _write(tx, new)
        fetch.stored += len(new)


def _rest(tx: Connection, fetch: Fetch, chunk: Chunk, moved: Collection[int]) -> list[tuple[int, Answer]]:
    """Look at the answers of a chunk whose requests were not moved: those that are new, as (request's id, its answer).

    :param moved: the places of the others.
    """
    answers = {answer.custom_id: answer for at, answer in enumerate(chunk.answers) if at not in moved}
    known = _known(tx, fetch, answers)
    fetch.own_lines += sum(request.batch_id == fetch.batch.id for request in known)
    strangers = answers.keys() - {request.custom_id for request in known}
    fetch.strangers += len(strangers)
    fetch.stranger_ids += sorted(strangers)[: max(0, 5 - len(fetch.stranger_ids))]
    late = [request for request in known if request.state in (RequestState.PENDING, RequestState.MISSING)]
    _settle(tx, [(request, answers[request.custom_id]) for request in late])
    old = [request for request in known if request.state == RequestState.SUCCEEDED]
    _write_duplicates(tx, fetch, [(request.id, answers[request.custom_id]) for request in old])
    return [(request.id, answers[request.custom_id]) for request in late]


def _known(tx: Connection, fetch: Fetch, custom_ids: Collection[str]) -> Sequence[Any]:
    """The requests that some lines name, as they stand.

    Not locked: whoever settles one of them meanwhile makes `settle_requests` refuse the chunk.
    """
    known = db.rows(
        tx,
        "SELECT id, custom_id, batch_id, state, failure_class FROM requests "
        "WHERE custom_id = ANY(CAST(:ids AS text[])) ORDER BY id",
        ids=db.array(custom_ids),
    )
    if fetch.batch.proved:
        return known
    # Its lines may be another installation's answers to requests that a copy of it holds too: those of this
    # very batch prove it, the others prove nothing.
    return [request for request in known if request.batch_id == fetch.batch.id]


def _settle(tx: Connection, answers: list[tuple[Any, Answer]]) -> None:
    """Move requests that were read, one by one: those taken for missing, or of a batch that is a guess."""
    settlement = Settlement()
    for request, answer in answers:
        failure = answer.failure
        settlement.add(request, answer.state, failure and failure.kind, failure and failure.message)
    settle_requests(tx, settlement)


def _write(tx: Connection, answers: list[tuple[int, Answer]]) -> None:
    """Store answers that are new: (request's id, its answer) as result and ledger line."""
    db.copy_rows(tx, "results", RESULT_COLUMNS, ((request_id, *answer.result) for request_id, answer in answers))
    ledger.append(
        tx, (ledger.line(answer.bill, request_id, duplicate=False) for request_id, answer in answers if answer.bill)
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


def _close(desk: Desk, lease: Lease, fetch: Fetch) -> float | None:
    """After a stream that ended by itself: is everything in, and what if not (rule 6)?"""
    batch_id = fetch.batch.id
    with db.transaction() as tx:
        lease.hold(tx)
        if not _is_still(tx, fetch):
            return None
        _tell(tx, fetch)
        if not fetch.batch.proved:
            if not fetch.own_lines:
                if not fetch.strangers:
                    # A stream without any line proves nothing, however often it comes: it may be ours, and paid.
                    wait = _missing_after(tx, desk, fetch)
                    if wait is None:
                        hold_batch(tx, batch_id, UNPROVABLE, actor="ingest")
                    return GONE_WAIT if wait is None else wait
                reason = f"Batch {fetch.batch.api_id} of the API holds no line of ours: it is a stranger's"
                disprove(tx, batch_id, fetch.batch.api_id, reason)
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


def _is_still(tx: Connection, fetch: Fetch) -> bool:
    """Whether the stream that was read is still the batch's: a guess gives way to the answer of its own POST."""
    if not fetch.batch.proved:
        lock_guess(tx, fetch.batch.id, fetch.batch.api_id)
    now = db.row(tx, "SELECT state, api_id FROM batches WHERE id = :id FOR UPDATE", id=fetch.batch.id)
    return (now.state, now.api_id) == (BatchState.INGESTING, fetch.batch.api_id)


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
