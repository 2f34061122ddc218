"""The step `deliver`: the outputs of a run go to a sink, in chunks, or a plugin is told that a run is over.
Runs in a worker; no transaction is open while a plugin is at work, which it is in a process of its own, with bounds.

At least once: a chunk that was taken and not noted goes again with the same key. Whatever happens to a delivery, its
run and its batches stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches import leaving
from webapp.batches.books import note
from webapp.batches.bounded import Bounds, Broke, bounded
from webapp.batches.desk import Desk
from webapp.batches.facts import run_facts
from webapp.batches.states import DeliveryState, RunState, move_delivery
from webapp.batches.steps import Lease
from webapp.delivery.deliveries import Kind, give_way, tell_each, whither
from webapp.errors import BatchdeskError
from webapp.hooks import OutputRecord, calls
from webapp.hooks.calls import Trouble
from webapp.installed.configuring import settings_of
from webapp.records import jsontext
from webapp.records.escapes import one_line

CHUNK_ROWS = 1_000
CHUNK_BYTES = 4_000_000  # of outputs and records; one that is longer goes alone
BOUNDS = Bounds(cpu=60, wall=120.0)  # of a plugin, for one chunk
TURN_SECONDS = 20.0  # after so long the worker takes other work first, and comes back
LOOK_SECONDS = 2.0  # until it is looked again whether the outputs of a run are made
MOST_FAILURES = 12  # in a row; with the delays between them, some three and a half hours
FIRST_DELAY, MOST_DELAY = 10.0, 3600.0
MOST_STARTS = 5  # without any progress: the worker does not survive it
ACTOR = "deliver"

Deed = Callable[[], Trouble | None]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some outputs, and the position of the last of them."""

    outputs: list[OutputRecord]
    position: int


def deliver(desk: Desk, lease: Lease) -> float | None:
    """Go on with a delivery; seconds until it is to be looked at again, or None."""
    delivery = _begin(lease)
    if isinstance(delivery, float):
        return delivery
    if delivery is None:
        return None
    if lease.starts > MOST_STARTS:
        words = f"The worker that was at it died {MOST_STARTS} times in a row: see its log and its machine's memory."
        _give_up(lease, delivery, words)
        return None
    if delivery.kind == Kind.SINK and not delivery.enabled and delivery.sink is not None:
        _rest(lease, delivery, "The destination is disabled: the delivery waits until it is enabled.")
        return None
    if delivery.kind == Kind.NEWS:
        _to_each(desk, lease, delivery)
        return None
    try:
        if delivery.kind == Kind.SINK:
            return _to_sink(desk, lease, delivery)
        return _to_hook(desk, lease, delivery)
    except _Gone as error:
        _give_up(lease, delivery, str(error))
        return None


class _Gone(BatchdeskError):
    """What a delivery needs is not there any more; waiting does not bring it back."""


def _begin(lease: Lease) -> Any:
    """The delivery that is to be done; None: there is nothing to do; seconds: outputs of its run are still being made.

    Who changes outputs locks what has not begun: so they are either read by it, or another round is made. What has not
    begun when its run is under way again is given up: the run's next end makes a round for whoever is there then.
    """
    with db.transaction() as tx:
        lease.hold(tx)
        mine = "SELECT id FROM runs WHERE id = (SELECT run_id FROM deliveries WHERE id = :id) FOR SHARE"
        db.row(tx, mine, id=lease.target_id)
        found = db.row(tx, "SELECT started_at FROM deliveries WHERE id = :id FOR UPDATE", id=lease.target_id)
        delivery = db.row(
            tx,
            "SELECT v.id, v.run_id, v.kind, v.name, v.round, v.token, v.state, v.position, v.outputs, r.state AS run, "
            "d.sink, d.settings::text AS settings, d.enabled, EXISTS (SELECT 1 FROM steps s JOIN batches b "
            "ON b.id = s.target_id WHERE s.step = 'process' AND b.run_id = v.run_id) AS processing "
            "FROM deliveries v JOIN runs r ON r.id = v.run_id "
            "LEFT JOIN destinations d ON v.kind = 'sink' AND d.name = v.name WHERE v.id = :id",
            id=lease.target_id,
        )
        if delivery is None or delivery.state != DeliveryState.WAITING:
            return None
        if found.started_at is None:
            if delivery.run not in (RunState.FINISHED, RunState.CANCELLED):
                give_way(tx, delivery)
                return None
            if delivery.processing:
                return LOOK_SECONDS
            db.run(tx, "UPDATE deliveries SET started_at = now() WHERE id = :id", id=delivery.id)
        return delivery


