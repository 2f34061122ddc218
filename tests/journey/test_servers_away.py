"""Parts are restarted, away, or off the time, and workers are asked to end: the run goes on by itself, in words."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis
from support.desk import DeskDriver, documents
from support.installation import Command, Installation, until
from support.sandbox import SandboxProcess

from tests.journey.test_deaths import completed, leased, locked, waits_for_the_lock
from webapp import local

pytestmark = pytest.mark.journey

RECORDS = 400
ROOT = Path(__file__).parents[2]
STEPS = (("plan", "requests"), ("submit", "submissions"), ("ingest", "results"), ("process", "outputs"))


class Logs:
    """What the processes have written since the test began."""

    def __init__(self, home: Path) -> None:
        self._paths = {name: home / "log" / f"{name}.log" for name in ("worker-1", "clock", "web")}
        self._before = {name: path.stat().st_size for name, path in self._paths.items()}

    def of(self, name: str) -> str:
        return self._paths[name].read_bytes()[self._before[name] :].decode()

    def check(self) -> None:
        for name in self._paths:
            assert "Traceback" not in self.of(name), self.of(name)


@pytest.fixture
def logs(shared: Installation, upped: Command) -> Iterator[Logs]:
    """An outage is words in the logs, and few of them."""
    found = Logs(shared.home)
    yield found
    found.check()


def asked(shared: Installation, path: str, **headers: str) -> tuple[int, str]:
    """What the dashboard answers: status and text."""
    request = urllib.request.Request(f"http://127.0.0.1:{shared.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ready(shared: Installation) -> bool:
    return asked(shared, "/readyz")[0] == 200


@contextmanager
def away(shared: Installation, up: Command, what: str, data: str) -> Iterator[None]:
    """A service is stopped as its platform does it, and cannot be started again before the block ends."""
    pid, folder = shared.child(up, what), shared.home / data
    folder.rename(folder.with_suffix(".away"))
    try:
        stop(pid)
        yield
    finally:
        folder.with_suffix(".away").rename(folder)


def stop(pid: int) -> None:
    """End a process as platforms do, and wait until it has."""
    os.kill(pid, signal.SIGINT if "postgres" in psutil.Process(pid).name() else signal.SIGTERM)
    until(lambda: not psutil.pid_exists(pid), f"process {pid} has ended", 30)


# -- PostgreSQL ----------------------------------------------------------------------------------------------------


def test_a_database_that_is_restarted_in_the_middle_of_each_step_costs_seconds(
    shared: Installation, upped: Command, desk: DeskDriver, logs: Logs
) -> None:
    from webapp.db import db

    run = None
    for step, table in STEPS:
        # The lock goes with the server.
        with suppress(psycopg.OperationalError), locked(shared, table, "SHARE ROW EXCLUSIVE"):
            run = run or shared.start(*shared.classifying(shared.write("docs.jsonl", documents(RECORDS))))
            until(lambda step=step: waits_for_the_lock(desk, step), f"{step} is caught", 30)
            if step == "ingest":
                with away(shared, upped, "bin/postgres", "postgres"):
                    _everybody_says_that_the_database_is_away(shared)
            else:
                stop(shared.child(upped, "bin/postgres"))
            db.engine.dispose()
            until(lambda: ready(shared), "PostgreSQL is back")
    assert run is not None
    completed(run.ended(), shared, RECORDS)
    assert "The database can be used again after" in logs.of("clock")
    assert len(logs.of("clock").splitlines()) <= 8


def _everybody_says_that_the_database_is_away(shared: Installation) -> None:
    assert asked(shared, "/readyz") == (503, '{"error":"The database does not answer."}\n')
    assert asked(shared, "/healthz")[0] == 200


# -- Valkey --------------------------------------------------------------------------------------------------------


def test_a_queue_that_is_full_and_then_away_costs_its_time_and_no_more(
    shared: Installation, shared_api: SandboxProcess, upped: Command, desk: DeskDriver, logs: Logs
) -> None:
    worker = shared.child(upped, "worker")
    services = local.running(shared.home)
    assert services is not None
    with Redis.from_url(services.redis_url) as queue:
        queue.config_set("maxmemory", 1)
        run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(RECORDS))))
        run.says("started.")
        until(lambda: "maxmemory" in logs.of("worker-1") and "maxmemory" in logs.of("clock"), "it is told", 30)
        assert "queue" in asked(shared, "/readyz")[1]
        queue.config_set("maxmemory", 0)
    until(lambda: "The queue can be used again" in logs.of("clock"), "it goes on", 30)
    with away(shared, upped, "valkey", "valkey"):
        until(lambda: "queue" in asked(shared, "/readyz")[1], "it is told", 30)
        time.sleep(3)
        assert logs.of("clock").count("The queue cannot be used") == 2, "one line for each outage"
    completed(run.ended(), shared, RECORDS)
    until(lambda: "queue" not in asked(shared, "/readyz")[1], "it is back")
    assert shared.child(upped, "worker") == worker, "it waits, rather than end"


# -- SIGTERM -------------------------------------------------------------------------------------------------------


@pytest.fixture
def patient(shared_api: SandboxProcess) -> Iterator[None]:
    """The API answers again when the test is over."""
    yield
    shared_api.configure(create_faults="", retrieve_faults="")


@contextmanager
def asked_to_end(shared: Installation, up: Command, seconds: float) -> Iterator[int]:
    """SIGTERM for the worker, which has ended in order so many seconds after the block, and has left no lease."""
    pid = shared.child(up, "worker")
    os.kill(pid, signal.SIGTERM)
    yield pid
    until(lambda: not psutil.pid_exists(pid), "it has ended", seconds)


def test_a_worker_that_is_asked_to_end_gives_its_step_back_whatever_it_is_at(
    shared: Installation, shared_api: SandboxProcess, upped: Command, desk: DeskDriver, logs: Logs, patient: None
) -> None:
    accepted = len(shared_api.accepted())
    shared_api.configure(create_faults="timeout_after:6", retrieve_faults="timeout_after:60")

    # In the middle of a chunk: that one is finished.
    with ExitStack() as lock:
        lock.enter_context(locked(shared, "requests", "SHARE ROW EXCLUSIVE"))
        run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(20))))
        until(lambda: waits_for_the_lock(desk, "plan"), "planning is caught", 30)
        with asked_to_end(shared, upped, seconds=30) as pid:
            time.sleep(0.2)
            assert psutil.pid_exists(pid)
            lock.close()
    assert not leased(desk, "plan")

    # While the API has what was sent, and is silent: its answer is waited for.
    until(lambda: len(shared_api.accepted()) > accepted, "the batch is sent", 30)
    with asked_to_end(shared, upped, seconds=30):
        pass
    (error,) = desk.rows("SELECT error FROM submissions WHERE outcome = 'unknown'")[0]
    assert "worker died" not in error and not leased(desk, "submit")

    # While it is silent about what may be asked again: it is not waited for.
    until(lambda: leased(desk, "poll"), "it is polled", 30)
    time.sleep(0.5)
    with asked_to_end(shared, upped, seconds=15):
        pass
    assert not leased(desk, "poll")
    assert re.search(r"poll \d+ is put down", logs.of("worker-1"))
    completed(run.ended(), shared, 20)


# -- many, and off the time ----------------------------------------------------------------------------------------

# Processes whose own clock is off: Python's, for all that reads it.
OFF = """
import datetime, os, signal, sys, time

