"""The step `drop`: the payloads of runs that were over long ago go, if the installation wants that; ledger, outputs,
states and counts stay. What `doctor` tells of what is stored and of what would go is read here, too.

Payloads are the own parts of requests, the verbatim lines of results, and images that no present record and no run that
keeps its payloads needs. A run that is not over, has a step, or has answers without an output keeps all of them. The
step is the installation's, not a run's: one worker at a time does it, in chunks, each of which frees room for the next.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.batches import leaving
from webapp.batches.books import note
from webapp.batches.desk import Desk
from webapp.batches.states import OPEN_BATCH_STATES
from webapp.batches.steps import Lease, StepName, due
from webapp.settings import Settings

TARGET = 0  # of the one step there is
EVERY = 21_600.0  # seconds between looks: it is days that are counted
TURN_SECONDS = 20.0  # after so long the worker takes other work first, and comes back
PAGE = 2_000  # items whose payloads go in one transaction
IMAGES = 500  # that are looked at in one transaction
MOST_RUNS = 100  # that are looked for at once
VACUUM_ROWS = 10_000  # dropped in one turn: the server is not left to notice by itself
TABLES = ("item_params", "results", "blobs")

# Of runs r: over for `:days`, with nothing to come that may need a payload.
LONG_OVER = """
    r.state IN ('finished', 'cancelled') AND r.payloads_dropped_at IS NULL
    AND r.state_since < now() - make_interval(days => :days)
    AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.run_id = r.id AND b.state = ANY(:open))
    AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.target_id = r.id AND s.step IN ('plan', 'resubmit'))
    AND NOT EXISTS (SELECT 1 FROM batches b JOIN steps s ON s.target_id = b.id
                    AND s.step IN ('submit', 'poll', 'ingest', 'process') WHERE b.run_id = r.id)
    AND NOT EXISTS (SELECT 1 FROM tallies t WHERE t.run_id = r.id AND t.scope = 'items'
                    HAVING sum(t.pending) <> 0 OR sum(t.succeeded) <> sum(t.ok) + sum(t.invalid))
"""
# Of images b: some record needs it, present or staged, or gone but of a revision that a run with its payloads is over.
NEEDED = """
    EXISTS (SELECT 1 FROM subjects s WHERE s.image = b.sha256 AND (s.gone_in IS NULL OR EXISTS (
        SELECT 1 FROM runs r WHERE r.dataset_id = s.dataset_id AND r.payloads_dropped_at IS NULL
        AND r.revision >= s.added_in AND r.revision < s.gone_in)))
    OR b.sha256 IN (SELECT u.image FROM upload_records u WHERE u.image IS NOT NULL)
"""


def wake(settings: Settings) -> None:
    """Have the step look, where payloads are not kept for ever. The clock does so now and then; may be repeated."""
    if settings.keep_payloads:
        with db.transaction() as tx:
            due(tx, StepName.DROP, TARGET)


def drop(desk: Desk, lease: Lease) -> float | None:
    """Drop what its time has come for. 0.0 when there is more to do, else None."""
    days = desk.settings.keep_payloads
    if not days:
        return None
    end = time.monotonic() + TURN_SECONDS
    dropped, more = _drop_runs(lease, days, end)
    if not more:
        dropped += _drop_images(lease)
    if dropped >= VACUUM_ROWS:
        db.vacuum(*TABLES)
    return 0.0 if more else None


def _drop_runs(lease: Lease, days: int, end: float) -> tuple[int, bool]:
    """Run after run, until there are none or the turn is over: how many payloads went, and whether there are more."""
    dropped = 0
    with db.transaction() as tx:
        lease.hold(tx)
        begun = db.rows(tx, "SELECT id FROM runs WHERE payloads_position IS NOT NULL ORDER BY id")
        over = _long_over(tx, days)
    for (run_id,) in (*begun, *over):
        if not _begin(lease, run_id, days):
            continue
        left = True
        while left:
            if time.monotonic() >= end:
                return dropped, True
            number, left = _drop_some(lease, run_id)
            dropped += number
            leaving.look()
    return dropped, len(over) == MOST_RUNS


def _long_over(tx: Connection, days: int) -> Any:
    return db.rows(
        tx,
        f"SELECT r.id FROM runs r WHERE {LONG_OVER} ORDER BY r.id LIMIT :limit",  # noqa: S608 - a constant
        limit=MOST_RUNS,
        **_binds(days),
    )


def _binds(days: int) -> dict[str, Any]:
    return {"days": days, "open": [state.value for state in OPEN_BATCH_STATES]}


def _begin(lease: Lease, run_id: int, days: int) -> bool:
    """Note that a run's payloads go, from which moment on nobody may ask for what needs them; False: they do not."""
    with db.transaction() as tx:
        lease.hold(tx)
        # Whoever wants something of it locks it first: so they are seen below, or see that it is too late.
        run = db.row(tx, "SELECT payloads_position FROM runs WHERE id = :id FOR UPDATE", id=run_id)
        if run.payloads_position is not None:
            return True
        begun = db.run(
            tx,
            f"UPDATE runs r SET payloads_dropped_at = now(), payloads_position = -1 WHERE r.id = :id AND {LONG_OVER}",  # noqa: S608 - a constant
            id=run_id,
            **_binds(days),
        )
        if begun:
            words = f"Its payloads are dropped: it has been over for {days} days. Outputs, costs and counts stay."
            note(tx, run_id=run_id, actor="drop", reason=words)
    return bool(begun)


