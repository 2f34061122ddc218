"""Parts are restarted, away, or off the time, and workers are asked to end: the run goes on by itself, in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    doctor = shared.run("doctor")
    assert doctor.status == 1 and "BAD  The database does not answer" in doctor.out, doctor.out
    assert "started again by itself" in doctor.out and "ok   Queue" in doctor.out, doctor.out


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
        doctor = shared.run("doctor")
        assert doctor.status == 1 and "BAD  The queue takes nothing" in doctor.out, doctor.out
        queue.config_set("maxmemory", 0)
    until(lambda: desk.scalar("SELECT count(*) FROM batches WHERE state <> 'planned'"), "it goes on")
    with away(shared, upped, "valkey", "valkey"):
        until(lambda: "queue" in asked(shared, "/readyz")[1], "it is told", 30)
        time.sleep(3)
        assert logs.of("clock").count("The queue cannot be used") == 2, logs.of("clock")
    completed(run.ended(), shared, RECORDS)
    until(lambda: "queue" not in asked(shared, "/readyz")[1], "it is back")
    assert shared.child(upped, "worker") == worker, "it waits, rather than end"
    print(logs.of("clock"), logs.of("worker-1"))


# -- SIGTERM -------------------------------------------------------------------------------------------------------


@pytest.fixture
def put_off(shared_api: SandboxProcess) -> Iterator[None]:
    yield
    shared_api.configure(create_faults="", retrieve_faults="", delay=0.3)


def ask_to_end(shared: Installation, up: Command) -> int:
    pid = shared.child(up, "worker")
    os.kill(pid, signal.SIGTERM)
    return pid


def test_a_worker_that_is_asked_to_end_gives_each_step_back_at_once(
    shared: Installation, upped: Command, desk: DeskDriver, logs: Logs
) -> None:
    run = None
    for step, table in STEPS:
        with locked(shared, table, "SHARE ROW EXCLUSIVE"):
            run = run or shared.start(*shared.classifying(shared.write("docs.jsonl", documents(RECORDS))))
            until(lambda step=step: waits_for_the_lock(desk, step), f"{step} is caught", 30)
            pid = ask_to_end(shared, upped)
            time.sleep(0.2)
            assert psutil.pid_exists(pid), "it waits for its step"
        begun = time.monotonic()
        until(lambda pid=pid: not psutil.pid_exists(pid), f"{step} has stopped", 30)
        assert not leased(desk, step)
        print(step, time.monotonic() - begun)
    assert run is not None
    completed(run.ended(), shared, RECORDS)


def test_a_worker_that_is_asked_to_end_does_not_wait_for_an_api_that_is_silent(
    shared: Installation, shared_api: SandboxProcess, upped: Command, desk: DeskDriver, logs: Logs, put_off: None
) -> None:
    shared_api.configure(retrieve_faults="timeout_after:60*")
    run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(20))))
    until(lambda: leased(desk, "poll"), "it is polled", 30)
    time.sleep(0.5)
    pid = ask_to_end(shared, upped)
    begun = time.monotonic()
    shared_api.configure(retrieve_faults="")
    until(lambda: not psutil.pid_exists(pid), "it has ended", 9)
    print(time.monotonic() - begun)
    completed(run.ended(), shared, 20)
    assert "is put down" in logs.of("worker-1")


def test_a_post_that_may_have_created_something_is_waited_for(
    shared: Installation, shared_api: SandboxProcess, upped: Command, desk: DeskDriver, logs: Logs, put_off: None
) -> None:
    accepted = len(shared_api.accepted())
    shared_api.configure(create_faults="timeout_after:7")
    run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(20))))
    until(lambda: len(shared_api.accepted()) > accepted, "the API has it, and is silent", 30)
    pid = ask_to_end(shared, upped)
    until(lambda: not psutil.pid_exists(pid), "it has ended", 30)
    error = desk.scalar("SELECT error FROM submissions WHERE error IS NOT NULL ORDER BY id DESC LIMIT 1")
    assert "worker died" not in error
    completed(run.ended(), shared, 20)


# -- many, and off the time ----------------------------------------------------------------------------------------

# A process whose own clock is off: Python's, as a machine's would be, for all that reads it.
OFF = """
import datetime, runpy, sys, time

ahead, script, role = float(sys.argv[1]), sys.argv[2], sys.argv[3]
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
sys.argv = [script, role]
runpy.run_path(script, run_name="__main__")
"""


def test_ten_workers_and_two_clocks_of_different_times_do_everything_once(
    shared: Installation, upped: Command, desk: DeskDriver
) -> None:
    crew = [("work", ahead) for ahead in (0, 3600, -3600) * 3] + [("clock", -3600)]
    log = shared.folder / "crew.log"
    with log.open("w") as words:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", OFF, str(ahead), str(ROOT / "worker.py"), role],
                env=shared.env,
                cwd=ROOT,
                stdout=words,
                stderr=words,
            )
            for role, ahead in crew
        ]
        try:
            fresh = "SELECT count(*) FROM processes WHERE seen_at > now() - interval '60 seconds' AND role = "
            until(
                lambda: desk.scalar(fresh + "'worker'") >= 10 and desk.scalar(fresh + "'clock'") >= 2, "all are up", 60
            )
            done = shared.classify(shared.write("docs.jsonl", documents(4 * RECORDS)))
        finally:
            for process in processes:
                process.terminate()
            statuses = [process.wait(30) for process in processes]
    completed(done, shared, 4 * RECORDS)
    assert statuses == [0] * len(crew)
    assert "Traceback" not in log.read_text(), log.read_text()
