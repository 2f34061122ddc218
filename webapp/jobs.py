"""Where the web side meets the workers: `nudge` enqueues what is due, `perform` runs a step.
The wishes that make steps due are in `wishes`, the processes that perform them in `workers`.

A job carries a step and an id and nothing else: the row is the truth.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import current_app
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy.exc import SQLAlchemyError

from webapp import db
from webapp.batches import (
    ingestion,
    leaving,
    outages,
    planning,
    polling,
    processing,
    queries,
    resubmission,
    steps,
    strays,
    submission,
)
from webapp.batches.desk import Desk
from webapp.batches.steps import Lease, StepName
from webapp.datasets import intake
from webapp.delivery import delivering
from webapp.errors import ApiUnclear, BatchdeskError, Fenced, Leaving
from webapp.gateway import Heard
from webapp.installed import installing
from webapp.runs import retention, schedules

log = logging.getLogger("batchdesk")

QUEUE = "batchdesk"
MOST_QUEUED = 200  # jobs that wait: more would only be dropped or run for nothing
# ... and for each worker that is up: the queue is first come first served, so that what comes into it last waits for
# as many steps at most, however slow they are. At least so many in all.
QUEUED_PER_WORKER = 2
LEAST_QUEUED = 4
NUDGES = 50  # per look
JOB_TTL = 60  # seconds after which a nudge that no worker took is dropped: the clock nudges again
RETRY_SECONDS = 0.5
AWAY_SECONDS = 1.0  # before a worker takes its next job, when the database is away
LOOK_SECONDS = 0.25
TELL_SECONDS = 60.0
LEAVE_SECONDS = 5.0  # after SIGTERM, for the step to come to a point where it can stop
ENDED = 70  # status of a job's process that has ended itself

# Seconds after which a job's process is ended: two run code of plugins, the others wait for the API.
TIMEOUTS = dict.fromkeys(StepName, 3600) | {StepName.PROCESS: 120, StepName.DELIVER: 600}

RUN: dict[StepName, Callable[[Desk, Lease], float | None]] = {
    StepName.IMPORT: intake.import_upload,
    StepName.PLAN: planning.plan,
    StepName.SUBMIT: submission.submit,
    StepName.POLL: polling.poll,
    StepName.INGEST: ingestion.ingest,
    StepName.PROCESS: processing.process,
    StepName.RESUBMIT: resubmission.resubmit,
    StepName.LOOK: strays.look,
    StepName.REPEAT: schedules.repeat,
    StepName.INSTALL: installing.install,
    StepName.DELIVER: delivering.deliver,
    StepName.DROP: retention.drop,
}


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


class Outage:
    """Tells the log when something goes away and when it is back: a line a minute, however often that is found."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.since: float | None = None
        self._told = 0.0

    def away(self, words: str) -> None:
        now = time.monotonic()
        self.since = now if self.since is None else self.since
        if now - self._told > TELL_SECONDS:
            self._told = now
            log.warning("%s cannot be used; work waits until it can. %s", self.what, words)

    def back(self) -> None:
        if self.since is not None:
            log.warning("%s can be used again after %.0f seconds.", self.what, time.monotonic() - self.since)
            self.since, self._told = None, 0.0


queue_away = Outage("The queue")
database_away = Outage("The database")


def nudge() -> int:
    """Put what is due into the queue; how many jobs. Redis being away costs seconds: the clock asks again."""
    try:
        jobs = queue()
        waiting = jobs.count
        if waiting >= MOST_QUEUED:
            return 0
        with db.transaction() as tx:
            room = min(MOST_QUEUED, max(LEAST_QUEUED, QUEUED_PER_WORKER * queries.processes_up(tx)["worker"])) - waiting
            ready = steps.nudgeable(tx, min(NUDGES, room)) if room > 0 else []
        if ready:
            jobs.enqueue_many([_job(jobs, step, target_id) for step, target_id in ready])
    except RedisError as error:
        queue_away.away(str(error))
        return 0
    if queue_away.since is not None and (ready or queue_trouble() is None):
        queue_away.back()
    return len(ready)


