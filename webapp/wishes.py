"""What people ask for: each `ask_…` is one short transaction that writes the wish, and a nudge after it is committed.
The dashboard and the command line act through these verbs and no others; workers do what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import current_app

from webapp import db
from webapp.batches import holding, rebuilding, reprocessing, runs, schedules, strays
from webapp.batches.desk import Desk
from webapp.batches.rebuilding import Child
from webapp.batches.reprocessing import Which
from webapp.batches.staleness import Over
from webapp.batches.states import FailureClass
from webapp.jobs import nudge
from webapp.settings import Settings


def ask_start(
    dataset_id: int, task_name: str, settings: Mapping[str, Any], *, over: Over, actor: str, token: str
) -> int:
    """Start a run over subjects of a dataset; its id. May be repeated: one run for each token.

    :param settings: as people write them or as they are stored.
    :raises InputError: the task cannot run with these settings, or over such subjects.
    :raises Refused: there is no such subject.
    """
    desk: Desk = current_app.extensions["batchdesk"]
    task = desk.registry.task(task_name)
    parsed = desk.registry.parse_settings(task, settings)
    with db.transaction() as tx:
        db.run(tx, "SELECT pg_advisory_xact_lock(hashtextextended(:token, 0))", token=token)
        run_id = runs.find_run(tx, token)
        if run_id is None:
            runs.check_dataset(tx, task, dataset_id)
            run_id = runs.start_run(
                tx, dataset_id=dataset_id, task=task, settings=parsed, owner=actor, token=token, over=over
            )
    nudge()
    return run_id


def ask_schedule(
    dataset_id: int,
    task_name: str,
    settings: Mapping[str, Any],
    wanted: schedules.Wanted,
    *,
    actor: str,
    token: str,
) -> int:
    """Make a schedule; its id. May be repeated: one for each token. See `schedules.create`."""
    desk: Desk = current_app.extensions["batchdesk"]
    task = desk.registry.task(task_name)
    parsed = desk.registry.parse_settings(task, settings)
    with db.transaction() as tx:
        runs.check_dataset(tx, task, dataset_id)
        return schedules.create(tx, dataset_id, task, parsed, wanted, owner=actor, token=token)


def ask_edit_schedule(schedule_id: int, settings: Mapping[str, Any], wanted: schedules.Wanted, *, actor: str) -> None:
    """Change a schedule; see `schedules.edit`."""
    desk: Desk = current_app.extensions["batchdesk"]
    with db.transaction() as tx:
        name = schedules.find(tx, schedule_id).task
    parsed = desk.registry.parse_settings(name, settings)
    with db.transaction() as tx:
        schedules.edit(tx, schedule_id, parsed, wanted, actor=actor)


def ask_pause_schedule(schedule_id: int, *, actor: str) -> None:
    """Make no more runs of a schedule; see `schedules.pause`."""
    with db.transaction() as tx:
        schedules.pause(tx, schedule_id, actor=actor)
    nudge()


def ask_resume_schedule(schedule_id: int, *, actor: str) -> None:
    """Go on with a schedule; see `schedules.resume`."""
    with db.transaction() as tx:
        schedules.resume(tx, schedule_id, actor=actor)


def ask_delete_schedule(schedule_id: int, *, actor: str) -> None:
    """Take a schedule away; see `schedules.delete`."""
    with db.transaction() as tx:
        schedules.delete(tx, schedule_id, actor=actor)
    nudge()


def ask_cancel_run(run_id: int, *, actor: str, unproved: bool = False) -> None:
    """Cancel a run; see `runs.cancel_run`."""
    with db.transaction() as tx:
        runs.cancel_run(tx, run_id, actor=actor, unproved=unproved)
    nudge()


def ask_cancel_batch(batch_id: int, *, actor: str, unproved: bool = False) -> None:
    """Cancel one batch; see `runs.cancel_batch`."""
    with db.transaction() as tx:
        runs.cancel_batch(tx, batch_id, actor=actor, unproved=unproved)
    nudge()


def ask_poll(batch_id: int, *, actor: str) -> None:
    """Look at a batch now; see `runs.poll_now`."""
    with db.transaction() as tx:
        runs.poll_now(tx, batch_id, actor=actor)
    nudge()


def ask_refetch(batch_id: int, *, actor: str) -> None:
    """Fetch the results of a batch that is done once more; see `runs.refetch_batch`."""
    with db.transaction() as tx:
        runs.refetch_batch(tx, batch_id, actor=actor)
    nudge()


def ask_resubmit(run_id: int, classes: Sequence[FailureClass], *, actor: str) -> int:
    """Send a run's failures again; see `runs.resubmit_run`. How many subjects that are."""
    with db.transaction() as tx:
        count = runs.resubmit_run(tx, run_id, classes, actor=actor)
    nudge()
    return count


