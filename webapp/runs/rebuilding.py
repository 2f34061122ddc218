"""Rebuilding: subjects of a run are built anew, with the plugin and the settings as they are now, as a child run.
What people ask of it is one verb here; planning, exports and counts of a child cover its own subjects and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Connection

from webapp import db
from webapp.batches import selecting
from webapp.batches.books import note
from webapp.batches.completion import GOES_AGAIN
from webapp.batches.selecting import Meant
from webapp.batches.states import FailureClass, RequestState, RunState
from webapp.batches.steps import StepName, due
from webapp.delivery import destinations
from webapp.errors import NotFound, Refused
from webapp.hooks import Task
from webapp.installed import versions
from webapp.records import jsontext
from webapp.runs.selections import OF_RUN
from webapp.runs.staleness import fingerprint


class Child(NamedTuple):
    """A run that was made by rebuilding, and over how many subjects."""

    run_id: int
    subjects: int


# The subjects of the run `:parent`, each with its item; those of a run that was cancelled before they were built have
# none.
_SUBJECTS = f"""
    FROM runs run JOIN subjects s ON {OF_RUN}
    LEFT JOIN items i ON i.run_id = run.id AND i.position = s.position
    LEFT JOIN requests r ON r.item_id = i.id AND r.attempt = i.attempts
    WHERE run.id = :parent
