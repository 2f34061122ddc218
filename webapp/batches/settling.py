"""What became of a POST without a clear answer: looked for in the API's list.
Called by the submit step; adopts, plans again, or waits for a person, whose decisions are in `holding`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import strays
from webapp.batches.accounts import find_account
from webapp.batches.books import explain_batch, hold_batch, note
from webapp.batches.desk import Desk
from webapp.batches.posts import end_post, record_created
from webapp.batches.proving import Proof, Whose, look_into
from webapp.batches.states import BatchState, SubmissionOutcome, move_batch
from webapp.batches.steps import Lease
from webapp.errors import ApiAccount, ApiError, ApiNotFound
from webapp.gateway import ApiBatch
from webapp.records.escapes import storable
from webapp.settings import Settings

FIRST_LOOK = 2.0  # seconds after the POST ended without an answer
LOOK_AGAIN = 30.0
HELD_LOOK = 300.0
NAMED = 5  # candidates that a reason names
SEARCHED = "It is looked for in the API's list."
# The API's clock may differ between its machines, and the intent is older than the batch.
CLOCK_MARGIN = timedelta(minutes=10)
OTHER_ACCOUNT = (
    "It was sent with the key of another account, so only that account's list can show it: put that key back;"
)


# Of batches t at the API: those that the POST s of ours may have created. Later than the grace time after its end it
# creates nothing any more: what has come since is somebody else's, or was sent again by the original that this is a
# copy of.
FITS = """
    t.account_id = s.account_id AND t.total = s.total AND NOT t.api_id = ANY(s.ruled_out)
    AND t.created_at >= s.api_time - :margin
    AND t.created_at <= s.api_time + (s.ended_at - s.intent_at) + GREATEST(:grace, :margin)
"""
# Of strays t: those of them that no row of ours knows.
MAY_BE = f"""
    {FITS}
    AND NOT EXISTS (SELECT 1 FROM submissions known WHERE known.api_id = t.api_id AND known.outcome = 'created')
    AND NOT EXISTS (SELECT 1 FROM batches known WHERE known.api_id = t.api_id)
