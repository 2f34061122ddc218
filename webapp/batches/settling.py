"""What became of a POST: its outcome recorded, or, without a clear answer, looked for in the API's list.
Called by the submit step (and by ingestion, when an adoption turns out wrong); adopts, plans again, or waits for a
person, whose decisions are in `holding`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import strays
from webapp.batches.accounts import find_account
from webapp.batches.desk import Desk
from webapp.batches.models import SubmissionOutcome
from webapp.batches.proving import Proof, Whose, look_into
from webapp.batches.states import BatchState, explain_batch, hold_batch, move_batch, note
from webapp.batches.steps import Lease, StepName, due
from webapp.errors import ApiAccount, ApiError
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


# Of strays t: those that the POST s of ours may have created. Later than the grace time after its end it creates
# nothing any more: what has come since is somebody else's, or was sent again by the original that this is a copy of.
MAY_BE = """
    t.account_id = s.account_id AND t.total = s.total AND NOT t.api_id = ANY(s.ruled_out)
    AND t.created_at >= s.api_time - :margin
    AND t.created_at <= s.api_time + (s.ended_at - s.intent_at) + GREATEST(:grace, :margin)
    AND NOT EXISTS (SELECT 1 FROM submissions known WHERE known.api_id = t.api_id AND known.outcome = 'created')
    AND NOT EXISTS (SELECT 1 FROM batches known WHERE known.api_id = t.api_id)
"""


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
        return _absent(lease, post)
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


def _same_account(desk: Desk, post: Any) -> bool:
    """Whether the present key sees what the POST's key saw: another account's list proves nothing."""
    identity = desk.gateway.identify()
    with db.transaction() as tx:
        return find_account(tx, desk.settings, identity) == int(post.account_id)


def _hold(lease: Lease, post: Any, reason: str) -> float:
    with db.transaction() as tx:
        if _still_unknown(tx, lease, post):
            hold_batch(tx, post.batch_id, storable(reason), actor="settle")
    return HELD_LOOK


def _absent(lease: Lease, post: Any) -> float:
    with db.transaction() as tx:
        lease.hold(tx)
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


def record_created(
    tx: Connection, batch_id: int, submission_id: int, created: ApiBatch, *, actor: str, proved: bool = True
) -> bool:
    """Record the API's id, stale epoch or not: an id in hand is money at work.

    False when the batch has gone another way meanwhile, so that the API works on something nobody waits for.

    :param proved: False for an adoption, until a line of its results carries one of our custom_ids.
    """
    end_post(tx, submission_id, SubmissionOutcome.CREATED, None, api_id=created.id)
    columns: dict[str, Any] = {
        "api_id": created.id,
        "processing_status": created.processing_status,
        "api_created_at": created.created_at,
        "expires_at": created.expires_at,
        "results_url": created.results_url,
        "proved": proved,
        "incomplete_since": None,
        "cancel_unproved": False,
    }
    if _carries_its_ids(tx, batch_id, submission_id):
        due(tx, StepName.POLL, batch_id)  # before the batch is locked, as the step has it
        # Given up and planned again meanwhile: it is there all the same, and must not be sent a second time.
        move_batch(tx, batch_id, BatchState.SUBMITTING, actor=actor, reason="The answer to an earlier POST came late.")
        if _take(tx, batch_id, columns, actor):
            return True
    run_id = db.scalar(
        tx,
        "SELECT run_id FROM batches WHERE id = :id AND api_id IS DISTINCT FROM :api",
        id=batch_id,
        api=created.id,
    )
    if run_id is not None:
        note(
            tx,
            run_id=run_id,
            batch_id=batch_id,
            actor=actor,
            reason=f"The API also created batch {created.id} for this one, after it was given up: it is cancelled "
            "there, and what it has done by then is paid for and not read.",
        )
    return run_id is None


def _carries_its_ids(tx: Connection, batch_id: int, submission_id: int) -> bool:
    """Whether a POST carried the custom_ids that its batch has now: a copy of the database has drawn others since."""
    others = "SELECT s.place <> b.place FROM submissions s JOIN batches b ON b.id = :batch WHERE s.id = :post"
    return not db.scalar(tx, others, batch=batch_id, post=submission_id)


def _take(tx: Connection, batch_id: int, columns: dict[str, Any], actor: str) -> bool:
    """Give a batch that waits for its id, or has one by a guess, the id of the API's."""
    batch = db.row(tx, "SELECT state, api_id FROM batches WHERE id = :id FOR UPDATE", id=batch_id)
    waits = batch.api_id is None and batch.state in (BatchState.SUBMITTING, BatchState.SUBMIT_UNKNOWN)
    if waits and move_batch(tx, batch_id, BatchState.IN_PROGRESS, actor=actor, **columns):
        return True
    if not columns["proved"]:
        return False
    if batch.api_id == columns["api_id"]:
        # The guess was right: its own answer is proof enough.
        db.run(tx, "UPDATE batches SET proved = true WHERE id = :id AND NOT proved", id=batch_id)
        return True
    return _replace_guess(tx, batch_id, columns, actor)


