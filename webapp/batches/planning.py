"""The step `plan`: the task builds its requests, they are committed, and the run is cut into batches.
Runs in a worker; killed anywhere, it goes on where its last committed chunk ended and cuts the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection

from webapp import db
from webapp.batches import encoding, leaving
from webapp.batches.ahead import ahead
from webapp.batches.completion import finish_if_over
from webapp.batches.desk import Desk
from webapp.batches.sharding import cut_pending
from webapp.batches.states import FailureClass, RequestState, RunState, move_run, note, stop_unsent, tally
from webapp.batches.steps import Lease
from webapp.errors import InputError, NotFound, PluginError
from webapp.hooks import Image, Subject, Task, calls
from webapp.records import jsontext
from webapp.records.escapes import storable

CHUNK_ROWS = 1000
CHUNK_BYTES = 8_000_000
MOST_STARTS = 5  # without any progress: whoever builds these requests does not survive it

ITEM_COLUMNS = (
    "id", "run_id", "subject_id", "position", "size", "attempts", "subject_type", "state", "failure_class", "error"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What every chunk of one run's planning needs."""

    run_id: int
    dataset_id: int
    token: str
    text_field: str
    task: Task[Any]
    settings: BaseModel
    shared: dict[str, Any]
    shared_bytes: int
    max_request_bytes: int


def plan(desk: Desk, lease: Lease) -> float | None:
    """Build a run's items and batches, then set it running.

    A task that is not there, or whose shared part cannot be sent, pauses the run and says so.
    """
    try:
        run_plan = _prepare(desk, lease)
        if run_plan is not None and lease.starts > MOST_STARTS:
            raise PluginError(_deadly(run_plan))
    except (NotFound, PluginError, InputError) as error:
        with db.transaction() as tx:
            lease.hold(tx)
            move_run(tx, lease.target_id, RunState.PAUSED, actor="plan", reason=str(error))
        return None
    if run_plan is None:
        return None
    for built in ahead(_chunks(run_plan)):
        _store(run_plan, lease, built)
        if _cancelled(run_plan.run_id):
            break
        leaving.look()
    if not _cancelled(run_plan.run_id):
        cut_pending(desk.settings, lease, run_plan.run_id)
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


def _cancelled(run_id: int) -> bool:
    with db.transaction() as tx:
        return _wants_cancel(tx, run_id)


def _wants_cancel(tx: Connection, run_id: int) -> bool:
    return bool(db.scalar(tx, "SELECT cancel_wanted_at IS NOT NULL FROM runs WHERE id = :id", id=run_id))


def _deadly(plan: RunPlan) -> str:
    with db.transaction() as tx:
        last = db.scalar(
            tx,
            "SELECT s.key FROM items i JOIN subjects s ON s.id = i.subject_id WHERE i.run_id = :run "
            "ORDER BY i.position DESC LIMIT 1",
            run=plan.run_id,
        )
    where = f"after record '{last}'" if last is not None else "at its first records"
    return (
        f"Task '{plan.task.name}' killed its worker {MOST_STARTS} times while building requests {where}: "
        "mend the task or take those records out, then resume."
    )


def _prepare(desk: Desk, lease: Lease) -> RunPlan | None:
    with db.transaction() as tx:
        run = db.row(
            tx,
            "SELECT r.state, r.dataset_id, r.token, r.task, r.settings::text AS settings, r.shared::text AS shared, "
            "d.text_field FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.id = :id",
            id=lease.target_id,
        )
    if run is None or run.state != RunState.PLANNING:
        return None
    task = desk.registry.task(run.task)
    settings = desk.registry.parse_settings(task, jsontext.loads(run.settings))
    shared = run.shared or _store_shared(lease, run.token, calls.shared_params(task, settings))
    shared_bytes = len(shared.encode())
    return RunPlan(
        run_id=lease.target_id,
        dataset_id=run.dataset_id,
        token=run.token,
        text_field=run.text_field,
        task=task,
        settings=settings,
        shared=jsontext.loads(shared),
        shared_bytes=shared_bytes,
        max_request_bytes=min(encoding.MAX_REQUEST_BYTES, encoding.room_for_one(desk.settings.batch_max_bytes)),
    )