def _job(jobs: Queue, step: str, target_id: int) -> Any:
    return jobs.prepare_data(
        perform,
        (step, target_id),
        timeout=TIMEOUTS[StepName(step)],
        ttl=JOB_TTL,
        result_ttl=0,
        failure_ttl=JOB_TTL,
    )


def queue_trouble() -> str | None:
    """Why the queue takes nothing just now, in words: it is away, or full, or only to be read; None: it does."""
    try:
        current_app.extensions["batchdesk.redis"].set("batchdesk:room", 1, ex=JOB_TTL)
    except RedisError as error:
        return str(error)
    return None


# -- the worker side ---------------------------------------------------------------------------------------------


def perform(step: str, target_id: int) -> None:
    """Run a step of a row, if it is due and nobody else is at it. The body of every job."""
    try:
        if not leaving.asked():
            _perform(StepName(step), target_id)
        nudge()
    except SQLAlchemyError as error:
        words = db.trouble(error)
        if words is None:
            raise
        log.warning("%s %s: %s", step, target_id, words)
        time.sleep(AWAY_SECONDS)


def _perform(step: StepName, target_id: int) -> None:
    with db.transaction() as tx:
        lease = steps.take(tx, step, target_id)
    if lease is None:
        return
    desk: Desk = current_app.extensions["batchdesk"]
    try:
        with lease.kept(), _ended_if_asked(lease):
            again = RUN[step](desk, lease)
        with db.transaction() as tx:
            steps.give_back(tx, lease, again_after=again)
            outages.note(tx, step, desk.take_heard())
    except Leaving:
        with db.transaction() as tx:
            steps.put_down(tx, lease)
    except Fenced as error:
        log.warning("%s", error)
    except Exception as error:  # noqa: BLE001 - whatever it was, the step is told and tried again
        _failed(desk, lease, error)


def _failed(desk: Desk, lease: Lease, error: Exception) -> None:
    """An expected failure (API, database away) is a sentence; an unexpected one also leaves its traceback."""
    words = str(error) if isinstance(error, BatchdeskError) else None
    if isinstance(error, SQLAlchemyError):
        words = db.trouble(error)
    if words is not None:
        log.warning("%s %s: %s", lease.step, lease.target_id, words)
    else:
        words = f"{type(error).__name__}: {error}"
        log.exception("%s %s broke", lease.step, lease.target_id)
    heard = desk.take_heard()
    if isinstance(error, ApiUnclear):
        heard = Heard(trouble=error)
    end = time.monotonic() + steps.LEASE_SECONDS
    while True:
        try:
            with db.transaction() as tx:
                steps.fail(tx, lease, words.replace("\0", "\\u0000"))
            break
        except SQLAlchemyError:
            # Told as soon as the database is back, the step goes on at once rather than when its lease has lapsed.
            if leaving.asked() or time.monotonic() > end:
                log.warning("%s %s: the database is away; its lease will lapse.", lease.step, lease.target_id)
                return
        time.sleep(RETRY_SECONDS)
    with suppress(SQLAlchemyError), db.transaction() as tx:
        outages.note(tx, lease.step, heard, error)


@contextmanager
def _ended_if_asked(lease: Lease) -> Iterator[None]:
    """End this process when it was asked to and the step does not come to a point where it can stop: the API, or a
    plugin, may be silent for long. A POST that may have created something is waited for.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    over = threading.Event()

    def mind() -> None:
        while not over.wait(LOOK_SECONDS):
            if leaving.asked_for() > LEAVE_SECONDS and not leaving.finishing():
                with app.app_context():
                    _end(lease)

    leaving.begin()
    minder = threading.Thread(target=mind, daemon=True)
    minder.start()
    try:
        yield
    finally:
        over.set()
        minder.join()


def _end(lease: Lease) -> None:
    """Put the step down and end, unless its POST has been armed in between: arming and this lock the same row."""
    with suppress(SQLAlchemyError, Fenced), db.transaction() as tx:
        # Where the step itself is in the middle of a transaction, its lease is left to lapse.
        db.run(tx, "SELECT set_config('lock_timeout', '1s', true)")
        lease.hold(tx)
        if leaving.finishing():
            return
        steps.put_down(tx, lease)
    if leaving.finishing():
        return
    log.warning("%s %s is put down: its worker was asked to end.", lease.step, lease.target_id)
    os._exit(ENDED)