def _replace_guess(tx: Connection, batch_id: int, columns: dict[str, Any], actor: str) -> bool:
    """Put the id of our own POST in the place of an adoption that nothing has proved yet."""
    names = ", ".join(f"{name} = :{name}" for name in columns)
    replaced = db.run(
        tx,
        f"UPDATE batches SET {names} WHERE id = :id AND NOT proved AND api_id <> :api_id",  # noqa: S608 - our own names
        id=batch_id,
        **columns,
    )
    if replaced:
        move_batch(tx, batch_id, BatchState.IN_PROGRESS, actor=actor, reason="The answer to its own POST came late.")
    return bool(replaced)


def end_post(
    tx: Connection, submission_id: int, outcome: SubmissionOutcome, error: str | None, api_id: str | None = None
) -> bool:
    """Note what a POST came to; an API id, once known, stays, and so does the time of its end.

    False when something surer is known of it already, by another worker's doing: then nothing may be made of this.
    """
    noted = db.run(
        tx,
        "UPDATE submissions SET outcome = :outcome, error = :error, api_id = coalesce(:api_id, api_id), "
        "ended_at = coalesce(ended_at, now()) WHERE id = :id "
        "AND (outcome IS NULL OR :outcome = 'created' OR (:outcome = 'not_created' AND outcome = 'unknown'))",
        outcome=outcome.value,
        error=storable(error) if error else error,
        api_id=api_id,
        id=submission_id,
    )
    return bool(noted)


def first_break(batch_id: int) -> bool:
    """Whether a POST that broke off before it was armed is the first one of its batch lately."""
    broken = "SELECT count(*) FROM submissions WHERE batch_id = :id AND outcome = 'not_created' AND armed_at IS NULL "
    with db.transaction() as tx:
        return bool(db.scalar(tx, broken + "AND ended_at > now() - interval '10 minutes'", id=batch_id) <= 1)


def disprove(tx: Connection, batch_id: int, api_id: str, reason: str, *, for_good: bool = True) -> bool:
    """Undo an adoption of that batch of the API; False when the batch holds another by now, or a line has proved it.

    The POST is unknown again, and the search is due.

    :param for_good: that batch of the API is never taken for it a second time; False when it only cannot be found.
    """
    due(tx, StepName.SUBMIT, batch_id)
    guessed = db.scalar(
        tx, "SELECT 1 FROM batches WHERE id = :id AND api_id = :api AND NOT proved FOR UPDATE", id=batch_id, api=api_id
    )
    if guessed is None:
        return False
    undone = move_batch(
        tx,
        batch_id,
        BatchState.SUBMIT_UNKNOWN,
        actor="ingest",
        reason=f"{reason}, and the search goes on.",
        api_id=None,
        proved=True,
        processing_status=None,
        api_counts=None,
        incomplete_since=None,
    )
    if undone:
        db.run(
            tx,
            "UPDATE submissions SET outcome = 'unknown', api_id = NULL, "
            "ruled_out = CASE WHEN :for_good THEN ruled_out || CAST(:api AS text) ELSE ruled_out END "
            "WHERE batch_id = :id AND api_id = :api",
            for_good=for_good,
            api=api_id,
            id=batch_id,
        )
    return undone
