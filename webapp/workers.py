"""The worker and clock processes: RQ made into a worker of ours, and the loop that nudges what is due.
With `jobs`, the only importer of `rq`; `worker.py` starts one of the two.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import current_app
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from sqlalchemy.exc import SQLAlchemyError

from webapp import db
from webapp.batches import leaving
from webapp.batches.desk import Desk
from webapp.hearts import Heart, PluginHeart
from webapp.jobs import ENDED, QUEUE, database_away, nudge, queue_away, queue_trouble
from webapp.runs import retention

log = logging.getLogger("batchdesk")

TICK = 1.0
IDLE_SECONDS = 2  # after which a worker without a job looks up: at the queue, and at whether the set of plugins changed


class HardTimeout(UnixSignalDeathPenalty):
    """Ends the process of a job that takes too long, rather than raise in the middle of whatever it does:
    a plugin could swallow the exception, or be blamed for a record that was not at fault.
    """

    def handle_death_penalty(self, signum: int, frame: Any) -> None:
        if self._exception is JobTimeoutException:
            log.error("The job took more than %s seconds: its process ends.", self._timeout)
            os._exit(ENDED)
        super().handle_death_penalty(signum, frame)


class DeskWorker(Worker):
    """A worker whose jobs run in a forked process each, with database connections of their own.

    It ends when it was asked to (SIGTERM, SIGINT), or when it has `lost` the queue; RQ's own commands over Redis are
    not listened to.
    """

    death_penalty_class = HardTimeout
    heart: Heart
    lost: RedisError | None = None

    @property
    def dequeue_timeout(self) -> int:
        return IDLE_SECONDS

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()
        signal.signal(signal.SIGTERM, lambda *_: leaving.ask())
        db.db.engine.dispose(close=False)
        _die_with_parent()

    def request_stop(self, signum: int, frame: Any) -> None:
        leaving.ask()
        self._pass_on()
        super().request_stop(signum, frame)

    def wait_for_horse(self) -> Any:
        if leaving.asked():
            self._pass_on()
        return super().wait_for_horse()

    def _pass_on(self) -> None:
        """Ask the job's process to end, too; some platforms ask every process, others only this one."""
        if self.horse_pid:
            with suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def set_shutdown_requested_date(self) -> None:
        """Not noted in Redis: a signal's handler must not wait for it."""

    def subscribe(self) -> None:
        self.pubsub_thread = None

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        self.heart.beat()
        with self._losing():
            super().heartbeat(timeout, pipeline)

    def maintain_heartbeats(self, job: Any, execution: Any) -> None:
        # The queue being away is no reason to leave a step alone.
        try:
            super().maintain_heartbeats(job, execution)
        except RedisError as error:
            queue_away.away(str(error))

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        with self._losing():
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)

    def execute_job(self, job: Any, queue: Queue) -> None:
        with self._losing():
            super().execute_job(job, queue)

    def check_for_suspension(self, burst: bool) -> None:
        with self._losing():
            super().check_for_suspension(burst)

    def run_maintenance_tasks(self) -> None:
        with self._losing():
            super().run_maintenance_tasks()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        # RQ waits longer and longer for a queue that is away, and ends with a traceback where it did not expect that.
        try:
            yield
        except RedisError as error:
            self.lost = error
            raise StopRequested from None

    def register_death(self) -> None:
        if self.lost is None:
            with suppress(RedisError):
                super().register_death()


def _die_with_parent() -> None:
    """On Linux, end the job's process when its worker is killed: an orphan would only be fenced later."""
    import ctypes
    import sys

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def work(connection: Redis) -> None:
    """Be a worker until SIGTERM: one queue, no RQ scheduler, JSON jobs. A queue that is away is waited for."""
    desk: Desk = current_app.extensions["batchdesk"]
    _ = desk.gateway  # loaded once here, not in every forked job
    desk.loader.load_shipped()  # likewise; no other plugin is loaded in this process
    desk.careful = False  # its heart is, for all of them
    heart = PluginHeart("worker", desk)
    try:
        while not leaving.asked():
            heart.beat()
            words = queue_trouble()
            if words is None:
                queue_away.back()
                if not _work(connection, heart):
                    return
            else:
                queue_away.away(words)
            for number in (signal.SIGTERM, signal.SIGINT):  # RQ's handlers belong to a worker that is gone
                signal.signal(number, lambda *_: leaving.ask())
            time.sleep(TICK)
    finally:
        heart.stop()


def _work(connection: Redis, heart: Heart) -> bool:
    """Work as long as the queue is there; False: something else has ended it."""
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
    worker.heart = heart
    try:
        worker.work(logging_level="WARNING")
    except RedisError as error:
        worker.lost = error
    if worker.lost is not None:
        queue_away.away(str(worker.lost))
    return worker.lost is not None


def clock() -> None:
    """Nudge what is due, each second, until SIGTERM or SIGINT. Several clocks do no harm."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    heart = Heart("clock")
    looked = -retention.EVERY
    while not over.is_set():
        heart.beat()
        try:
            if time.monotonic() - looked >= retention.EVERY:
                retention.wake(current_app.extensions["batchdesk"].settings)
                looked = time.monotonic()
            nudge()
            database_away.back()
        except SQLAlchemyError as error:
            database_away.away(db.trouble(error) or str(error))
        over.wait(TICK)
    heart.stop()
