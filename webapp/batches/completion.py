"""When a batch is over and when a run is: the end of the road, and the turn back for what goes again by itself.
Every step that ends something calls it inside its own transaction.
"""

from __future__ import annotations

from sqlalchemy import Connection

from webapp import db
from webapp.batches import vanguard
from webapp.batches.outcomes import settle_pending
from webapp.batches.states import (
    OPEN_BATCH_STATES,
    BatchState,
    FailureClass,
    RequestState,
    RunState,
    move_batch,
    move_run,
)
from webapp.batches.steps import StepName, due
from webapp.delivery import deliveries
from webapp.runs import pilots
from webapp.settings import Settings

# Of requests r in batches b: those whose answer is not paid for and only lacking its line.
NOT_PAID = "NOT (r.state = 'missing' AND b.owed > 0)"
# Of items i of runs run: they wait for their next attempt, which comes by rule, and have not failed yet. `:most` is the
# ceiling of attempts.
GOES_AGAIN = """(
    i.failure_class = 'retry' AND i.attempts BETWEEN 1 AND :most - 1
    AND run.state IN ('running', 'paused') AND run.cancel_wanted_at IS NULL
    AND NOT (i.state = 'missing' AND EXISTS (
        SELECT 1 FROM requests lacking JOIN batches owing ON owing.id = lacking.batch_id
        WHERE lacking.item_id = i.id AND lacking.attempt = i.attempts AND owing.owed > 0))
)"""


def batch_over(
    tx: Connection,
    settings: Settings,
    batch_id: int,
    state: BatchState,
    *,
    actor: str,
    reason: str | None = None,
    pause: str | None = None,
) -> None:
    """Move a batch to its end; its failures of class retry become due, and its run may be over.

    :param pause: why the run must stop here for a person, if it must. Steps are locked before runs, here as
        everywhere: that order keeps two ending batches of one run from waiting for each other.
    """
    vanguard.arrived(tx, batch_id)
    if not move_batch(tx, batch_id, state, actor=actor, reason=reason):
        return
    retry = db.row(
        tx,
        "SELECT min(r.attempt) AS attempt, min(b.run_id) AS run_id "  # noqa: S608 - NOT_PAID is a constant
        "FROM requests r JOIN batches b ON b.id = r.batch_id JOIN items i ON i.id = r.item_id "
        # Not what has gone again since, where the batch was done before and its results were fetched once more.
        "WHERE r.batch_id = :id AND r.failure_class = 'retry' AND r.attempt < :most AND i.attempts = r.attempt "
        "AND i.failure_class = 'retry' "
        f"AND {NOT_PAID}",
        id=batch_id,
        most=settings.max_attempts,
    )
    if retry.attempt is not None:
        due(tx, StepName.RESUBMIT, retry.run_id, after=retry_delay(settings, retry.attempt))
    run_id = db.scalar(tx, "SELECT run_id FROM batches WHERE id = :id", id=batch_id)
    if pause is not None:
        pause_run(tx, run_id, pause, actor=actor)
    finish_if_over(tx, run_id)


def pause_run(tx: Connection, run_id: int, reason: str, *, actor: str) -> None:
    """Stop a run until a person resumes it; also one that is still being planned, once it is."""
    db.run(tx, "UPDATE runs SET pause_wanted_at = coalesce(pause_wanted_at, now()) WHERE id = :id", id=run_id)
    move_run(tx, run_id, RunState.PAUSED, actor=actor, reason=reason)


RESULTS_DAYS = 29  # the API keeps results so long from a batch's creation
VANISHED = (
    "The API keeps results for 29 days from a batch's creation, and they are over: what it answered was paid for and "
    "is gone. Sent again, it is paid again."
)


def results_vanished(tx: Connection, settings: Settings, batch_id: int, *, actor: str) -> bool:
    """End a batch that the API gives no results of, if their time is over; its open requests are missing for good."""
    over = db.scalar(
        tx,
        "SELECT api_created_at < now() - make_interval(days => :days) FROM batches WHERE id = :id",
        days=RESULTS_DAYS,
        id=batch_id,
    )
    if not over:
        return False
    settle_pending(tx, batch_id, RequestState.MISSING, FailureClass.FIX, VANISHED)
    move_batch(tx, batch_id, BatchState.INGESTING, actor=actor, reason=VANISHED)
    due(tx, StepName.PROCESS, batch_id)
    batch_over(tx, settings, batch_id, BatchState.DONE, actor=actor, reason=VANISHED)
    return True


def retry_delay(settings: Settings, attempt: int) -> float:
    """Seconds from the end of an attempt to the next automatic one."""
    return float(settings.retry_delay * 2 ** (attempt - 1))


def finish_if_over(tx: Connection, run_id: int, *, resubmitting: bool = True, processable: bool = True) -> None:
    """Finish a run when nothing of it is on its way, waits for its processor, or will go again by itself. What is to be
    delivered of it is due from then on.

    :param resubmitting: False for the resubmit step itself, whose own row does not keep the run open.
    :param processable: False when the run's task is not there: a cancelled run does not wait for it.
    """
    run = db.row(
        tx,
        "SELECT state, cancel_wanted_at IS NOT NULL AS cancel FROM runs WHERE id = :id FOR UPDATE",
        id=run_id,
    )
    if run.state != RunState.RUNNING and not (run.state == RunState.PAUSED and run.cancel):
        return
    under_way = db.scalar(
        tx,
        "SELECT EXISTS (SELECT 1 FROM batches WHERE run_id = :id AND state = ANY(:open)) OR "
        "(:resubmitting AND NOT :cancel AND EXISTS (SELECT 1 FROM steps WHERE step = 'resubmit' AND target_id = :id)) "
        # Asked for after the step has looked for wishes: it comes again.
        "OR (NOT :cancel AND EXISTS (SELECT 1 FROM resubmissions WHERE run_id = :id AND taken_at IS NULL "
        "AND dropped IS NULL))",
        id=run_id,
        open=[state.value for state in OPEN_BATCH_STATES],
        resubmitting=resubmitting,
        cancel=run.cancel,
    )
    if under_way:
        pilot = pilots.over(tx, run_id) if run.state == RunState.RUNNING else None
        if pilot is not None:
            pause_run(tx, run_id, pilot, actor=pilots.ACTOR)
        return
    left = db.row(
        tx,
        "SELECT coalesce(sum(pending), 0) AS pending, "
        "coalesce(sum(succeeded) - sum(ok) - sum(invalid), 0) AS waiting "
        "FROM tallies WHERE run_id = :id AND scope = 'items'",
        id=run_id,
    )
    if left.pending == 0 and (left.waiting == 0 or (run.cancel and not processable)):
        move_run(tx, run_id, RunState.CANCELLED if run.cancel else RunState.FINISHED, actor="worker")
        deliveries.make(tx, run_id)
