"""What people ask for: each `ask_…` is one short transaction that writes the wish, and a nudge after it is committed.
The dashboard and the command line act through these verbs and no others; workers do what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flask import current_app
from sqlalchemy import Connection

from webapp import db
from webapp.batches import (
    holding,
    reprocessing,
    selecting,
    strays,
)
from webapp.batches.desk import Desk
from webapp.batches.reprocessing import Which
from webapp.batches.selecting import Meant
from webapp.batches.states import FailureClass
from webapp.datasets import uploads
from webapp.delivery import destinations
from webapp.errors import Refused
from webapp.installed import configuring, versions
from webapp.jobs import nudge
from webapp.runs import rebuilding, schedules, verbs
from webapp.runs.rebuilding import Child
from webapp.runs.staleness import Over
from webapp.runs.verbs import PLAIN, Manner
from webapp.settings import Settings


def ask_start(
    dataset_id: int,
    task_name: str,
    settings: Mapping[str, Any],
    *,
    over: Over,
    actor: str,
    token: str,
    to: Sequence[str] = (),
    manner: Manner = PLAIN,
) -> int:
    """Start a run over subjects of a dataset; its id. May be repeated: one run for each token.

    :param settings: as people write them or as they are stored.
    :param to: the names of the destinations that its outputs go to.
    :param manner: how careful it is to be.
    :raises InputError: the task cannot run with these settings, or over such subjects, or there is no such destination.
    :raises Refused: there is no such subject.
    """
    desk: Desk = current_app.extensions["batchdesk"]
    registry = desk.registry
    task = registry.task(task_name)
    parsed = registry.parse_settings(task, settings)
    with db.transaction() as tx:
        db.run(tx, "SELECT pg_advisory_xact_lock(hashtextextended(:token, 0))", token=token)
        run_id = verbs.find_run(tx, token)
        if run_id is None:
            verbs.check_dataset(tx, task, dataset_id)
            run_id = verbs.start_run(
                tx,
                dataset_id=dataset_id,
                task=task,
                settings=parsed,
                owner=actor,
                token=token,
                over=over,
                plugin_version_id=registry.version_of(task),
                destination_ids=destinations.check(tx, to),
                manner=manner,
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
        verbs.check_dataset(tx, task, dataset_id)
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


def ask_configure(plugin: str, changes: Mapping[str, Any], *, actor: str) -> bool:
    """Change settings of a plugin's own, the others staying as they are; whether that changed anything.

    :param changes: as people write them or as they are stored, by name.
    :raises InputError: the plugin does not take them; names each fault.
    :raises NotFound: no such plugin is loaded.
    """
    registry = current_app.extensions["batchdesk"].registry
    info = configuring.plugin_named(registry, plugin)
    with db.transaction() as tx:
        return configuring.configure(tx, registry, info, changes, actor=actor)


def ask_cancel_run(run_id: int, *, actor: str, unproved: bool = False) -> None:
    """Cancel a run; see `verbs.cancel_run`."""
    with db.transaction() as tx:
        verbs.cancel_run(tx, run_id, actor=actor, unproved=unproved)
    nudge()


def ask_cancel_batch(batch_id: int, *, actor: str, unproved: bool = False) -> None:
    """Cancel one batch; see `verbs.cancel_batch`."""
    with db.transaction() as tx:
        verbs.cancel_batch(tx, batch_id, actor=actor, unproved=unproved)
    nudge()


def ask_poll(batch_id: int, *, actor: str) -> None:
    """Look at a batch now; see `verbs.poll_now`."""
    with db.transaction() as tx:
        verbs.poll_now(tx, batch_id, actor=actor)
    nudge()


def ask_refetch(batch_id: int, *, actor: str) -> None:
    """Fetch the results of a batch that is done once more; see `verbs.refetch_batch`."""
    with db.transaction() as tx:
        verbs.refetch_batch(tx, batch_id, actor=actor)
    nudge()


def ask_resubmit(run_id: int, classes: Sequence[FailureClass], *, actor: str) -> int:
    """Send a run's failures again; see `verbs.resubmit_run`. How many subjects that are."""
    with db.transaction() as tx:
        count = verbs.resubmit_run(tx, run_id, classes, actor=actor)
    nudge()
    return count


class Sent(NamedTuple):
    """What a click on a selection came to: how many subjects of which runs, and what was refused, in sentences."""

    subjects: dict[int, int]
    refused: list[str]


def ask_resubmit_meant(meant: Meant, classes: Sequence[FailureClass], *, actor: str, token: str) -> Sent:
    """Send those failures again that are meant, in whatever runs they are; see `verbs.resubmit_run`.

    Each run has its own wish in its own transaction; may be repeated with the same token.

    :raises Refused: they are in too many runs.
    """
    return _each_run(
        meant,
        lambda tx, run_id: verbs.resubmit_run(tx, run_id, classes, meant=meant, token=token, actor=actor),
    )