def _drop_some(lease: Lease, run_id: int) -> tuple[int, bool]:
    """Drop the payloads of a run's next items: how many went, and whether there are more."""
    with db.transaction(by_key=True, lazily=True) as tx:
        lease.progress(tx)
        page = db.rows(
            tx,
            "SELECT i.id, i.position FROM runs r JOIN items i ON i.run_id = r.id AND i.position > r.payloads_position "
            "WHERE r.id = :run ORDER BY i.position LIMIT :page",
            run=run_id,
            page=PAGE,
        )
        ids = db.array(item.id for item in page)
        dropped = db.run(tx, "DELETE FROM item_params WHERE item_id = ANY(CAST(:ids AS bigint[]))", ids=ids)
        dropped += db.run(
            tx,
            """
            UPDATE results SET line = NULL FROM (
                SELECT r.id FROM requests r LEFT JOIN outputs o ON o.request_id = r.id
                WHERE r.item_id = ANY(CAST(:ids AS bigint[])) AND (r.state <> 'succeeded' OR o.request_id IS NOT NULL)
            ) AS done WHERE results.request_id = done.id AND results.line IS NOT NULL
            """,
            ids=ids,
        )
        left = len(page) == PAGE
        db.run(
            tx,
            "UPDATE runs SET payloads_position = CAST(:position AS int) WHERE id = :id",
            position=page[-1].position if left else None,
            id=run_id,
        )
    return dropped, left


def _drop_images(lease: Lease) -> int:
    """Delete the images that nothing needs any more; how many.

    Not one that an import has seen within a day: its record may be written, and not yet be committed.
    """
    dropped, last = 0, b""
    while True:
        with db.transaction(by_key=True) as tx:
            lease.progress(tx)
            seen = db.rows(
                tx,
                "SELECT sha256 FROM blobs WHERE sha256 > :last ORDER BY sha256 LIMIT :limit",
                last=last,
                limit=IMAGES,
            )
            if not seen:
                return dropped
            dropped += db.run(
                tx,
                "DELETE FROM blobs b WHERE b.sha256 > :last AND b.sha256 <= :until "  # noqa: S608 - a constant
                f"AND b.wanted_at < now() - interval '1 day' AND NOT ({NEEDED})",
                last=last,
                until=seen[-1].sha256,
            )
        leaving.look()
        last = bytes(seen[-1].sha256)


# -- what is told of it --------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """What payloads take, and what dropping them after some days would take away now.

    :param size: bytes of the tables that hold them, with their indexes and the room in them that is free.
    """

    size: int
    runs: int
    requests: int
    dropped: int


def stored(tx: Connection, days: int) -> Stored:
    """How much of payloads there is, how many runs with how many requests would lose theirs, and how many have."""
    size = db.scalar(
        tx,
        "SELECT sum(pg_total_relation_size(CAST(name AS regclass))) FROM unnest(CAST(:names AS text[])) AS name",
        names=list(TABLES),
    )
    would = db.row(
        tx,
        "SELECT count(*) AS runs, coalesce(sum((SELECT sum(b.total) FROM batches b WHERE b.run_id = r.id)), 0) "  # noqa: S608 - a constant
        f"AS requests FROM runs r WHERE {LONG_OVER}",
        **_binds(days),
    )
    dropped = db.scalar(tx, "SELECT count(*) FROM runs WHERE payloads_dropped_at IS NOT NULL")
    return Stored(int(size), int(would.runs), int(would.requests), int(dropped))
