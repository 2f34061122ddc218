"""Where the web side meets the workers: `ask_…` writes a wish and nudges, `perform` runs a step, `clock` nudges.
With `worker.py`, the only importer of `rq`. A job carries a step and an id and nothing else: the row is the truth.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import current_app
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue, Worker
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from sqlalchemy.exc import SQLAlchemyError

from webapp import db
from webapp.batches import (
    holding,
    ingestion,
    planning,
    polling,
    processing,
    rebuilding,
    reprocessing,
    resubmission,
    runs,
    steps,
    strays,
    submission,
)
from webapp.batches.desk import Desk
from webapp.batches.rebuilding import Child
from webapp.batches.reprocessing import Which
from webapp.batches.states import FailureClass
from webapp.batches.steps import Lease, StepName
from webapp.errors import BatchdeskError, Fenced
from webapp.settings import Settings

log = logging.getLogger("batchdesk")

QUEUE = "batchdesk"
MOST_QUEUED = 200  # the clock stops nudging when so many jobs wait: more would only be dropped or run for nothing
NUDGES = 50  # per look
JOB_TTL = 60  # seconds after which a nudge that no worker took is dropped: the clock nudges again
TICK = 1.0
HEARTBEAT_SECONDS = 10.0
FORGET_PROCESSES = "1 day"

# Seconds after which a job's process is ended: `process` runs code of plugins, the others wait for the API.
TIMEOUTS = dict.fromkeys(StepName, 3600) | {StepName.PROCESS: 120}

RUN: dict[StepName, Callable[[Desk, Lease], float | None]] = {
    StepName.PLAN: planning.plan,
    StepName.SUBMIT: submission.submit,
    StepName.POLL: polling.poll,
    StepName.INGEST: ingestion.ingest,
    StepName.PROCESS: processing.process,
    StepName.RESUBMIT: resubmission.resubmit,
    StepName.LOOK: strays.look,
}


# -- the web side ------------------------------------------------------------------------------------------------


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


# -- between them ------------------------------------------------------------------------------------------------


def connect(url: str, *, patient: bool) -> Redis:
    """A connection to Redis or Valkey.

    :param patient: True for workers, which wait for it; the web and the clock would rather know at once.
    """
    if patient:
        return Redis.from_url(url)
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=2, socket_connect_timeout=2)


def queue() -> Queue:
    """The one queue."""
    return Queue(QUEUE, connection=current_app.extensions["batchdesk.redis"], serializer=JSONSerializer)


def nudge() -> int:
    """Put what is due into the queue; how many jobs. Redis being away costs seconds: the clock asks again."""
    try:
        jobs = queue()
        if jobs.count >= MOST_QUEUED:
            return 0
        with db.transaction() as tx:
            ready = steps.nudgeable(tx, NUDGES)
        for step, target_id in ready:
            jobs.enqueue(
                perform,
                step,
                target_id,
                job_timeout=TIMEOUTS[StepName(step)],
                ttl=JOB_TTL,
                result_ttl=0,
                failure_ttl=JOB_TTL,
            )
        return len(ready)
    except RedisError as error:
        log.warning("The queue is away (%s); what is due waits for the clock.", error)
        return 0


# -- the worker side ---------------------------------------------------------------------------------------------


def perform(step: str, target_id: int) -> None:
    """Run a step of a row, if it is due and nobody else is at it. The body of every job."""
    with db.transaction() as tx:
        lease = steps.take(tx, StepName(step), target_id)
    if lease is None:
        return
    try:
        with lease.kept():
            again = RUN[lease.step](current_app.extensions["batchdesk"], lease)
        with db.transaction() as tx:
            steps.give_back(tx, lease, again_after=again)
    except Fenced as error:
        log.warning("%s", error)
    except Exception as error:  # noqa: BLE001 - whatever it was, the step is told and tried again
        _failed(lease, error)
    nudge()


def _failed(lease: Lease, error: Exception) -> None:
    """An expected failure (API, database away) is a sentence; an unexpected one also leaves its traceback."""
    if isinstance(error, BatchdeskError):
        words = str(error)
        log.warning("%s %s: %s", lease.step, lease.target_id, words)
    else:
        words = f"{type(error).__name__}: {error}"
        log.exception("%s %s broke", lease.step, lease.target_id)
    try:
        with db.transaction() as tx:
            steps.fail(tx, lease, words.replace("\0", "\\u0000"))
    except SQLAlchemyError:
        log.warning("%s %s: the database is away; its lease will lapse.", lease.step, lease.target_id)


class HardTimeout(UnixSignalDeathPenalty):
    """Ends the process of a job that takes too long, rather than raise in the middle of whatever it does:
    a plugin could swallow the exception, or be blamed for a record that was not at fault.
    """

    def handle_death_penalty(self, signum: int, frame: Any) -> None:
        if self._exception is JobTimeoutException:
            log.error("The job took more than %s seconds: its process ends.", self._timeout)
            os._exit(70)
        super().handle_death_penalty(signum, frame)


class DeskWorker(Worker):
    """A worker whose jobs run in a forked process each, with database connections of their own."""

    death_penalty_class = HardTimeout
    _last_beat = 0.0

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()
        db.db.engine.dispose(close=False)
        _die_with_parent()

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        super().heartbeat(timeout, pipeline)
        if time.monotonic() - self._last_beat > HEARTBEAT_SECONDS:
            self._last_beat = time.monotonic()
            beat(f"worker {self.name}", "worker")

    def register_death(self) -> None:
        forget(f"worker {self.name}")
        super().register_death()


def _die_with_parent() -> None:
    """On Linux, end the job's process when its worker is killed: an orphan would only be fenced later."""
    import ctypes
    import sys

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def work(connection: Redis) -> None:
    """Be a worker until SIGTERM: one queue, no RQ scheduler, JSON jobs."""
    worker = DeskWorker(
        [Queue(QUEUE, connection=connection, serializer=JSONSerializer)],
        connection=connection,
        serializer=JSONSerializer,
        worker_ttl=30,
        maintenance_interval=30,
        job_monitoring_interval=5,
        log_job_description=False,
    )
    worker.log_result_lifespan = False
    _ = current_app.extensions["batchdesk"].gateway  # loaded once here, not in every forked job
    worker.work(logging_level="WARNING")


