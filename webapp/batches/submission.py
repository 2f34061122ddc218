"""The step `submit`: intent committed, one POST, the API's id recorded; or what became of an earlier POST.
Runs in a worker. Rule 3 of the design lives here: nobody pays twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from webapp import db
from webapp.batches import (
    encoding,
    leaving,
    naming,
    settling,
    vanguard,
)
from webapp.batches.accounts import find_account, relieve, requests_at_the_api, throttle, throttled_for
from webapp.batches.body import body_pieces
from webapp.batches.books import explain_batch, hold_batch
from webapp.batches.completion import batch_over, pause_run
from webapp.batches.desk import Desk
from webapp.batches.outcomes import settle_pending
from webapp.batches.posts import end_post, first_break, record_created
from webapp.batches.sharding import split
from webapp.batches.states import BatchState, FailureClass, RequestState, RunState, SubmissionOutcome, move_batch
from webapp.batches.steps import Lease
from webapp.errors import (
    ApiAccount,
    ApiError,
    ApiNotFound,
    ApiRefused,
    ApiThrottled,
    ApiTooLarge,
    ApiUnclear,
    BatchdeskError,
    Leaving,
)
from webapp.gateway import ApiBatch
from webapp.money import caps
from webapp.records.escapes import storable

log = logging.getLogger("batchdesk")

API_DOWN_WAIT = 30.0  # seconds before a batch that was certainly not created is tried again
THROTTLE_WAIT = 60.0  # seconds, when a 429 does not say how long
SAME_TOTAL_WAIT = 2.0  # seconds between looks while another POST of the same total is open
UNSETTLED_WAIT = 30.0  # ... and while it is unknown
ROOM_WAIT = 15.0  # seconds between looks of the first in line for room in the API's queue
CAP_WAIT = 30.0  # seconds between looks while what is under way may leave room under a cap
RECORD_PATIENCE = 600.0


class NotArmed(BatchdeskError):
    """The body was held back: the run was paused or cancelled while it was being sent."""


@dataclass(slots=True)
class Sending:
    """One batch on its way out.

    `armed` turns true when the last bytes may be sent: from then on the POST may have created a batch. `whole` does
    when they have been: a connection that failed on them, without any answer, has created nothing.
    """

    batch_id: int
    run_id: int
    account_id: int
    submission_id: int
    total: int
    body_bytes: int
    armed: bool = False
    whole: bool = False


def submit(desk: Desk, lease: Lease) -> float | None:
    """Move a batch on towards the API. Seconds until it wants to be looked at again, or None."""
    with db.transaction() as tx:
        batch = db.row(
            tx,
            "SELECT b.id, b.run_id, b.state, b.total, b.body_bytes, b.account_id, r.state AS run_state, "
            "coalesce(b.cancel_wanted_at, r.cancel_wanted_at) IS NOT NULL AS cancel, "
            "r.pause_wanted_at IS NOT NULL AS pause FROM batches b JOIN runs r ON r.id = b.run_id WHERE b.id = :id",
            id=lease.target_id,
        )
    if batch is None:
        return None
    if batch.state == BatchState.SUBMITTING:
        return settling.recover(lease, batch.id)
    if batch.state == BatchState.SUBMIT_UNKNOWN:
        return settling.settle(desk, lease)
    if batch.state != BatchState.PLANNED:
        return None
    if batch.cancel:
        with db.transaction() as tx:
            lease.hold(tx)
            _discard(tx, desk, batch.id)
        return None
    if batch.pause or batch.run_state == RunState.PAUSED:
        return None  # resuming makes it due again
    return _send(desk, lease, batch)


def _discard(tx: Connection, desk: Desk, batch_id: int) -> None:
    """End a batch that was never sent: its requests are stopped."""
    reason = "Cancelled before it was sent."
    settle_pending(tx, batch_id, RequestState.STOPPED, FailureClass.STOPPED, reason)
    batch_over(tx, desk.settings, batch_id, BatchState.DISCARDED, actor="submit", reason=reason)


def _send(desk: Desk, lease: Lease, batch: Any) -> float | None:
    with db.transaction() as tx:
        lease.hold(tx)
        ahead = vanguard.in_front(tx, batch.id)
        if ahead is not None:
            explain_batch(tx, batch.id, ahead.words)
            return ahead.seconds
        wait = (throttled_for(tx, batch.account_id) if batch.account_id else 0.0) or _in_the_way(tx, batch)
    if wait:
        return wait
    try:
        identity = desk.gateway.identify()
    except ApiError as error:
        return _not_sent(lease, batch, batch.account_id, error)
    with db.transaction() as tx:
        lease.hold(tx)
        account_id = find_account(tx, desk.settings, identity)
        wait = throttled_for(tx, account_id) or _no_room(tx, desk, batch, account_id)
        if wait:
            return wait
        barred = caps.bar(tx, batch, account_id)
        if barred is not None:
            return _barred(tx, batch, barred)
        submission_id = _intend(tx, batch, account_id, identity.api_time)
    if submission_id is None:
        return SAME_TOTAL_WAIT
    sending = Sending(batch.id, batch.run_id, account_id, submission_id, batch.total, batch.body_bytes)
    try:
        created = desk.gateway.create(_body(sending, lease), batch.body_bytes)
    except ApiError as error:
        return _answered(desk, lease, sending, error)
    except (NotArmed, Leaving) as error:
        with db.transaction() as tx:
            if end_post(tx, sending.submission_id, SubmissionOutcome.NOT_CREATED, f"Held back: {error}"):
                move_batch(tx, sending.batch_id, BatchState.PLANNED, actor="submit")
        if isinstance(error, Leaving):
            raise
        return 0.0
    _record(desk, sending, created)
    return None


def _in_the_way(tx: Connection, batch: Any) -> float:
    """Seconds to wait for another POST of the same total that is open or unknown; 0.0: there is none.

    Asked of the database before the API is: an unknown POST may stand in the way for long.
    """
    other = db.row(
        tx,
        "SELECT s.batch_id, s.outcome, b.held FROM submissions s JOIN batches b ON b.id = s.batch_id "
        "WHERE s.total = :total AND (s.outcome IS NULL OR s.outcome = 'unknown') "
        "AND (s.account_id = :account OR CAST(:account AS bigint) IS NULL) ORDER BY b.held DESC LIMIT 1",
        total=batch.total,
        account=batch.account_id,
    )
    if other is None:
        return 0.0
    if other.outcome is None:
        return SAME_TOTAL_WAIT
    reason = f"It waits for batch {other.batch_id} of the same total, whose POST is not settled yet."
    if other.held:
        hold_batch(tx, batch.id, reason, actor="submit")
    else:
        explain_batch(tx, batch.id, reason)
    return UNSETTLED_WAIT


def _no_room(tx: Connection, desk: Desk, batch: Any, account_id: int) -> float:
    """Seconds to wait while the API's queue of this account is full; 0.0: there is room.

    The longer the line before a batch, the longer its wait: whoever is first looks often, and has the room.
    """
    limit, busy = desk.settings.queue_limit, requests_at_the_api(tx, account_id)
    if not limit or not busy or busy + batch.total <= limit:
        return 0.0
    words = f"the API has {busy:,} requests of this account in processing, and {limit:,} are allowed"
    explain_batch(tx, batch.id, f"It waits for room: {words} (BATCHDESK_QUEUE_LIMIT).")
    place: int = db.scalar(
        tx,
        "SELECT count(*) FROM batches WHERE run_id = :run AND state = 'planned' AND id <= :id",
        run=batch.run_id,
        id=batch.id,
    )
    return ROOM_WAIT * place


def _barred(tx: Connection, batch: Any, barred: caps.Bar) -> float | None:
    """A cap stands in the way: what is under way may make room, else the run waits for a person; nothing fails."""
    explain_batch(tx, batch.id, storable(barred.words))
    if barred.waits:
        return CAP_WAIT
    pause_run(tx, batch.run_id, storable(barred.words), actor=caps.ACTOR)
    return None


def _record(desk: Desk, sending: Sending, created: ApiBatch) -> None:
    """Write the API's id down, however long the database is away: it is known here and nowhere else."""
    deadline = time.monotonic() + RECORD_PATIENCE
    while True:
        try:
            with db.transaction() as tx:
                kept = record_created(tx, sending.batch_id, sending.submission_id, created, actor="submit")
                relieve(tx, sending.account_id)
            break
        except SQLAlchemyError as error:
            log.warning(
                "Batch %s is %s at the API; the database is away: %s",
                sending.batch_id,
                created.id,
                str(error).splitlines()[0],
            )
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
    if not kept:
        # Nobody waits for it any more. What it has done by now is paid for, the rest need not be.
        with suppress(ApiError):
            desk.gateway.cancel(created.id)