def ask_reprocess(run_id: int, which: Which, *, version: str, actor: str) -> int:
    """Process a run's answers again; see `reprocessing.reprocess_run`. How many subjects have one."""
    with db.transaction() as tx:
        count = reprocessing.reprocess_run(tx, run_id, which, version=version, actor=actor)
    nudge()
    return count


def ask_reprocess_request(request_id: int, *, version: str, actor: str) -> None:
    """Process one answer again; see `reprocessing.reprocess_request`."""
    with db.transaction() as tx:
        reprocessing.reprocess_request(tx, request_id, version=version, actor=actor)
    nudge()


def ask_rebuild(
    run_id: int, classes: Sequence[FailureClass] | None, settings: Mapping[str, Any], *, actor: str, token: str
) -> Child:
    """Build subjects of a run anew, as a child run with other settings; see `rebuilding.rebuild_run`.

    :param settings: as people write them or as they are stored.
    :raises InputError: the task cannot run with these settings.
    """
    desk: Desk = current_app.extensions["batchdesk"]
    with db.transaction() as tx:
        task = desk.registry.task(runs.task_of(tx, run_id))
        child = rebuilding.rebuild_run(
            tx,
            run_id,
            classes,
            task=task,
            settings=desk.registry.parse_settings(task, settings),
            most=desk.settings.max_attempts,
            owner=actor,
            token=token,
        )
    nudge()
    return child


def ask_adopt(batch_id: int, api_id: str, *, actor: str) -> None:
    """Take a batch of the API for ours; see `holding.adopt`."""
    with db.transaction() as tx:
        holding.adopt(tx, _settings(), batch_id, api_id, actor=actor)
    nudge()


def ask_resend(batch_id: int, *, actor: str) -> None:
    """Give an unknown POST up and send its batch again; see `holding.resend`."""
    with db.transaction() as tx:
        holding.resend(tx, batch_id, actor=actor)
    nudge()


def ask_abandon(batch_id: int, *, actor: str) -> None:
    """Give a batch with an unknown POST up; see `holding.abandon`."""
    with db.transaction() as tx:
        holding.abandon(tx, _settings(), batch_id, actor=actor)
    nudge()


def ask_disown(batch_id: int, *, actor: str) -> None:
    """Take a guess back that nothing proves; see `holding.disown`."""
    with db.transaction() as tx:
        holding.disown(tx, batch_id, actor=actor)
    nudge()


def ask_look(*, actor: str) -> None:
    """Look for batches of the API that no row knows; see `strays.look_now`."""
    with db.transaction() as tx:
        strays.look_now(tx, actor=actor)
    nudge()


def ask_pause(run_id: int, *, actor: str) -> None:
    """Send nothing more of a run until it is resumed; see `runs.pause`."""
    with db.transaction() as tx:
        runs.pause(tx, run_id, actor=actor)
    nudge()


def ask_resume(run_id: int, *, actor: str) -> None:
    """End a run's pause; see `runs.resume_run`."""
    with db.transaction() as tx:
        runs.resume_run(tx, run_id, actor=actor)
    nudge()


def _settings() -> Settings:
    found: Settings = current_app.extensions["batchdesk"].settings
    return found