def ask_reprocess_meant(meant: Meant, which: Which, *, versions: Mapping[str, str], actor: str) -> Sent:
    """Process those answers again that are meant, in whatever runs they are; see `reprocessing.reprocess_run`.

    :param versions: by task, the version that is to do it.
    """

    def ask(tx: Connection, run_id: int) -> int:
        task = verbs.task_of(tx, run_id)
        if task not in versions:
            raise Refused(f"Run {run_id} is of task '{task}', which is not installed: nothing of it can be processed.")
        count = reprocessing.reprocess_run(tx, run_id, which, version=versions[task], meant=meant, actor=actor)
        _go_on_with_present(tx, run_id, count)
        return count

    if which == Which.ALL and not meant.within_a_run:
        raise Refused("All answers of a list are processed again within one run, batch or request: narrow it first.")
    return _each_run(meant, ask, with_failures=which == Which.INVALID)


def _each_run(meant: Meant, ask: Callable[[Connection, int], int], *, with_failures: bool = True) -> Sent:
    with db.transaction() as tx:
        run_ids = selecting.runs_meant(tx, meant, with_failures=with_failures)
    if len(run_ids) > selecting.MOST_RUNS:
        raise Refused(
            f"More than {selecting.MOST_RUNS} runs have failures that may be meant: narrow the list first, by task, "
            "run or key."
        )
    sent = Sent({}, [])
    for run_id in run_ids:
        try:
            with db.transaction() as tx:
                count = ask(tx, run_id)
        except Refused as error:
            sent.refused.append(str(error))
        else:
            if count:
                sent.subjects[run_id] = count
    nudge()
    return sent


def ask_reprocess(run_id: int, which: Which, *, version: str, actor: str) -> int:
    """Process a run's answers again; see `reprocessing.reprocess_run`. How many subjects have one."""
    with db.transaction() as tx:
        count = reprocessing.reprocess_run(tx, run_id, which, version=version, actor=actor)
        _go_on_with_present(tx, run_id, count)
    nudge()
    return count


def ask_reprocess_request(request_id: int, *, version: str, actor: str) -> None:
    """Process one answer again; see `reprocessing.reprocess_request`."""
    with db.transaction() as tx:
        run_id = reprocessing.reprocess_request(tx, request_id, version=version, actor=actor)
        _go_on_with_present(tx, run_id, 1)
    nudge()


def _go_on_with_present(tx: Connection, run_id: int, count: int) -> None:
    """Let a run whose answers are processed again go on with the version of its plugin that is in use now."""
    desk: Desk = current_app.extensions["batchdesk"]
    name = verbs.task_of(tx, run_id)
    if count and name in desk.registry.tasks:
        versions.move_on(tx, run_id, desk.registry.version_of(desk.registry.task(name)))


def ask_rebuild(
    run_id: int,
    classes: Sequence[FailureClass] | None,
    settings: Mapping[str, Any],
    *,
    actor: str,
    token: str,
    meant: Meant | None = None,
) -> Child:
    """Build subjects of a run anew, as a child run with other settings; see `rebuilding.rebuild_run`.

    :param settings: as people write them or as they are stored.
    :raises InputError: the task cannot run with these settings.
    """
    desk: Desk = current_app.extensions["batchdesk"]
    registry = desk.registry
    with db.transaction() as tx:
        task = registry.task(verbs.task_of(tx, run_id))
        child = rebuilding.rebuild_run(
            tx,
            run_id,
            classes,
            task=task,
            settings=registry.parse_settings(task, settings),
            plugin_version_id=registry.version_of(task),
            most=desk.settings.max_attempts,
            owner=actor,
            token=token,
            meant=meant,
        )
    nudge()
    return child


def ask_import(
    upload_id: int,
    *,
    key_field: str,
    text_field: str,
    actor: str,
    dataset_name: str | None = None,
    skip_bad: bool = False,
) -> None:
    """Import an upload, or compare it with the dataset that it is to refresh; see `uploads.import_upload`."""
    with db.transaction() as tx:
        uploads.import_upload(
            tx,
            upload_id,
            key_field=key_field,
            text_field=text_field,
            skip_bad=skip_bad,
            dataset_name=dataset_name,
            actor=actor,
        )
    nudge()


def ask_refresh(upload_id: int, *, remove_absent: bool, actor: str) -> None:
    """Refresh a dataset as an upload was compared with it; see `uploads.apply`."""
    with db.transaction() as tx:
        uploads.apply(tx, upload_id, remove_absent=remove_absent, actor=actor)
    nudge()


def ask_discard_upload(upload_id: int, *, actor: str) -> None:
    """Give an upload up; see `uploads.discard`. Nothing is nudged: nothing becomes due."""
    with db.transaction() as tx:
        uploads.discard(tx, upload_id, actor=actor)


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
    """Send nothing more of a run until it is resumed; see `verbs.pause`."""
    with db.transaction() as tx:
        verbs.pause(tx, run_id, actor=actor)
    nudge()


def ask_resume(run_id: int, *, actor: str) -> None:
    """End a run's pause; see `verbs.resume_run`."""
    with db.transaction() as tx:
        verbs.resume_run(tx, run_id, actor=actor)
    nudge()


def _settings() -> Settings:
    found: Settings = current_app.extensions["batchdesk"].settings
    return found