def _intend(tx: Connection, batch: Any, account_id: int, api_time: Any) -> int | None:
    """Commit to one POST; None while another of the same total is open or unknown in this account."""
    submission_id: int | None = db.scalar(
        tx,
        f"INSERT INTO submissions (batch_id, account_id, total, api_time, place) "  # noqa: S608 - a constant
        f"VALUES (:batch, :account, :total, :api_time, {naming.PLACE}) "
        "ON CONFLICT DO NOTHING RETURNING id",
        batch=batch.id,
        account=account_id,
        total=batch.total,
        api_time=api_time,
    )
    if submission_id is not None:
        naming.draw_again(tx, batch.id)
        move_batch(tx, batch.id, BatchState.SUBMITTING, actor="submit", account_id=account_id)
    return submission_id


def _body(sending: Sending, lease: Lease) -> Iterator[bytes]:
    """The JSON body in pieces; its last bytes are handed out only after arming."""
    yield from body_pieces(sending.run_id, sending.batch_id)
    _arm(sending, lease)
    yield encoding.TAIL
    # Asked for more: the last bytes were written. Where writing them failed, nobody asks.
    sending.whole = True


def _arm(sending: Sending, lease: Lease) -> None:
    """The last look before the point of no return; not armed means certainly not created.

    :raises NotArmed: the run was paused or cancelled meanwhile.
    :raises Fenced: another worker has taken this over.
    """
    with db.transaction() as tx:
        lease.hold(tx)
        stopped = db.scalar(
            tx,
            "SELECT coalesce(b.cancel_wanted_at, r.cancel_wanted_at, r.pause_wanted_at) IS NOT NULL "
            "OR r.state = 'paused' OR b.state <> 'submitting' "
            "FROM batches b JOIN runs r ON r.id = b.run_id WHERE b.id = :id",
            id=sending.batch_id,
        )
        if stopped:
            raise NotArmed("The run was stopped before its last bytes were sent.")
        armed = db.run(
            tx,
            "UPDATE submissions SET armed_at = now() WHERE id = :id AND outcome IS NULL AND armed_at IS NULL",
            id=sending.submission_id,
        )
        if not armed:
            raise NotArmed("The submission was given up before its last bytes were sent.")
        # Before the commit: if the commit's answer is lost, it may have happened.
        sending.armed = True
        leaving.must_finish()