# -- to a sink ---------------------------------------------------------------------------------------------------


def _to_sink(desk: Desk, lease: Lease, delivery: Any) -> float | None:
    if delivery.sink is None:
        raise _Gone("There is no destination of that name any more: make it anew, then try again.")
    try:
        sink = desk.registry.sink(delivery.sink)
        settings = desk.registry.parse_settings(sink, jsontext.loads(delivery.settings))
    except BatchdeskError as error:
        raise _Gone(f"{error} Mend that, then try again.") from None
    with db.transaction() as tx:
        facts = run_facts(tx, delivery.run_id)
    end = time.monotonic() + TURN_SECONDS
    for chunk in _chunks(delivery.run_id, delivery.position):
        key = f"{delivery.token}-{chunk.position}"
        trouble = _bounded(lambda chunk=chunk, key=key: calls.deliver(sink, facts, chunk.outputs, settings, key))  # type: ignore[misc]
        if trouble is not None:
            return _failed(lease, delivery, trouble)
        if not _taken(lease, delivery, chunk):
            return None
        leaving.look()
        if time.monotonic() >= end:
            return 0.0
    _done(lease, delivery)
    return None


def _chunks(run_id: int, after: int) -> Iterator[Chunk]:
    """The outputs of a run after a position, in the order of its input, bounded by count and bytes.

    The cut depends on what is stored alone: a chunk that goes again is the same.
    """
    while True:
        with db.transaction(by_key=True) as tx:
            chunk = _next(tx, run_id, after)
        if chunk is None:
            return
        yield chunk
        after = chunk.position


def _next(tx: Connection, run_id: int, after: int) -> Chunk | None:
    page = db.rows(
        tx,
        """
        WITH page AS MATERIALIZED (
            SELECT i.id, i.position, i.subject_id, i.attempts, i.output_state, i.error FROM items i
            WHERE i.run_id = :run AND i.position > :after AND i.output_state IN ('ok', 'invalid')
            ORDER BY i.position LIMIT :limit
        ), sized AS (
            SELECT page.*, o.request_id, o.custom_id, s.key, row_number() OVER w AS nth,
                   sum(s.size + coalesce(o.size, 0)) OVER w AS size
            FROM page JOIN subjects s ON s.id = page.subject_id CROSS JOIN LATERAL (
                SELECT r.id AS request_id, r.custom_id, octet_length(o.value::text) AS size
                FROM requests r JOIN outputs o ON o.request_id = r.id
                WHERE r.item_id = page.id AND (o.state = 'ok' OR page.output_state = 'invalid'
                                               AND r.attempt = page.attempts)
                ORDER BY r.attempt LIMIT 1
            ) AS o
            WINDOW w AS (ORDER BY page.position)
        )
        SELECT sized.position, sized.output_state, sized.error, sized.custom_id, sized.key,
               (SELECT o.value::text FROM outputs o WHERE o.request_id = sized.request_id AND o.state = 'ok') AS value,
               (SELECT s.data::text FROM subjects s WHERE s.id = sized.subject_id) AS data
        FROM sized WHERE nth = 1 OR size <= :bytes ORDER BY sized.position
        """,
        run=run_id,
        after=after,
        limit=CHUNK_ROWS,
        bytes=CHUNK_BYTES,
    )
    return Chunk([_record(line) for line in page], page[-1].position) if page else None


def _record(line: Any) -> OutputRecord:
    ok = line.output_state == "ok"
    return OutputRecord(
        custom_id=line.custom_id,
        key=line.key,
        status="succeeded" if ok else "invalid",
        output=jsontext.loads(line.value) if ok else None,
        error=None if ok else line.error or "The answer is no use.",
        data=jsontext.loads(line.data),
    )


