"""The step `plan`: the task builds its requests, they are committed, and the run is cut into batches.
Runs in a worker; killed anywhere, it goes on where its last committed chunk ended and cuts the same way. The task
itself is called in `webapp.batches.building`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import checking, leaving, vanguard
from webapp.batches.ahead import ahead
from webapp.batches.books import note, tally
from webapp.batches.building import Mould, own_parts, shared_part
from webapp.batches.completion import finish_if_over
from webapp.batches.desk import Desk
from webapp.batches.outcomes import stop_unsent
from webapp.batches.sharding import cut_pending
from webapp.batches.states import FailureClass, RequestState, RunState, move_run
from webapp.batches.steps import Lease
from webapp.errors import InputError, NotFound, PluginError
from webapp.money import estimating
from webapp.records.escapes import storable
from webapp.runs import selections

CHUNK_ROWS = 2000
CHUNK_BYTES = 8_000_000
CHUNK_SECONDS = 60.0  # of plugin code: then what is built is committed, however few
MOST_STARTS = 5  # without any progress: the worker does not survive it, and no further one is sent after it

ITEM_COLUMNS = (
    "id", "run_id", "subject_id", "position", "size", "attempts", "subject_type", "state", "failure_class", "error"
)  # fmt: skip

Built = tuple[Sequence[Any], str | None]  # an item's row in the order of ITEM_COLUMNS, and its own part if it has one


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What every chunk of one run's planning needs."""

    run_id: int
    dataset_id: int
    revision: int  # of the dataset
    selected: bool  # over some subjects of the dataset only
    mould: Mould


def plan(desk: Desk, lease: Lease) -> float | None:
    """Build a run's items and batches, then set it running.

    A task that is not there, or whose shared part cannot be sent, pauses the run and says so.
    """
    try:
        run_plan = _prepare(desk, lease)
    except (NotFound, PluginError, InputError) as error:
        with db.transaction() as tx:
            lease.hold(tx)
            move_run(tx, lease.target_id, RunState.PAUSED, actor="plan", reason=str(error))
        return None
    if run_plan is None:
        _end_if_cancelled(lease)
        return None
    for built in ahead(_chunks(run_plan)):
        _store(run_plan, lease, built)
        if _cancelled(run_plan.run_id):
            break
        leaving.look()
    if not _cancelled(run_plan.run_id):
        estimating.estimate(desk, lease)
        if not checking.let_go(desk, lease):
            return None
        with db.transaction() as tx:
            ahead_of_it = vanguard.leading(tx, run_plan.run_id)
        cut_pending(desk.settings, lease, run_plan.run_id, leading=ahead_of_it)
    with db.transaction() as tx:
        lease.hold(tx)
        _planned(tx, run_plan.run_id)
    return None


def _planned(tx: Connection, run_id: int) -> None:
    """The end of planning: on to running, unless somebody wants something else of the run meanwhile."""
    run = db.row(
        tx,
        "UPDATE runs SET planned_at = now() WHERE id = :id RETURNING state, pause_wanted_at IS NOT NULL AS pause, "
        "cancel_wanted_at IS NOT NULL AS cancel, reason",
        id=run_id,
    )
    if run.cancel:
        stop_unsent(tx, run_id)
    if run.state == RunState.PLANNING:
        paused = run.pause and not run.cancel
        move_run(tx, run_id, RunState.PAUSED if paused else RunState.RUNNING, actor="plan", reason=run.reason)
    finish_if_over(tx, run_id)


def _end_if_cancelled(lease: Lease) -> None:
    """End what a person has cancelled while it was paused with requests built and no batch yet."""
    run_id = lease.target_id
    with db.transaction() as tx:
        lease.hold(tx)
        state = db.scalar(tx, "SELECT state FROM runs WHERE id = :id", id=run_id)
        if state == RunState.PAUSED and _wants_cancel(tx, run_id):
            stop_unsent(tx, run_id)
            finish_if_over(tx, run_id)


def _cancelled(run_id: int) -> bool:
    with db.transaction() as tx:
        return _wants_cancel(tx, run_id)


def _wants_cancel(tx: Connection, run_id: int) -> bool:
    return bool(db.scalar(tx, "SELECT cancel_wanted_at IS NOT NULL FROM runs WHERE id = :id", id=run_id))


def _deadly(run_id: int) -> str:
    """Where a worker was that died again and again. What the task does to its own process is told of its record."""
    with db.transaction() as tx:
        at = db.row(
            tx,
            "SELECT r.subjects, count(i.id) AS built, (SELECT s.key FROM items l "
            "JOIN subjects s ON s.id = l.subject_id WHERE l.run_id = r.id ORDER BY l.position DESC LIMIT 1) AS last "
            "FROM runs r LEFT JOIN items i ON i.run_id = r.id WHERE r.id = :run GROUP BY r.id",
            run=run_id,
        )
    where = "at its beginning"
    if at.built:
        where = f"after the request of record '{at.last}' was built"
    if at.built == at.subjects:
        where = "while it cut the run into batches, all requests being built"
    return (
        f"The worker that plans this run died {MOST_STARTS} times in a row {where}. See its log and the memory of its "
        "machine, then resume."
    )