def _answered(desk: Desk, lease: Lease, sending: Sending, error: ApiError) -> float | None:
    """What a POST that did not simply succeed comes to."""
    with db.transaction() as tx:
        # Whoever answers may have had the whole of it, whatever became of our last bytes.
        unknown = sending.armed and not isinstance(error, ApiRefused) and (sending.whole or error.status is not None)
        outcome = SubmissionOutcome.UNKNOWN if unknown else SubmissionOutcome.NOT_CREATED
        if not end_post(tx, sending.submission_id, outcome, str(error)):
            return None  # this worker was taken for dead, and another has settled it
        if unknown:
            move_batch(tx, sending.batch_id, BatchState.SUBMIT_UNKNOWN, actor="submit", reason=_unknown(error))
            return settling.FIRST_LOOK
        if isinstance(error, ApiTooLarge):
            _too_large(tx, desk, sending, error)
            return None
        if type(error) is ApiRefused:
            _fail(tx, desk, sending.batch_id, f"The API refused the batch: {error}")
            return None
        move_batch(tx, sending.batch_id, BatchState.PLANNED, actor="submit", reason=str(error))
    wait = _not_sent(lease, sending, sending.account_id, error)
    # Broken off before its end: it goes again at once, but not again and again.
    return 0.0 if isinstance(error, ApiUnclear) and first_break(sending.batch_id) else wait


def _unknown(error: ApiError) -> str:
    return f"Whether the API created this batch is not known yet ({error}) {settling.SEARCHED}"


def _not_sent(lease: Lease, batch: Any, account_id: int | None, error: ApiError) -> float | None:
    """Nothing was created: when to try again, or the run paused for a person. The batch says why."""
    with db.transaction() as tx:
        lease.hold(tx)
        explain_batch(tx, lease.target_id, storable(f"It could not be sent yet: {error}"))
    if isinstance(error, ApiThrottled):
        wait = error.retry_after or THROTTLE_WAIT
        if account_id is not None:
            with db.transaction() as tx:
                throttle(tx, account_id, wait)
        return wait
    if isinstance(error, ApiAccount | ApiNotFound):
        with db.transaction() as tx:
            lease.hold(tx)
            pause_run(tx, batch.run_id, storable(f"The API refuses this account: {error}"), actor="submit")
        return None
    return API_DOWN_WAIT


def _too_large(tx: Connection, desk: Desk, sending: Sending, error: ApiError) -> None:
    if sending.total == 1:
        _fail(tx, desk, sending.batch_id, f"One request alone is too large for the API: {error}")
        return
    reason = "The API found it too large: its requests went on in two smaller batches."
    if move_batch(tx, sending.batch_id, BatchState.DISCARDED, actor="submit", reason=reason):
        split(tx, sending.batch_id)
    else:  # another worker took this POST for unknown: sent again, it is split the next time
        move_batch(tx, sending.batch_id, BatchState.PLANNED, actor="submit", reason=str(error))


def _fail(tx: Connection, desk: Desk, batch_id: int, reason: str) -> None:
    """End a batch that the API will never take: its requests end as errored with the reason."""
    settle_pending(tx, batch_id, RequestState.ERRORED, FailureClass.FIX, reason)
    batch_over(tx, desk.settings, batch_id, BatchState.FAILED, actor="submit", reason=reason)