def _taken(lease: Lease, delivery: Any, chunk: Chunk) -> bool:
    """Note that a chunk was taken; False: the delivery was given up meanwhile."""
    with db.transaction() as tx:
        lease.progress(tx)
        noted = db.run(
            tx,
            "UPDATE deliveries SET position = :position, outputs = outputs + :count, failures = 0, reason = NULL "
            "WHERE id = :id AND state = 'waiting'",
            id=delivery.id,
            position=chunk.position,
            count=len(chunk.outputs),
        )
        return bool(noted)


# -- to a plugin's hook ------------------------------------------------------------------------------------------


def _to_each(desk: Desk, lease: Lease, delivery: Any) -> None:
    names = [one.plugin.name for one in desk.registry.listeners]
    with db.transaction() as tx:
        lease.progress(tx)
        tell_each(tx, delivery, names)


def _to_hook(desk: Desk, lease: Lease, delivery: Any) -> float | None:
    listener = next((one for one in desk.registry.listeners if one.plugin.name == delivery.name), None)
    if listener is None:
        raise _Gone("The plugin is not there any more, or has no on_run_finished: install it, then try again.")
    with db.transaction() as tx:
        facts = run_facts(tx, delivery.run_id)
        try:
            settings = settings_of(tx, desk.registry, listener.plugin)
        except BatchdeskError as error:
            raise _Gone(f"{error} Mend that, then try again.") from None
    trouble = _bounded(lambda: calls.tell(listener, facts, settings, delivery.token))
    if trouble is not None:
        return _failed(lease, delivery, trouble)
    _done(lease, delivery)
    return None


# -- what becomes of it ------------------------------------------------------------------------------------------


def _bounded(deed: Deed) -> Trouble | None:
    """Do something in a process of its own, and say what went wrong."""

    def work(_: None) -> Sequence[Any] | None:
        trouble = deed()
        return None if trouble is None else (trouble.words, trouble.retry_after)

    ((_, answer),) = bounded([None], work, BOUNDS)
    if isinstance(answer, Broke):
        return Trouble(f"it {answer.words}")
    return None if answer is None else Trouble(*answer)


def _failed(lease: Lease, delivery: Any, trouble: Trouble) -> float | None:
    """Note a try that came to nothing; the seconds until the next one, or None: there have been enough."""
    words = one_line(trouble.words, 2_000)
    with db.transaction() as tx:
        lease.hold(tx)
        failures = db.scalar(
            tx,
            "UPDATE deliveries SET failures = failures + 1, reason = :words WHERE id = :id AND state = 'waiting' "
            "RETURNING failures",
            id=delivery.id,
            words=words,
        )
        if failures is None:
            return None
        if failures >= MOST_FAILURES:
            told = f"{whither(delivery)} failed {failures} times in a row: {words}"
            move_delivery(tx, delivery.id, DeliveryState.FAILED, actor=ACTOR, words=told, reason=words)
            return None
        delay: float = min(max(FIRST_DELAY * 2 ** (failures - 1), trouble.retry_after or 0.0), MOST_DELAY)
        told = f"{whither(delivery)} failed, and is tried again in {delay:g} seconds: {words}"
        note(
            tx, run_id=delivery.run_id, actor=ACTOR, reason=told, kind="delivery", target=("delivery", str(delivery.id))
        )
        return delay


def _give_up(lease: Lease, delivery: Any, words: str) -> None:
    with db.transaction() as tx:
        lease.hold(tx)
        told = f"{whither(delivery)} failed: {words}"
        move_delivery(tx, delivery.id, DeliveryState.FAILED, actor=ACTOR, words=told, reason=words)


def _rest(lease: Lease, delivery: Any, words: str) -> None:
    with db.transaction() as tx:
        lease.hold(tx)
        db.run(tx, "UPDATE deliveries SET reason = :words WHERE id = :id", id=delivery.id, words=words)


def _done(lease: Lease, delivery: Any) -> None:
    with db.transaction() as tx:
        lease.progress(tx)
        words = f"Plugin '{delivery.name}' was told that the run is over."
        if delivery.kind == Kind.SINK:
            count = db.scalar(tx, "SELECT outputs FROM deliveries WHERE id = :id", id=delivery.id)
            words = f"{count:,} outputs were delivered to '{delivery.name}'."
        move_delivery(tx, delivery.id, DeliveryState.DELIVERED, actor=ACTOR, words=words)
