"""What people decide about a batch whose POST is unknown: take a batch of the API for it, send it again, give it up.
Each is one short transaction, guarded by the state: whoever comes second, a click or a worker, changes nothing.

Each makes the submit step due first and locks the POST and the batch after, as the search does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches.books import note
from webapp.batches.completion import batch_over
from webapp.batches.outcomes import settle_pending
from webapp.batches.posts import disprove, end_post, lock_guess, record_created
from webapp.batches.settling import MAY_BE, may_be
from webapp.batches.states import BatchState, FailureClass, RequestState, SubmissionOutcome, move_batch
from webapp.batches.steps import StepName, due
from webapp.errors import NotFound, Refused
from webapp.gateway import ApiBatch
from webapp.settings import Settings


def candidates(tx: Connection, settings: Settings, batch_id: int) -> list[Any]:
    """Batches of the API that the unknown POST of a batch may have created, as the last list showed them."""
    return list(
        db.rows(
            tx,
            "SELECT t.api_id, t.total, t.created_at, t.expires_at, t.processing_status, t.api_counts, t.last_seen_at "  # noqa: S608
            f"FROM strays t JOIN submissions s ON {MAY_BE} WHERE s.batch_id = :id AND s.outcome = 'unknown' "
            "ORDER BY t.created_at, t.api_id",
            id=batch_id,
            **may_be(settings),
        )
    )


def adopt(tx: Connection, settings: Settings, batch_id: int, api_id: str, *, actor: str) -> None:
    """Take a batch of the API for ours: as a guess, until a line of its results proves it or tells otherwise.

    :raises Refused: the batch waits for no decision, or that batch of the API cannot be it.
    """
    post = _unknown_post(tx, batch_id)
    chosen = next((one for one in candidates(tx, settings, batch_id) if one.api_id == api_id), None)
    if chosen is None:
        raise Refused(f"{api_id} is not, or no longer, among the batches of the API that batch {batch_id} may be.")
    note(tx, run_id=post.run_id, batch_id=batch_id, actor=actor, reason=f"Taken for {api_id} by a person.", kind="wish")
    record_created(tx, batch_id, post.id, _api_batch(chosen), actor=actor, proved=False)


def resend(tx: Connection, batch_id: int, *, actor: str) -> None:
    """Give the unknown POST up and send the batch again. What that POST may have created is paid for besides.

    :raises Refused: the batch waits for no decision.
    """
    post = _unknown_post(tx, batch_id)
    end_post(tx, post.id, SubmissionOutcome.NOT_CREATED, f"Given up by {actor}: sent again without knowing.")
    reason = f"Sent again by {actor}, though the API may have created it: what it did then is paid twice."
    move_batch(tx, batch_id, BatchState.PLANNED, actor=actor, reason=reason)


def abandon(tx: Connection, settings: Settings, batch_id: int, *, actor: str) -> None:
    """Give the batch up: its requests end as errored. What the API may have done of it is paid for and not read.

    :raises Refused: the batch waits for no decision.
    """
    post = _unknown_post(tx, batch_id)
    end_post(tx, post.id, SubmissionOutcome.NOT_CREATED, f"Given up by {actor}.")
    reason = f"Given up by {actor} without knowing whether the API created it."
    settle_pending(tx, batch_id, RequestState.ERRORED, FailureClass.STOPPED, reason)
    batch_over(tx, settings, batch_id, BatchState.FAILED, actor=actor, reason=reason)


def disown(tx: Connection, batch_id: int, *, actor: str) -> None:
    """Take back a guess whose results hold no line, so that nothing proves it: the search for the POST goes on.

    That batch of the API is not taken for it again. Where nothing else is found, the batch is sent again: if the guess
    was right, it is paid twice.

    :raises NotFound: there is no such batch.
    :raises Refused: it is no guess that waits for a decision.
    """
    batch = db.row(tx, "SELECT state, api_id, proved, held FROM batches WHERE id = :id", id=batch_id)
    if batch is None:
        raise NotFound(f"There is no batch {batch_id}.")
    if batch.state == BatchState.INGESTING and batch.held and not batch.proved:
        lock_guess(tx, batch_id, batch.api_id)
        reason = f"{actor} says that batch {batch.api_id} of the API is not ours"
        if disprove(tx, batch_id, batch.api_id, reason):
            return
    raise Refused(f"Batch {batch_id} is no guess that waits for a decision.")


def _unknown_post(tx: Connection, batch_id: int) -> Any:
    """The unknown POST of a batch, locked with it; its submit step is due.

    :raises NotFound: there is no such batch.
    :raises Refused: it waits for no decision.
    """
    state = db.scalar(tx, "SELECT state FROM batches WHERE id = :id", id=batch_id)
    if state is None:
        raise NotFound(f"There is no batch {batch_id}.")
    if state == BatchState.SUBMIT_UNKNOWN:
        due(tx, StepName.SUBMIT, batch_id)
    post = db.row(
        tx,
        "SELECT s.id, (SELECT run_id FROM batches WHERE id = :id) AS run_id FROM submissions s "
        "WHERE s.batch_id = :id AND s.outcome = 'unknown' FOR UPDATE",
        id=batch_id,
    )
    state = db.scalar(tx, "SELECT state FROM batches WHERE id = :id FOR UPDATE", id=batch_id)
    if post is None or state != BatchState.SUBMIT_UNKNOWN:
        raise Refused(f"Batch {batch_id} is {state}: it waits for no decision any more.")
    return post


def _api_batch(stray: Any) -> ApiBatch:
    created_at: datetime = stray.created_at
    return ApiBatch(
        id=stray.api_id,
        processing_status=stray.processing_status,
        counts=stray.api_counts,
        created_at=created_at,
        ended_at=None,
        expires_at=stray.expires_at,
        archived_at=None,
        results_url=None,
    )