def _store_shared(lease: Lease, token: str, params: dict[str, Any]) -> str:
    shared = encoding.encode(params, token)
    with db.transaction() as tx:
        lease.hold(tx)
        db.run(tx, "UPDATE runs SET shared = CAST(:s AS json) WHERE id = :id", s=shared, id=lease.target_id)
    return shared


def _chunks(plan: RunPlan) -> Iterator[list[tuple[tuple[Any, ...], str | None]]]:
    """Items as `_build` makes them, in chunks, from the first subject on that has none."""
    with db.transaction() as tx:
        last = db.scalar(tx, "SELECT max(position) FROM items WHERE run_id = :run", run=plan.run_id)
    after = -1 if last is None else last
    while True:
        with db.transaction(by_key=True) as tx:
            subjects = _next_subjects(tx, plan, after)
            ids = _reserve_ids(tx, len(subjects))
        if not subjects:
            return
        yield [_build(plan, item_id, subject) for item_id, subject in zip(ids, subjects, strict=True)]
        after = subjects[-1].position


def _store(plan: RunPlan, lease: Lease, built: list[tuple[tuple[Any, ...], str | None]]) -> None:
    """Commit a chunk of items."""
    with db.transaction() as tx:
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
    last = db.scalar(
        tx,
        """
        SELECT max(position) FROM (
            SELECT position, row_number() OVER w AS nth, sum(size) OVER w - size AS before FROM (
                SELECT position, size FROM subjects WHERE dataset_id = :dataset AND position > :after
                ORDER BY position LIMIT :rows
            ) AS next WINDOW w AS (ORDER BY position)
        ) AS sized WHERE nth = 1 OR before < :bytes
        """,
        dataset=plan.dataset_id,
        after=after,
        rows=CHUNK_ROWS,
        bytes=CHUNK_BYTES,
    )
    if last is None:
        return []
    return db.rows(
        tx,
        """
        SELECT s.id, s.position, s.kind, s.key, s.data::text AS data, encode(s.image, 'hex') AS image,
               b.media_type, b.width, b.height, b.size
        FROM subjects s LEFT JOIN blobs b ON b.sha256 = s.image
        WHERE s.dataset_id = :dataset AND s.position > :after AND s.position <= :last ORDER BY s.position
        """,
        dataset=plan.dataset_id,
        after=after,
        last=last,
    )


def _reserve_ids(tx: Connection, count: int) -> Iterable[int]:
    """Item ids known before they are written, so that both tables of an item can be COPYed."""
    sequence = "pg_get_serial_sequence('items', 'id')"
    return [n for (n,) in db.rows(tx, f"SELECT nextval({sequence}) FROM generate_series(1, :n)", n=count)]  # noqa: S608


def subject_payload(row: Any, text_field: str) -> Subject:
    """A row of subjects (with its blob) as plugins get it."""
    data = jsontext.loads(row.data)
    image = Image(row.image, row.media_type, row.width, row.height) if row.image else None
    text = data.get(text_field)
    return Subject(row.kind, row.key, data, image, text if isinstance(text, str) else None)


def _build(plan: RunPlan, item_id: int, row: Any) -> tuple[tuple[Any, ...], str | None]:
    """The item's row and its own part; an item that cannot be sent has its error and no own part."""
    try:
        subject = subject_payload(row, plan.text_field)
        params = calls.request_params(plan.task, subject, plan.settings, plan.shared)
        own = encoding.encode(params, plan.token)
        own_bytes = encoding.sent_bytes(own.encode(), encoding.mark_pattern(plan.token), lambda _: row.size)
        _check_size(plan, own_bytes)
    except (InputError, PluginError, TypeError, ValueError, RecursionError) as error:
        fault = storable(str(error))
        failed = (RequestState.ERRORED.value, FailureClass.FIX.value, fault)
        return (item_id, plan.run_id, row.id, row.position, 0, 0, row.kind, *failed), None
    pending = (RequestState.PENDING.value, None, None)
    return (item_id, plan.run_id, row.id, row.position, own_bytes, 1, row.kind, *pending), own


def _check_size(plan: RunPlan, own_bytes: int) -> None:
    size = encoding.params_bytes(plan.shared_bytes, own_bytes)
    if size > plan.max_request_bytes:
        raise InputError(
            f"The request is {size:,} bytes once built; the most that can be sent is {plan.max_request_bytes:,}. "
            "It was not sent: shorten the record."
        )