"""  # noqa: S608 - a constant


def may_be(settings: Settings) -> dict[str, timedelta]:
    """What `MAY_BE` binds."""
    return {"margin": CLOCK_MARGIN, "grace": timedelta(seconds=settings.unknown_grace)}


def settle(desk: Desk, lease: Lease) -> float | None:
    """Look for the batch of an unknown POST. Seconds until the next look, or None when it is settled."""
    with db.transaction() as tx:
        post = db.row(
            tx,
            "SELECT s.id, s.batch_id, s.account_id, s.total, s.api_time, b.run_id, b.held, "
            "extract(epoch FROM now() - s.ended_at) AS age "
            "FROM submissions s JOIN batches b ON b.id = s.batch_id "
            "WHERE s.batch_id = :id AND s.outcome = 'unknown'",
            id=lease.target_id,
        )
    if post is None:
        return None
    try:
        if not _same_account(desk, post):
            return _hold(lease, post, f"{OTHER_ACCOUNT} it waits for a person.")
        candidates, complete = _candidates(desk, lease, post)
    except ApiAccount as error:
        return _hold(lease, post, f"The API refuses this account ({error}), so that its list cannot be searched.")
    except ApiError as error:
        with db.transaction() as tx:
            if _still_unknown(tx, lease, post):
                reason = f"{SEARCHED} The API's list cannot be read just now: {error}"
                explain_batch(tx, post.batch_id, storable(reason))
        return max(error.retry_after or 0.0, LOOK_AGAIN)
    undecided = []
    for candidate in candidates:
        proof = look_into(desk.gateway, candidate, post.batch_id)
        if proof.whose == Whose.OURS:
            return _adopt(lease, post, candidate, proof)
        if proof.whose == Whose.STRANGERS:
            _rule_out(lease, post, candidate, proof)
        else:
            undecided.append(candidate)
    return _decide(desk, lease, post, undecided, complete)


def _decide(desk: Desk, lease: Lease, post: Any, candidates: list[ApiBatch], complete: bool) -> float | None:
    """What is left once those that have ended have told whose they are."""
    if len(candidates) == 1:
        return _adopt(lease, post, candidates[0], None)
    if candidates:
        names = ", ".join(batch.id for batch in candidates[:NAMED])
        more = ", …" if len(candidates) > NAMED else ""
        return _hold(
            lease,
            post,
            f"{len(candidates)} batches at the API may be this one ({names}{more}), and none has ended and told yet: "
            "it waits for a person, or for one of them to end.",
        )
    if complete and post.age >= desk.settings.unknown_grace:
        return _absent(desk, lease, post)
    _release(lease, post)
    left = desk.settings.unknown_grace - float(post.age)
    return min(LOOK_AGAIN, max(left, 1.0))


def _still_unknown(tx: Connection, lease: Lease, post: Any) -> bool:
    """Whether the POST is as it was when the look began: its own answer, or a person, may have come between."""
    lease.hold(tx)
    found = db.scalar(tx, "SELECT 1 FROM submissions WHERE id = :id AND outcome = 'unknown' FOR UPDATE", id=post.id)
    return found is not None


def _release(lease: Lease, post: Any) -> None:
    """A batch that was held and has a candidate no more is only searched for."""
    if post.held:
        with db.transaction() as tx:
            if _still_unknown(tx, lease, post):
                explain_batch(tx, post.batch_id, SEARCHED)


def _candidates(desk: Desk, lease: Lease, post: Any) -> tuple[list[ApiBatch], bool]:
    """Batches of the API that this POST may have created, and whether the listing reached far enough to say so.

    What the list shows is kept for the pages, which offer the same candidates to people.
    """
    since = post.api_time - CLOCK_MARGIN
    seen, complete = strays.listed(desk.gateway, since)
    with db.transaction() as tx:
        lease.hold(tx)
        strays.keep(tx, post.account_id, seen, since if complete else None)
        found = {
            api_id
            for (api_id,) in db.rows(
                tx,
                f"SELECT t.api_id FROM strays t JOIN submissions s ON {MAY_BE} WHERE s.id = :id",  # noqa: S608
                id=post.id,
                **may_be(desk.settings),
            )
        }
    return [batch for batch in seen if batch.id in found], complete


def _rule_out(lease: Lease, post: Any, candidate: ApiBatch, proof: Proof) -> None:
    """Never look into a batch again that holds no line of ours."""
    with db.transaction() as tx:
        if not _still_unknown(tx, lease, post):
            return
        db.run(
            tx,
            "UPDATE submissions SET ruled_out = ruled_out || CAST(:api AS text) WHERE id = :id",
            api=candidate.id,
            id=post.id,
        )
        strays.name(tx, post.account_id, candidate.id, proof.custom_id)
        note(
            tx,
            run_id=post.run_id,
            batch_id=post.batch_id,
            actor="settle",
            reason=f"Batch {candidate.id} of the API is not this one: its results hold no line of ours.",
        )


def _adopt(lease: Lease, post: Any, batch: ApiBatch, proof: Proof | None) -> float | None:
    """Take a batch of the API for ours: for good when a line has proved it, else as a guess."""
    why = (
        f"the only batch of {post.total} requests that no row knew."
        if proof is None
        else f"its results hold the answer to our {proof.custom_id}."
    )
    with db.transaction() as tx:
        if not _still_unknown(tx, lease, post):
            return None
        record_created(tx, post.batch_id, post.id, batch, actor="settle", proved=proof is not None)
        note(
            tx,
            run_id=post.run_id,
            batch_id=post.batch_id,
            actor="settle",
            reason=f"Found in the API's list as {batch.id}: {why}",
        )
    return None


def recover(lease: Lease, batch_id: int) -> float:
    """A worker died (or was taken for dead) in the middle of a POST: was it armed?"""
    with db.transaction() as tx:
        lease.hold(tx)
        open_post = db.row(
            tx,
            "SELECT id, armed_at FROM submissions WHERE batch_id = :id AND outcome IS NULL FOR UPDATE",
            id=batch_id,
        )
        if open_post is not None and open_post.armed_at is not None:
            end_post(tx, open_post.id, SubmissionOutcome.UNKNOWN, "The worker died while it waited for the answer.")
            reason = "The worker died while the API was answering. The batch is looked for in the API's list."
            move_batch(tx, batch_id, BatchState.SUBMIT_UNKNOWN, actor="submit", reason=reason)
            return FIRST_LOOK
        if open_post is not None:
            end_post(
                tx, open_post.id, SubmissionOutcome.NOT_CREATED, "The worker died before the last bytes were sent."
            )
        move_batch(tx, batch_id, BatchState.PLANNED, actor="submit")
    return 0.0


def _same_account(desk: Desk, post: Any) -> bool:
    """Whether the present key sees what the POST's key saw: another account's list proves nothing."""
    identity = desk.gateway.identify()
    with db.transaction() as tx:
        return find_account(tx, desk.settings, identity) == int(post.account_id)


def is_gone(desk: Desk, batch: Any) -> bool:
    """Whether a batch of the API, asked for once more, is not there for a key of the account that it was seen in.

    :param batch: a row with `api_id` and `account_id`.
    """
    try:
        desk.gateway.retrieve(batch.api_id)
    except ApiNotFound:
        pass
    except ApiError:
        return False
    else:
        return False
    try:
        return _same_account(desk, batch)
    except ApiError:
        return False


def _hold(lease: Lease, post: Any, reason: str) -> float:
    with db.transaction() as tx:
        if _still_unknown(tx, lease, post):
            hold_batch(tx, post.batch_id, storable(reason), actor="settle")
    return HELD_LOOK


def _absent(desk: Desk, lease: Lease, post: Any) -> float:
    """The API does not have it: it is planned again, unless another batch's guess may be this one."""
    with db.transaction() as tx:
        lease.hold(tx)
        other = _guessed_by_another(tx, desk.settings, post)
        if other is not None:
            reason = f"The API's list shows no other that it may be than the one that batch {other} was taken for. It "
            explain_batch(tx, post.batch_id, reason + "waits until the results of that one tell whose it is.")
            return HELD_LOOK
        if not end_post(tx, post.id, SubmissionOutcome.NOT_CREATED, None):
            return 0.0  # its answer came after all
        move_batch(
            tx,
            post.batch_id,
            BatchState.PLANNED,
            actor="settle",
            reason="The API's complete list does not show it: it was never created, and is sent again.",
        )
    return 0.0


def _guessed_by_another(tx: Connection, settings: Settings, post: Any) -> int | None:
    """Another batch of ours that holds, by a guess that nothing has proved, what this POST may have created."""
    found: int | None = db.scalar(
        tx,
        f"""
        SELECT t.id FROM submissions s JOIN (
            SELECT id, account_id, total, api_id, api_created_at AS created_at FROM batches
            WHERE NOT proved AND state IN ('in_progress', 'canceling', 'ingesting')
        ) AS t ON {FITS} WHERE s.id = :id AND s.outcome = 'unknown' AND t.id <> s.batch_id LIMIT 1
        """,  # noqa: S608 - a constant
        id=post.id,
        **may_be(settings),
    )
    return found