ahead, roles = float(sys.argv[1]), sys.argv[2:]
true_time, true = time.time, datetime.datetime

class Kind(type):
    def __instancecheck__(cls, one):
        return isinstance(one, true)

class Off(true, metaclass=Kind):
    @classmethod
    def now(cls, tz=None):
        return true.now(tz) + datetime.timedelta(seconds=ahead)

time.time = lambda: true_time() + ahead
datetime.datetime = Off

from webapp import create_app
from webapp.jobs import connect
from webapp.workers import clock, work

app = create_app(pooled=False)
children = []
for role in roles:
    pid = os.fork()
    if pid == 0:
        with app.app_context():
            work(connect(app.config["REDIS_URL"], patient=True)) if role == "work" else clock()
        os._exit(0)
    children.append(pid)
signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGTERM) for child in children])
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""
CREWS = {3600: ["work"] * 5, -3600: ["work"] * 4 + ["clock"]}


def test_ten_workers_and_two_clocks_of_different_times_do_everything_once(
    shared: Installation, upped: Command, desk: DeskDriver
) -> None:
    log = shared.folder / "crew.log"
    with log.open("w") as words:
        crews = [
            subprocess.Popen(
                [sys.executable, "-c", OFF, str(ahead), *roles], env=shared.env, cwd=ROOT, stdout=words, stderr=words
            )
            for ahead, roles in CREWS.items()
        ]
        try:
            fresh = "SELECT count(*) FROM processes WHERE seen_at > now() - interval '60 seconds' AND role = "
            until(lambda: desk.scalar(fresh + "'worker'") >= 10 and desk.scalar(fresh + "'clock'") >= 2, "all are up")
            done = shared.classify(shared.write("docs.jsonl", documents(2 * RECORDS)))
        finally:
            for crew in crews:
                crew.terminate()
            statuses = [crew.wait(30) for crew in crews]
    completed(done, shared, 2 * RECORDS)
    assert statuses == [0] * len(CREWS)
    assert "Traceback" not in log.read_text(), log.read_text()
