"""What people ask of runs and batches: start, cancel, pause, resume, resubmit, poll now. Each is one short transaction
that writes the wish and makes the steps due; the dashboard and the command line call these verbs and no others.

Each makes its steps due first and locks the run or batch after, as the workers do: a click never deadlocks with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection

from webapp import db
from webapp.batches import resubmissions
from webapp.batches.books import note
from webapp.batches.completion import RESULTS_DAYS, finish_if_over, pause_run
from webapp.batches.kept import check_kept
from webapp.batches.naming import new_token
from webapp.batches.selecting import Meant
from webapp.batches.states import OPEN_BATCH_STATES, BatchState, FailureClass, RunState, move_batch, move_run
from webapp.batches.steps import StepName, due
from webapp.delivery import destinations
from webapp.errors import InputError, NotFound, Refused
from webapp.hooks import Task
from webapp.installed import versions
from webapp.money import caps
from webapp.money.caps import Scope
from webapp.money.priming import Prime
from webapp.records import jsontext
from webapp.runs import pilots
from webapp.runs.staleness import Over, fingerprint, select_stale

NOTHING_STALE = "Nothing was started: every subject has an output of these settings already."
UNPROVED = " Also where it is not proved that the batch is ours."


@dataclass(frozen=True, slots=True)
class Manner:
    """How careful a run is to be.

    :param cap_usd: the most that it may cost, all attempts together.
    :param pilot: how many subjects go ahead; the rest waits until somebody has looked at them and resumes the run.
    :param prime: whether one request goes ahead and writes the shared part to the cache.
    """

    cap_usd: Decimal | None = None
    pilot: int | None = None
    prime: Prime = Prime.AUTO


PLAIN = Manner()


def check_kind(task: Task[Any], kind: str) -> None:
    """Pass when a task can be asked about subjects of that kind.

    :raises InputError: it cannot; the message says what it takes.
    """
    if kind not in task.subject_kinds:
        takes = " or ".join(sorted(task.subject_kinds))
        raise InputError(f"Task '{task.name}' takes subjects of kind {takes}; these are of kind {kind}.")


def check_dataset(tx: Connection, task: Task[Any], dataset_id: int) -> None:
    """Pass when a task can be asked about the subjects of a dataset.

    :raises InputError: it cannot; the message says what it takes.
    :raises NotFound: there is no such dataset, or nothing in it.
    """
    kind: str | None = db.scalar(
        tx, "SELECT kind FROM subjects WHERE dataset_id = :id ORDER BY position LIMIT 1", id=dataset_id
    )
    if kind is None:
        raise NotFound(f"There is no dataset {dataset_id} that holds records.")
    check_kind(task, kind)


def find_run(tx: Connection, token: str) -> int | None:
    """The run that was started with a token: whether a commit came through whose answer was lost."""
    found: int | None = db.scalar(tx, "SELECT id FROM runs WHERE token = :token", token=token)
    return found


def task_of(tx: Connection, run_id: int) -> str:
    """The name of a run's task.

    :raises NotFound: there is no such run.
    """
    name: str | None = db.scalar(tx, "SELECT task FROM runs WHERE id = :id", id=run_id)
    if name is None:
        raise NotFound(f"There is no run {run_id}.")
    return name


def start_run(
    tx: Connection,
    *,
    dataset_id: int,
    task: Task[Any],
    settings: BaseModel,
    owner: str,
    token: str | None = None,
    over: Over = Over.ALL,
    schedule_id: int | None = None,
    plugin_version_id: int | None = None,
    destination_ids: Sequence[int] = (),
    manner: Manner = PLAIN,
) -> int:
    """Make a run over subjects of a dataset, with a frozen copy of its settings; its id. Planning is due.

    :param token: of `naming.new_token`, for callers that look the run up again before they repeat this.
    :param over: all subjects of the present revision, or those without an output as new as the settings.
    :param schedule_id: which asks for it.
    :param plugin_version_id: the installed version that brings the task (`Registry.version_of`); the run keeps to it.
    :param destination_ids: where its outputs go.
    :param manner: how careful it is to be.
    :raises Refused: there is no such subject, or the plugin was removed or disabled meanwhile.
    """
    versions.hold_version(tx, plugin_version_id)
    run = db.row(
        tx,
        "INSERT INTO runs (dataset_id, revision, selected, task, task_version, settings, settings_hash, token, "
        "subjects, owner, schedule_id, plugin_version_id, pilot, prime) "
        "SELECT id, revision, :selected, :task, :version, CAST(:settings AS json), :hash, :token, subjects, :owner, "
        "CAST(:schedule AS bigint), CAST(:plugin AS bigint), CAST(:pilot AS int), CAST(:prime AS text) FROM datasets "
        "WHERE id = :dataset "
        "RETURNING id, revision, subjects",
        dataset=dataset_id,
        selected=over == Over.STALE,
        task=task.name,
        version=task.version,
        settings=jsontext.dumps(settings.model_dump(mode="json")).decode(),
        hash=fingerprint(task.name, task.version, settings),
        token=token or new_token(),
        owner=owner,
        schedule=schedule_id,
        plugin=plugin_version_id,
        pilot=manner.pilot,
        prime=None if manner.prime == Prime.AUTO else manner.prime.value,
    )
    if run is None:
        raise NotFound(f"There is no dataset {dataset_id}.")
    words = _narrowed(tx, run, dataset_id, task, settings) if over == Over.STALE else ""
    if not run.subjects:
        raise Refused("Nothing was started: there is no subject to ask about.")
    destinations.name_for(tx, run.id, destination_ids)
    note(tx, run_id=run.id, schedule_id=schedule_id, actor=owner, reason=f"Run of {task.name} started{words}.",
         kind="wish")  # fmt: skip
    if manner.cap_usd is not None:
        caps.put(tx, Scope.RUN, str(run.id), manner.cap_usd, actor=owner)
    due(tx, StepName.PLAN, run.id)
    run_id: int = run.id
    return run_id


def _narrowed(tx: Connection, run: Any, dataset_id: int, task: Task[Any], settings: BaseModel) -> str:
    """Let a run be over those subjects only that lack an output as new as its settings; words for its event."""
    subjects = select_stale(tx, run.id, dataset_id, run.revision, task, settings)
    if run.subjects and not subjects:
        raise Refused(NOTHING_STALE)
    db.run(tx, "UPDATE runs SET subjects = :count WHERE id = :id", count=subjects, id=run.id)
    return f" over {subjects:,} subjects without an output of these settings"


def cancel_run(tx: Connection, run_id: int, *, actor: str, unproved: bool = False) -> None:
    """Ask that a run stops: what is unsent is discarded, what is at the API is cancelled there.

    May be repeated. What the API has already worked on is paid for and kept.

    :param unproved: also batches that were adopted by a guess, which may be somebody else's; those there are now. The
        others wait for their proof.
    """
    _wake(tx, run_id)
    guessed = _cancel_unproved(tx, "run_id", run_id) if unproved else 0
    run = _run(tx, run_id)
    if run.state in (RunState.FINISHED, RunState.CANCELLED):
        raise Refused(f"Run {run_id} is {run.state} already: there is nothing to cancel.")
    if run.cancel_wanted_at is None or guessed:
        db.run(tx, "UPDATE runs SET cancel_wanted_at = coalesce(cancel_wanted_at, now()) WHERE id = :id", id=run_id)
        note(tx, run_id=run_id, actor=actor, reason=f"Cancel asked for.{UNPROVED if guessed else ''}", kind="wish")
    resubmissions.drop(tx, run_id, "The run was cancelled before it was sent.")
    finish_if_over(tx, run_id)


def cancel_batch(tx: Connection, batch_id: int, *, actor: str, unproved: bool = False) -> None:
    """Ask that one batch stops; see `cancel_run`."""
    _wake_batch(tx, batch_id)
    batch = _batch(tx, batch_id)
    if batch.state not in OPEN_BATCH_STATES or batch.state in (BatchState.CANCELING, BatchState.INGESTING):
        raise Refused(f"Batch {batch_id} is {batch.state}: there is nothing to cancel.")
    guessed = _cancel_unproved(tx, "id", batch_id) if unproved else 0
    db.run(tx, "UPDATE batches SET cancel_wanted_at = coalesce(cancel_wanted_at, now()) WHERE id = :id", id=batch_id)
    reason = f"Cancel asked for.{UNPROVED if guessed else ''}"
    note(tx, run_id=batch.run_id, batch_id=batch_id, actor=actor, reason=reason, kind="wish")


def _cancel_unproved(tx: Connection, column: str, row_id: int) -> int:
    """Note that adoptions may be cancelled before they are proved; how many that are."""
    return db.run(
        tx,
        f"UPDATE batches SET cancel_unproved = true WHERE {column} = :id AND NOT proved AND NOT cancel_unproved "  # noqa: S608 - our own names
        "AND state = 'in_progress'",
        id=row_id,
    )


def poll_now(tx: Connection, batch_id: int, *, actor: str) -> None:
    """Ask that a batch is looked at now rather than when its schedule says so."""
    _wake_batch(tx, batch_id)
    batch = _batch(tx, batch_id)
    if batch.state not in (BatchState.IN_PROGRESS, BatchState.CANCELING, BatchState.INGESTING):
        raise Refused(f"Batch {batch_id} is {batch.state}: there is nothing to ask the API.")
    note(tx, run_id=batch.run_id, batch_id=batch_id, actor=actor, reason="Poll asked for.", kind="wish")


def refetch_batch(tx: Connection, batch_id: int, *, actor: str) -> None:
    """Ask that the results of a batch that is done are fetched once more, for lines that came late.

    May be repeated, and costs nothing: what is stored already changes nothing. A run that has ended is under way until
    they are in.
    """
    if db.scalar(tx, "SELECT state FROM batches WHERE id = :id", id=batch_id) == BatchState.DONE:
        due(tx, StepName.INGEST, batch_id)
    batch = _batch(tx, batch_id)
    if batch.state != BatchState.DONE:
        raise Refused(f"Batch {batch_id} is {batch.state}, not done: there is nothing to fetch once more.")
    if batch.vanished:
        raise Refused(f"Batch {batch_id} is more than {RESULTS_DAYS} days old: the API keeps no results so long.")
    move_batch(tx, batch_id, BatchState.INGESTING, actor=actor, reason="Its results are fetched once more.")
    run = _run(tx, batch.run_id)
    check_kept(tx, run.id, "its results are not fetched once more")
    if run.state in (RunState.FINISHED, RunState.CANCELLED):
        move_run(
            tx, run.id, RunState.RUNNING, actor=actor, reason=f"Results of batch {batch_id} are fetched once more."
        )


def resubmit_run(
    tx: Connection,
    run_id: int,
    classes: Sequence[FailureClass],
    *,
    actor: str,
    meant: Meant | None = None,
    token: str | None = None,
) -> int:
    """Ask that a run's failures of some classes are sent again; how many subjects that are (0: nothing is done).

    A pause or a cancellation of the run ends with it. Counted up to one more than `resubmissions.MOST_COUNTED`.

    :param meant: which of them; None: all.
    :param token: of `naming.new_token`, drawn before the first try; one wish is made for each.
    """
    meant = meant or Meant(run_id=run_id)
    count = resubmissions.count(tx, run_id, classes, meant)
    if count:
        _wake(tx, run_id)
    run = _run(tx, run_id)
    if run.planned_at is None:
        raise Refused(f"Run {run_id} is still being planned: there is nothing to send again yet.")
    if not count:
        return 0
    check_kept(tx, run_id, "there is nothing to send again. Rebuild its failures: that makes new requests")
    token = token or new_token()
    if not resubmissions.wish(tx, run_id, classes, meant, number=count, token=token, actor=actor):
        return count
    db.run(tx, "UPDATE runs SET cancel_wanted_at = NULL, pause_wanted_at = NULL WHERE id = :id", id=run_id)
    named = ", ".join(failure.value for failure in classes) + (f"; {meant.told()}" if meant.told() else "")
    words = f"Resubmission of {resubmissions.counted(count)} failures asked for ({named})."
    note(tx, run_id=run_id, actor=actor, reason=words, kind="wish")
    move_run(tx, run_id, RunState.RUNNING, actor=actor)
    return count


def pause(tx: Connection, run_id: int, *, actor: str) -> None:
    """Ask that nothing more of a run is sent until it is resumed. What is at the API goes on, and is stored."""
    run = _run(tx, run_id)
    if run.state not in (RunState.PLANNING, RunState.RUNNING) or run.pause_wanted_at is not None:
        stands = "paused" if run.pause_wanted_at is not None else run.state
        raise Refused(f"Run {run_id} is {stands} already: there is nothing to pause.")
    if run.cancel_wanted_at is not None:
        raise Refused(f"Run {run_id} is being cancelled: there is nothing to pause.")
    note(tx, run_id=run_id, actor=actor, reason="Pause asked for.", kind="wish")
    pause_run(tx, run_id, f"Paused by {actor}.", actor=actor)


def resume_run(tx: Connection, run_id: int, *, actor: str) -> None:
    """End a pause: everything that waited is due."""
    _wake(tx, run_id)
    run = _run(tx, run_id)
    if run.state != RunState.PAUSED and run.pause_wanted_at is None:
        raise Refused(f"Run {run_id} is {run.state}, not paused.")
    db.run(tx, "UPDATE runs SET pause_wanted_at = NULL WHERE id = :id", id=run_id)
    versions.move_on_from_removed(tx, run_id, actor=actor)
    if pilots.release(tx, run_id):
        note(tx, run_id=run_id, actor=actor, reason="The pilot was looked at: the rest is released.", kind="wish")
    move_run(tx, run_id, RunState.PLANNING if run.planned_at is None else RunState.RUNNING, actor=actor)
    finish_if_over(tx, run_id)  # its pilot may have come to its end meanwhile


def _step_of(state: str) -> StepName:
    """The step that moves a batch on from a state."""
    if state in (BatchState.PLANNED, BatchState.SUBMITTING, BatchState.SUBMIT_UNKNOWN):
        return StepName.SUBMIT
    return StepName.INGEST if state == BatchState.INGESTING else StepName.POLL


def _wake(tx: Connection, run_id: int) -> None:
    """Make all that a wish about a run may concern due: its own step, its batches, the processing of what waits."""
    open_states = [state.value for state in OPEN_BATCH_STATES if state != BatchState.INGESTING]
    for batch in db.rows(
        tx,
        "SELECT id, state FROM batches WHERE run_id = :run AND state = ANY(:open) ORDER BY id",
        run=run_id,
        open=open_states,
    ):
        due(tx, _step_of(batch.state), batch.id)
    for (batch_id,) in db.rows(
        tx,
        "SELECT batch_id FROM tallies WHERE run_id = :run AND scope = 'items' AND batch_id IS NOT NULL "
        "GROUP BY batch_id HAVING sum(succeeded) > sum(ok) + sum(invalid) ORDER BY batch_id",
        run=run_id,
    ):
        due(tx, StepName.PROCESS, batch_id)
    # Last, as a batch that ends has it: in one order, wishes and steps do not wait for each other.
    planned = db.scalar(tx, "SELECT planned_at IS NOT NULL FROM runs WHERE id = :run", run=run_id)
    if planned is not None:
        due(tx, StepName.RESUBMIT if planned else StepName.PLAN, run_id)


def _wake_batch(tx: Connection, batch_id: int) -> None:
    state = db.scalar(tx, "SELECT state FROM batches WHERE id = :id", id=batch_id)
    if state is not None:
        due(tx, _step_of(state), batch_id)


def _run(tx: Connection, run_id: int) -> Any:
    run = db.row(
        tx,
        "SELECT id, state, planned_at, pause_wanted_at, cancel_wanted_at FROM runs WHERE id = :id FOR UPDATE",
        id=run_id,
    )
    if run is None:
        raise NotFound(f"There is no run {run_id}.")
    return run


def _batch(tx: Connection, batch_id: int) -> Any:
    batch = db.row(
        tx,
        "SELECT id, run_id, state, api_created_at < now() - make_interval(days => :days) AS vanished FROM batches "
        "WHERE id = :id FOR UPDATE",
        id=batch_id,
        days=RESULTS_DAYS,
    )
    if batch is None:
        raise NotFound(f"There is no batch {batch_id}.")
    return batch
