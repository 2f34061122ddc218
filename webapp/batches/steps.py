"""Work that is due, and who holds it: the leases and epochs of rule 2.
Steps take a lease here when their job starts and re-check it in every transaction that writes.

A row of `steps` is the truth that something is to be done; an RQ job is only a nudge to look at it.
All times are the database's own `now()`: the clocks of machines are never compared.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from flask import Flask, current_app
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from webapp import db
from webapp.errors import Fenced
from webapp.records.escapes import storable

LEASE_SECONDS = 20.0
RENUDGE_SECONDS = 5.0


class StepName(StrEnum):
    IMPORT = "import"  # of an upload: its records become a dataset, or refresh one
    PLAN = "plan"  # of a run: build requests, cut batches
    SUBMIT = "submit"  # of a batch: the one POST, or what became of it
    POLL = "poll"  # of a batch: ask the API how far it is
    INGEST = "ingest"  # of a batch: store its results
    PROCESS = "process"  # of a batch: results to outputs
    RESUBMIT = "resubmit"  # of a run: failures of class retry become new attempts
    LOOK = "look"  # of an account: which batches of the API no row knows
    REPEAT = "repeat"  # of a schedule: make its run, and say when it is due next
    INSTALL = "install"  # of an installation: get the plugin's wheel and look into it; once confirmed, try and keep it
    DROP = "drop"  # of the installation: payloads of runs that were over long ago
    DELIVER = "deliver"  # of a delivery: outputs to their destination, or word to a plugin that a run is over


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for one step until it lapses or another worker takes it over.

    `starts` counts how often it was taken since it last made progress: more than one means that
    whoever held it before died or failed on the same spot.
    """

    step: StepName
    target_id: int
    epoch: int
    starts: int

    def hold(self, tx: Connection, *, seconds: float = LEASE_SECONDS) -> None:
        """Lock the step for this transaction, check that it is still ours, and renew the lease.

        :raises Fenced: another worker has it.
        """
        held = db.run(
            tx,
            "UPDATE steps SET lease_until = now() + make_interval(secs => :seconds) "
            "WHERE step = :step AND target_id = :target AND epoch = :epoch",
            seconds=seconds,
            step=self.step,
            target=self.target_id,
            epoch=self.epoch,
        )
        if not held:
            raise Fenced(f"{self.step} {self.target_id}: epoch {self.epoch} is over")

    def progress(self, tx: Connection) -> None:
        """`hold`, and note that the step gets somewhere: earlier deaths no longer count."""
        self.hold(tx)
        if self.starts > 1:
            db.run(
                tx,
                "UPDATE steps SET starts = 1 WHERE step = :step AND target_id = :target",
                step=self.step,
                target=self.target_id,
            )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease from a thread while the step goes on: a POST, or a plugin, may be silent for long.

        The thread dies with the process, so a killed worker's lease lapses within LEASE_SECONDS.
        """
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        over = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(app, over), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()

    def _keep(self, app: Flask, over: threading.Event) -> None:
        with app.app_context():
            while not over.wait(LEASE_SECONDS / 5):
                try:
                    with db.transaction() as tx:
                        self.hold(tx)
                except Fenced:
                    return
                except SQLAlchemyError:
                    continue  # the database is away for a moment; the next round tries again


def due(tx: Connection, step: StepName, target_id: int, *, after: float = 0.0) -> None:
    """Say that a step is due `after` seconds from now (by the database's clock).

    An earlier due time that is already noted stays; a running step is not disturbed: it is looked at
    again when its lease ends.
    """
    db.run(
        tx,
        """
        INSERT INTO steps (step, target_id, due_at)
        VALUES (:step, :target, now() + make_interval(secs => :after))
        ON CONFLICT (step, target_id) DO UPDATE
        SET due_at = LEAST(steps.due_at, excluded.due_at),
            nudged_at = CASE WHEN :after = 0 THEN NULL ELSE steps.nudged_at END
        """,
        step=step,
        target=target_id,
        after=after,
    )


def take(tx: Connection, step: StepName, target_id: int) -> Lease | None:
    """Take the lease of a step that is due; None when it is not due or another worker holds it.

    The epoch comes from a sequence, so that no two holders ever share one, even when the row was
    deleted and made again in between.
    """
    taken = db.row(
        tx,
        """
        UPDATE steps SET epoch = nextval('step_epochs'), starts = starts + 1, due_at = NULL,
               lease_until = now() + make_interval(secs => :seconds)
        WHERE step = :step AND target_id = :target AND (lease_until IS NULL OR lease_until < now())
          AND (due_at <= now() OR lease_until IS NOT NULL)
        RETURNING epoch, starts
        """,
        step=step,
        target=target_id,
        seconds=LEASE_SECONDS,
    )
    return Lease(step, target_id, taken.epoch, taken.starts) if taken else None


def take_due(tx: Connection, step: StepName, target_ids: Sequence[int], *, within: float) -> dict[int, Lease]:
    """Take the leases of those of some steps that are due `within` seconds and that nobody holds, by their target."""
    taken = db.rows(
        tx,
        """
        UPDATE steps SET epoch = nextval('step_epochs'), starts = starts + 1, due_at = NULL,
               lease_until = now() + make_interval(secs => :seconds)
        FROM (
            SELECT step, target_id FROM steps WHERE step = :step AND target_id = ANY(CAST(:targets AS bigint[]))
              AND (lease_until IS NULL OR lease_until < now()) AND due_at <= now() + make_interval(secs => :within)
            ORDER BY target_id FOR UPDATE SKIP LOCKED
        ) AS ready
        WHERE steps.step = ready.step AND steps.target_id = ready.target_id
        RETURNING steps.target_id, epoch, starts
        """,
        step=step,
        targets=db.array(target_ids),
        within=within,
        seconds=LEASE_SECONDS,
    )
    return {line.target_id: Lease(step, line.target_id, line.epoch, line.starts) for line in taken}


def still_held(tx: Connection, leases: Sequence[Lease]) -> set[int]:
    """`Lease.hold` for many of one step at once, without an error for those that another worker has taken over.

    The targets of those that are still ours.
    """
    held = db.rows(
        tx,
        """
        UPDATE steps SET lease_until = now() + make_interval(secs => :seconds)
        FROM (
            SELECT step, steps.target_id FROM steps JOIN unnest(CAST(:targets AS bigint[]), CAST(:epochs AS bigint[]))
                AS v(target_id, epoch) ON v.target_id = steps.target_id AND v.epoch = steps.epoch
            WHERE step = :step ORDER BY steps.target_id FOR UPDATE OF steps
        ) AS ours
        WHERE steps.step = ours.step AND steps.target_id = ours.target_id
        RETURNING steps.target_id
        """,
        seconds=LEASE_SECONDS,
        step=leases[0].step,
        targets=db.array(lease.target_id for lease in leases),
        epochs=db.array(lease.epoch for lease in leases),
    )
    return {target_id for (target_id,) in held}


def give_back(tx: Connection, lease: Lease, *, again_after: float | None = None) -> None:
    """End a lease: the step is gone, unless it is due again after `again_after` seconds, or was
    made due by somebody else while it ran.
    """
    if again_after is not None:
        due(tx, lease.step, lease.target_id, after=again_after)
    db.run(
        tx,
        "DELETE FROM steps WHERE step = :step AND target_id = :target AND epoch = :epoch AND due_at IS NULL",
        step=lease.step,
        target=lease.target_id,
        epoch=lease.epoch,
    )
    db.run(
        tx,
        "UPDATE steps SET lease_until = NULL, nudged_at = NULL, starts = 0, failures = 0, error = NULL "
        "WHERE step = :step AND target_id = :target AND epoch = :epoch",
        step=lease.step,
        target=lease.target_id,
        epoch=lease.epoch,
    )


def fail(tx: Connection, lease: Lease, error: str) -> float:
    """Note that a step broke unexpectedly; it is due again after a delay that grows, in seconds."""
    failures = db.scalar(
        tx,
        "UPDATE steps SET failures = failures + 1, error = :error WHERE step = :step AND target_id = :target "
        "AND epoch = :epoch RETURNING failures",
        step=lease.step,
        target=lease.target_id,
        epoch=lease.epoch,
        error=storable(error),
    )
    if failures is None:
        return 0.0
    delay = float(min(2 ** int(failures), 300))
    db.run(
        tx,
        "UPDATE steps SET due_at = now() + make_interval(secs => :delay), lease_until = NULL, nudged_at = NULL, "
        # The worker lives: no chunk has killed it.
        "starts = 0 "
        "WHERE step = :step AND target_id = :target AND epoch = :epoch",
        step=lease.step,
        target=lease.target_id,
        epoch=lease.epoch,
        delay=delay,
    )
    return delay


def put_down(tx: Connection, lease: Lease) -> None:
    """End a lease in the middle of its step: it is due at once, for another worker, and nobody is to blame.

    Whoever still works at it in this process is fenced.
    """
    db.run(
        tx,
        "UPDATE steps SET epoch = nextval('step_epochs'), due_at = now(), lease_until = NULL, nudged_at = NULL, "
        "starts = GREATEST(starts - 1, 0) WHERE step = :step AND target_id = :target AND epoch = :epoch",
        step=lease.step,
        target=lease.target_id,
        epoch=lease.epoch,
    )


# Of steps s: due and held by nobody, and no nudge of it is under way.
READY = """
    (s.due_at <= now() OR s.lease_until IS NOT NULL) AND (s.lease_until IS NULL OR s.lease_until < now())
    AND (s.nudged_at IS NULL OR s.nudged_at < now() - make_interval(secs => :renudge))
"""


def nudgeable(tx: Connection, limit: int) -> list[tuple[str, int]]:
    """Claim the right to nudge what is due and unleased: (step, target id), at most `limit`.

    Each is handed out once per RENUDGE_SECONDS, however many clocks ask. The kinds of steps take turns, and which is
    the first is drawn: a thousand batches to be processed do not keep one from being sent, nor the other way round.
    """
    found = db.rows(
        tx,
        f"""
        UPDATE steps SET nudged_at = now()
        FROM (
            SELECT s.step, s.target_id FROM (
                SELECT step, target_id, row_number() OVER (PARTITION BY step ORDER BY due_at NULLS FIRST) AS turn
                FROM steps AS s WHERE {READY}
            ) AS waiting JOIN steps AS s USING (step, target_id)
            WHERE {READY} ORDER BY waiting.turn, random() LIMIT :limit FOR UPDATE OF s SKIP LOCKED
        ) AS ready
        WHERE steps.step = ready.step AND steps.target_id = ready.target_id
        RETURNING steps.step, steps.target_id
        """,  # noqa: S608 - a constant
        renudge=RENUDGE_SECONDS,
        limit=limit,
    )
    return [(step, target) for step, target in found]
