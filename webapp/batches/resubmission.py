"""The step `resubmit`: failures become new attempts in new batches, by rule or because a person asked.
Runs in a worker; the stored part of each request is sent again as it is.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import leaving, resubmissions
from webapp.batches.books import note
from webapp.batches.completion import NOT_PAID, finish_if_over
from webapp.batches.desk import Desk
from webapp.batches.outcomes import start_attempts, stop_unsent
from webapp.batches.resubmissions import BY_HAND
from webapp.batches.selecting import fits
from webapp.batches.sharding import cut_pending
from webapp.batches.states import RunState
from webapp.batches.steps import Lease

PAGE = 5000

# By rule: class retry, below the ceiling, once its delay is over.
BY_RULE = f"""
    i.failure_class = 'retry' AND i.attempts < :most AND i.attempts > 0 AND b.state_since
    + make_interval(secs => :delay * power(2, i.attempts - 1)) <= now() AND {NOT_PAID}
"""


def resubmit(desk: Desk, lease: Lease) -> float | None:
    """Start the next attempts of a run. Seconds until more of them are due by rule, or None."""
    run_id = lease.target_id
    with db.transaction() as tx:
        run = db.row(
            tx,
            "SELECT id, state, cancel_wanted_at IS NOT NULL AS cancel, pause_wanted_at IS NOT NULL AS pause "
            "FROM runs WHERE id = :id",
            id=run_id,
        )
        wishes = resubmissions.waiting(tx, run_id)
    if run is not None and run.cancel:
        with db.transaction() as tx:
            lease.hold(tx)
            stop_unsent(tx, run_id)
            finish_if_over(tx, run_id, resubmitting=False)
        return None
    if run is None or run.pause or run.state in (RunState.PAUSED, RunState.PLANNING):
        return None  # resuming makes it due again
    if wishes and wishes[0].started_at is None:
        cut_pending(desk.settings, lease, run_id)  # what an earlier performance has left is no wish's
    for wish in wishes:
        _take(desk, lease, wish)
    marked = _mark(lease, BY_RULE, most=desk.settings.max_attempts, delay=desk.settings.retry_delay)
    if marked or not wishes:
        cut_pending(desk.settings, lease, run_id)
    with db.transaction() as tx:
        lease.hold(tx)
        if marked:
            note(tx, run_id=run_id, actor="resubmit", reason=f"{marked} subjects are sent again.")
        wait = _next_due(tx, desk, run_id)
        if wait is None:
            finish_if_over(tx, run_id, resubmitting=False)
    return wait


def _take(desk: Desk, lease: Lease, wish: Any) -> None:
    """Start the attempts that a person wants, in batches of their own: so what became of them is told by these."""
    _mark(
        lease,
        f"{BY_HAND} AND {fits(':chosen')}",
        wish=wish.id,
        classes=wish.classes,
        latest=wish.latest_request,
        chosen=wish.chosen,
    )
    cut_pending(desk.settings, lease, lease.target_id, resubmission_id=wish.id)
    with db.transaction() as tx:
        lease.hold(tx)
        marked = resubmissions.taken(tx, wish.id)
        if marked is not None:
            words = f"{marked:,} subjects are sent again." if marked else "Nothing was left to send again."
            note(tx, run_id=lease.target_id, actor="resubmit", reason=words)


def _mark(lease: Lease, wanted: str, *, wish: int | None = None, **binds: Any) -> int:
    """Make the wanted items pending, one attempt further, page by page; how many."""
    after = -1
    marked = 0
    while True:
        with db.transaction(by_key=True) as tx:
            lease.progress(tx)
            page = db.rows(
                tx,
                "SELECT i.id, i.position FROM items i "  # noqa: S608 - constants
                "LEFT JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts "
                "LEFT JOIN batches b ON b.id = r.batch_id "
                f"WHERE i.run_id = :run AND i.position > :after AND ({wanted}) "
                # What was never built has nothing to send again.
                "AND (SELECT p.item_id FROM item_params p WHERE p.item_id = i.id) IS NOT NULL "
                "ORDER BY i.position LIMIT :page",
                run=lease.target_id,
                after=after,
                page=PAGE,
                **binds,
            )
            number = start_attempts(tx, lease.target_id, [item.id for item in page])
            if wish is not None:
                resubmissions.mark(tx, wish, number)
            marked += number
        if len(page) < PAGE:
            return marked
        leaving.look()
        after = page[-1].position


def _next_due(tx: Connection, desk: Desk, run_id: int) -> float | None:
    """Seconds until the next item of class retry is due by rule; None when there is none."""
    wait = db.scalar(
        tx,
        "SELECT extract(epoch FROM min(b.state_since + make_interval(secs => :delay * power(2, i.attempts - 1))) "  # noqa: S608 - a constant
        "- now()) FROM items i JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts "
        "JOIN batches b ON b.id = r.batch_id "
        "WHERE i.run_id = :run AND i.failure_class = 'retry' AND i.attempts < :most "
        f"AND b.state IN ('done', 'failed') AND {NOT_PAID}",
        run=run_id,
        delay=desk.settings.retry_delay,
        most=desk.settings.max_attempts,
    )
    return None if wait is None else max(0.5, float(wait))