def clock() -> None:
    """Nudge what is due, each second, until SIGTERM or SIGINT. Several clocks do no harm."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    name = f"clock {socket.gethostname()} {os.getpid()}"
    last_beat = 0.0
    while not over.is_set():
        try:
            nudge()
            if time.monotonic() - last_beat > HEARTBEAT_SECONDS:
                last_beat = time.monotonic()
                beat(name, "clock")
        except SQLAlchemyError as error:
            log.warning("The database is away: %s", str(error).splitlines()[0])
        over.wait(TICK)
    forget(name)


def beat(name: str, role: str) -> None:
    """Write a heartbeat row; the database being away is told elsewhere."""
    try:
        with db.transaction() as tx:
            db.run(
                tx,
                "INSERT INTO processes (name, role) VALUES (:name, :role) "
                "ON CONFLICT (name) DO UPDATE SET seen_at = now()",
                name=name,
                role=role,
            )
            db.run(tx, f"DELETE FROM processes WHERE seen_at < now() - interval '{FORGET_PROCESSES}'")  # noqa: S608
    except SQLAlchemyError:
        log.warning("The heartbeat of %s could not be written.", name)


def forget(name: str) -> None:
    """Take a heartbeat row away, at an orderly end."""
    try:
        with db.transaction() as tx:
            db.run(tx, "DELETE FROM processes WHERE name = :name", name=name)
    except SQLAlchemyError:
        log.warning("The heartbeat of %s could not be taken away.", name)