def _prepare(desk: Desk, lease: Lease) -> RunPlan | None:
    with db.transaction() as tx:
        run = db.row(
            tx,
            f"SELECT r.state, r.dataset_id, r.revision, {selections.SELECTED} AS selected, r.token, r.task, "  # noqa: S608 - a constant
            "r.settings::text AS settings, r.plugin_version_id, r.shared::text AS shared, d.text_field "
            "FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.id = :id",
            id=lease.target_id,
        )
    if run is None or run.state != RunState.PLANNING:
        return None
    if lease.starts > MOST_STARTS:
        raise PluginError(_deadly(lease.target_id))
    task, settings = desk.task_of(run)
    shared = run.shared or _store_shared(lease, shared_part(task, settings, run.token))
    mould = Mould.of(
        task, settings, shared, token=run.token, text_field=run.text_field, max_bytes=desk.settings.batch_max_bytes
    )
    return RunPlan(lease.target_id, run.dataset_id, run.revision, run.selected, mould)


def _store_shared(lease: Lease, shared: str) -> str:
    with db.transaction() as tx:
        lease.hold(tx)
        db.run(tx, "UPDATE runs SET shared = CAST(:s AS json) WHERE id = :id", s=shared, id=lease.target_id)
    return shared


def _chunks(plan: RunPlan) -> Iterator[list[Built]]:
    """Items as `_built` makes them, in chunks, from the first subject on that has none."""
    with db.transaction() as tx:
        last = db.scalar(tx, "SELECT max(position) FROM items WHERE run_id = :run", run=plan.run_id)
    after = -1 if last is None else last
    while True:
        with db.transaction(by_key=True) as tx:
            subjects = _next_subjects(tx, plan, after)
            ids = _reserve_ids(tx, len(subjects))
        if not subjects:
            return
        built = _built(plan, list(zip(ids, subjects, strict=True)))
        yield built
        after = subjects[len(built) - 1].position


def _store(plan: RunPlan, lease: Lease, built: list[Built]) -> None:
    """Commit a chunk of items."""
    with db.transaction(lazily=True) as tx:
        lease.progress(tx)
        db.copy_rows(tx, "items", ITEM_COLUMNS, (item for item, _ in built))
        db.copy_rows(tx, "item_params", ("item_id", "own"), ((i[0], own) for i, own in built if own is not None))
        states = Counter(str(item[7]) for item, _ in built)
        tally(tx, "items", states, run_id=plan.run_id)
        if states[RequestState.ERRORED]:
            note(
                tx,
                run_id=plan.run_id,
                actor="plan",
                reason=f"{states[RequestState.ERRORED]} records could not be made into requests and will not be sent.",
            )


def _next_subjects(tx: Connection, plan: RunPlan, after: int) -> Sequence[Any]:
    """The subjects after a position, bounded by count and by bytes."""
    subjects, position = selections.after(selected=plan.selected)
    last = db.scalar(
        tx,
        f"""
        SELECT max(position) FROM (
            SELECT position, row_number() OVER w AS nth, sum(size) OVER w - size AS before FROM (
                SELECT {position} AS position, s.size {subjects} ORDER BY {position} LIMIT :rows
            ) AS next WINDOW w AS (ORDER BY position)
        ) AS sized WHERE nth = 1 OR before < :bytes
        """,  # noqa: S608 - constants
        run=plan.run_id,
        dataset=plan.dataset_id,
        revision=plan.revision,
        after=after,
        rows=CHUNK_ROWS,
        bytes=CHUNK_BYTES,
    )
    if last is None:
        return []
    return db.rows(
        tx,
        f"""
        SELECT s.id, s.position, s.kind, s.key, s.data::text AS data, encode(s.image, 'hex') AS image,
               b.media_type, b.width, b.height, b.size
        FROM (SELECT s.* {subjects} AND {position} <= :last) AS s LEFT JOIN blobs b ON b.sha256 = s.image
        ORDER BY s.position
        """,  # noqa: S608 - likewise
        run=plan.run_id,
        dataset=plan.dataset_id,
        revision=plan.revision,
        after=after,
        last=last,
    )


def _reserve_ids(tx: Connection, count: int) -> Iterable[int]:
    """Item ids known before they are written, so that both tables of an item can be COPYed."""
    sequence = "pg_get_serial_sequence('items', 'id')"
    return [n for (n,) in db.rows(tx, f"SELECT nextval({sequence}) FROM generate_series(1, :n)", n=count)]  # noqa: S608


def _built(plan: RunPlan, chunk: Sequence[tuple[int, Any]]) -> list[Built]:
    """The items of (item id, subject's row); one that cannot be sent has its error and no own part.

    Those that do not fit the chunk's bytes or time are left for the next.
    """
    built: list[Built] = []
    size = 0
    end = time.monotonic() + CHUNK_SECONDS
    for (item_id, row), own in own_parts(plan.mould, chunk, row_of=lambda one: one[1]):
        item = (item_id, plan.run_id, row.id, row.position, own.size)
        if own.fault is not None:
            failed = (RequestState.ERRORED.value, FailureClass.FIX.value, storable(own.fault))
            built.append(((*item, 0, row.kind, *failed), None))
        else:
            built.append(((*item, 1, row.kind, RequestState.PENDING.value, None, None), own.text))
        size += len(own.text or "")
        if size >= CHUNK_BYTES or time.monotonic() >= end:
            break
    return built