"""
# What goes again by itself is no failure yet.
_CLASS = f"CASE WHEN i.id IS NULL THEN 'stopped' WHEN {GOES_AGAIN} IS NOT TRUE THEN i.failure_class END"


class Rebuildable(NamedTuple):
    """By class, how many subjects of a run have failed; `more` than were looked through, where there are so many."""

    counts: Mapping[FailureClass, int]
    more: bool


def rebuildable(tx: Connection, run_id: int, *, most: int, meant: Meant | None = None) -> Rebuildable:
    """How many subjects of a run have failed, whether or not there is something to send again.

    :param most: the ceiling of attempts; below it, failures of class retry in a run under way are no failures yet.
    :param meant: which of them; None: all.
    """
    which = meant or Meant(run_id=run_id)
    look = selecting.LOOK // selecting.TABLES
    tx.execute(db.BY_KEY)
    found = db.rows(
        tx,
        f"SELECT failure_class, count(*) FROM (SELECT {_CLASS} AS failure_class {_failures_meant(which)}) AS failed "  # noqa: S608
        "GROUP BY 1",
        parent=run_id,
        most=most,
        look=look,
        **selecting.binds(which),
    )
    counts = {FailureClass(failure): int(count) for failure, count in found if failure is not None}
    if meant is None and (unbuilt := _unbuilt(tx, run_id)):
        counts[FailureClass.STOPPED] = counts.get(FailureClass.STOPPED, 0) + unbuilt
    looked = sum(int(count) for _, count in found)
    return Rebuildable({failure: counts[failure] for failure in FailureClass if failure in counts}, looked >= look)


def _unbuilt(tx: Connection, run_id: int) -> int:
    """How many subjects of a run that was cancelled while it was planned have no item. From tallies."""
    ended = " + ".join(f"sum({state.value})" for state in RequestState)
    found: int = db.scalar(
        tx,
        f"SELECT r.subjects - coalesce((SELECT {ended} FROM tallies WHERE run_id = r.id AND scope = 'items'), 0) "  # noqa: S608 - our own names
        "FROM runs r WHERE r.id = :id AND r.state = 'cancelled'",
        id=run_id,
    )
    return int(found or 0)


def _failures_meant(meant: Meant) -> str:
    return (
        f"FROM ({selecting.failed(meant)} LIMIT :look) AS i JOIN runs run ON run.id = i.run_id {selecting.LATEST} "
        f"WHERE i.run_id = :parent AND {selecting.condition(meant)}"
    )


def rebuild_run(
    tx: Connection,
    run_id: int,
    classes: Sequence[FailureClass] | None,
    *,
    task: Task[Any],
    settings: BaseModel,
    most: int,
    owner: str,
    token: str,
    meant: Meant | None = None,
    plugin_version_id: int | None = None,
) -> Child:
    """Make a child run over failures of a run; its planning is due. May be repeated: one child for each token.

    :param classes: of the failures; None: all subjects of the run, those that succeeded too.
    :param most: the ceiling of attempts, as for `rebuildable`.
    :param token: of `naming.new_token`, drawn before the first try.
    :param meant: which of the failures; None: all.
    :param plugin_version_id: as for `runs.start_run`.
    :raises Refused: the run is not so far, or no subject is left to rebuild.
    """
    parent = db.row(tx, "SELECT id, state, planned_at FROM runs WHERE id = :id FOR UPDATE", id=run_id)
    if parent is None:
        raise NotFound(f"There is no run {run_id}.")
    made = db.row(tx, "SELECT id, subjects FROM runs WHERE token = :t AND parent_run_id = :id", t=token, id=run_id)
    if made is not None:
        return Child(made.id, made.subjects)
    over = parent.state in (RunState.FINISHED, RunState.CANCELLED)
    if parent.planned_at is None and not over:
        raise Refused(f"Run {run_id} is still being planned: there is nothing to build anew yet.")
    if classes is None and not over:
        raise Refused(f"Run {run_id} is {parent.state}: cancel it, or wait for its end, before all of it is rebuilt.")
    versions.hold_version(tx, plugin_version_id)
    child_id = _insert(tx, run_id, task, settings, owner, token, plugin_version_id)
    fit = "true" if meant is None else selecting.condition(meant)
    count = db.run(
        tx,
        "INSERT INTO selections (run_id, position, subject_id) "
        f"SELECT :child, s.position, s.id {_SUBJECTS} AND (:all OR {_CLASS} = ANY(:classes)) AND {fit}",
        child=child_id,
        parent=run_id,
        all=classes is None,
        classes=[failure.value for failure in classes or ()],
        most=most,
        **selecting.binds(meant or Meant()),
    )
    if not count:
        raise Refused(f"Nothing was rebuilt: run {run_id} has no subject that failed so.")
    _check_images(tx, child_id)
    db.run(tx, "UPDATE runs SET subjects = :count WHERE id = :id", count=count, id=child_id)
    destinations.name_for(tx, child_id, (one.id for one in destinations.of_run(tx, run_id)))
    what = "all" if classes is None else ", ".join(failure.value for failure in classes)
    what += f"; {meant.told()}" if meant is not None and meant.told() else ""
    note(tx, run_id=run_id, actor=owner, reason=f"{count:,} subjects ({what}) are built anew by run {child_id}.",
         kind="wish")  # fmt: skip
    note(tx, run_id=child_id, actor=owner, reason=f"Run of {task.name} started over {count:,} subjects ({what}) of "
         f"run {run_id}.", kind="wish")  # fmt: skip
    due(tx, StepName.PLAN, child_id)
    return Child(child_id, count)


def _check_images(tx: Connection, child_id: int) -> None:
    """Pass when the images of the selected subjects are stored: those of records that are gone may be dropped."""
    lacking = db.scalar(
        tx,
        "SELECT count(*) FROM selections l JOIN subjects s ON s.id = l.subject_id WHERE l.run_id = :run "
        "AND s.image IS NOT NULL AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.sha256 = s.image)",
        run=child_id,
    )
    if lacking:
        what = (
            "1 of its records has an image that was"
            if lacking == 1
            else f"{lacking:,} of its records have images that were"
        )
        raise Refused(f"Nothing was rebuilt: {what} dropped with the payloads of earlier runs. Import them again.")


def _insert(
    tx: Connection,
    parent_id: int,
    task: Task[Any],
    settings: BaseModel,
    owner: str,
    token: str,
    plugin_version_id: int | None,
) -> int:
    child_id: int = db.scalar(
        tx,
        "INSERT INTO runs (dataset_id, parent_run_id, revision, selected, task, task_version, settings, "
        "settings_hash, token, subjects, owner, plugin_version_id) "
        "SELECT dataset_id, id, revision, true, :task, :version, CAST(:settings AS json), :hash, :token, 0, :owner, "
        "CAST(:plugin AS bigint) "
        "FROM runs WHERE id = :parent RETURNING id",
        parent=parent_id,
        task=task.name,
        version=task.version,
        settings=jsontext.dumps(settings.model_dump(mode="json")).decode(),
        hash=fingerprint(task.name, task.version, settings),
        token=token,
        owner=owner,
        plugin=plugin_version_id,
    )
    return child_id
