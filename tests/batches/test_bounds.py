"""Plugin code that loops, ends its process or eats memory: bounded, named, and of no concern to the other records."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, jobs, workers
from webapp.batches import bounded, planning
from webapp.batches.bounded import Broke

MEGABYTE = 1 << 20

# A task that does what the record says, while it builds the request and while it processes the answer.
WILD = """
import ctypes, os, time
from webapp.hooks import ModelSettings, Task, hookimpl

KEPT = []

def do(how):
    if how == "loop":
        while True:
            pass
    if how == "loop in C":
        return 7 ** 10 ** 9
    if how == "sleep":
        time.sleep(600)
    if how == "exit":
        os._exit(9)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "memory":
        return "x" * (1 << 40)
    if how == "memory in small parts":
        parts = []
        while True:
            parts.append("x" * 100_000)
    if how == "leak":
        KEPT.append("x" * (30 << 20))
    if how == "past every handler":
        raise KeyboardInterrupt

class Wild(Task[ModelSettings]):
    name = "wild"
    version = "3"
    Settings = ModelSettings

    def shared_params(self, settings):
        do(SHARED)
        return settings.base_params()

    def request_params(self, subject, settings):
        do(subject.data.get("plan"))
        return {"messages": [{"role": "user", "content": subject.text}]}

    def process(self, subject, message, settings):
        do(subject.data.get("process"))
        return message.text

@hookimpl
def register_tasks():
    return [Wild()]
"""
DEEDS = {
    "loop": "took more than 1 seconds of processor time",
    "loop in C": "took more than 1 seconds of processor time",
    "exit": "ended its process 2 times (exit status 9)",
    "segfault": "ended its process 2 times (SIGSEGV, Segmentation fault)",
    "memory": "needed more than 100 MB of memory",
    "memory in small parts": "needed more than 100 MB of memory",
    "past every handler": "raised KeyboardInterrupt",
}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are reached in a moment."""
    monkeypatch.setattr(bounded, "CPU_SECONDS", 1)
    monkeypatch.setattr(bounded, "WALL_SECONDS", 60.0)
    monkeypatch.setattr(bounded, "MEMORY_BYTES", 100 * MEGABYTE)


def start(desk: DeskDriver, tmp_path: Path, when: str, *deeds: str, shared: str = "") -> int:
    """A run of the wild task over a good record before, between and after those that do a deed."""
    desk.use_plugin(tmp_path / "own", WILD.replace("SHARED", repr(shared)))
    records = documents(2 * len(deeds) + 1)
    for number, deed in enumerate(deeds):
        records[2 * number + 1][when] = deed
    return desk.start(records, task="wild", model="claude-haiku-5-5")


def in_a_worker_of_its_own(desk: DeskDriver, step: str, target: int) -> int:
    """Perform a step in a forked process, as RQ's workers do; its exit status."""
    db.db.engine.dispose()
    child = os.fork()
    if child == 0:
        try:
            jobs.perform(step, target)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_processor_that_breaks_its_bounds_is_named_and_the_rest_is_processed(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    run_id = start(desk, tmp_path, "process", *DEEDS)
    batch_id = desk.perform_until("done")
    began = time.monotonic()
    assert in_a_worker_of_its_own(desk, "process", batch_id) == 0
    assert time.monotonic() - began < 60

    rows = desk.outputs(run_id)
    assert [row.status for row in rows] == ["succeeded", *["invalid", "succeeded"] * len(DEEDS)]
    for row, words in zip(rows[1::2], DEEDS.values(), strict=True):
        assert row.error == (
            f"The processor of task 'wild', version 3, {words}. Mend it, then process the answer again."
        )
    assert desk.status(run_id).state == "finished"
    assert desk.rows("SELECT * FROM steps WHERE step <> 'deliver'") == []  # the news of its end goes its own way
    audit(desk, sandbox)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_request_builder_that_breaks_its_bounds_is_named_and_the_rest_is_planned(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    deeds = {deed: DEEDS[deed] for deed in ("loop in C", "exit", "segfault", "memory", "past every handler")}
    run_id = start(desk, tmp_path, "plan", *deeds)
    began = time.monotonic()
    assert in_a_worker_of_its_own(desk, "plan", run_id) == 0
    assert time.monotonic() - began < 60

    desk.work_until_over(run_id)
    rows = desk.outputs(run_id)
    assert [row.status for row in rows] == ["succeeded", *["errored", "succeeded"] * len(deeds)]
    for row, words in zip(rows[1::2], deeds.values(), strict=True):
        assert row.error == f"Task 'wild', version 3, record '{row.key}': request_params {words}. Mend the task."
    assert {row.failure_class for row in desk.rows("SELECT failure_class FROM items WHERE state = 'errored'")} == {
        "fix"
    }
    assert len(sandbox.accepted()) == len(deeds) + 1
    audit(desk, sandbox)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_worker_of_the_queue_lives_through_all_of_it(desk: DeskDriver, sandbox: Sandbox, tmp_path: Path) -> None:
    """The whole road with RQ's own worker, its alarms and its forked jobs."""
    deeds = ("loop", "exit", "segfault", "memory")
    run_id = start(desk, tmp_path, "process", *deeds)
    desk.execute('UPDATE subjects SET data = (data::jsonb || \'{"plan": "segfault"}\')::json WHERE position = 0')
    db.db.engine.dispose()
    deadline = time.monotonic() + 120
    while not desk.status(run_id).over:
        assert time.monotonic() < deadline, desk.rows("SELECT * FROM steps")
        db.db.engine.dispose()
        worker = os.fork()
        if worker == 0:
            try:
                jobs.nudge()
                connection = jobs.connect(desk.app.config["REDIS_URL"], patient=True)
                queue = jobs.Queue(jobs.QUEUE, connection=connection, serializer=jobs.JSONSerializer)
                made = workers.DeskWorker([queue], connection=connection, serializer=jobs.JSONSerializer)
                made.heart = workers.Heart("worker")
                made.work(burst=True, logging_level="CRITICAL")
            finally:
                os._exit(0)
        assert os.waitpid(worker, 0)[1] == 0
    assert [row.status for row in desk.outputs(run_id)] == ["errored", *["invalid", "succeeded"] * len(deeds)]
    assert desk.scalar("SELECT count(*) FROM steps WHERE starts > 0") == 0
    audit(desk, sandbox)


def test_a_processor_that_waits_for_something_is_not_waited_for(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "WALL_SECONDS", 2.0)
    run_id = start(desk, tmp_path, "process", "sleep")
    desk.work_until_over(run_id)
    first, slept, last = desk.outputs(run_id)
    assert slept.status == "invalid" and "did not come back within 2 seconds" in (slept.error or "")
    assert (first.status, last.status) == ("succeeded", "succeeded")
    audit(desk, sandbox)


@pytest.mark.parametrize("deed", ["loop", "segfault", "memory"])
def test_a_shared_part_that_breaks_its_bounds_pauses_the_run(desk: DeskDriver, tmp_path: Path, deed: str) -> None:
    run_id = start(desk, tmp_path, "plan", shared=deed)
    status = desk.work_until_over(run_id)
    assert status.state == "paused"
    assert status.reason == f"Task 'wild', version 3, {DEEDS[deed]} in shared_params. Mend the task."


def test_a_record_is_not_blamed_for_what_those_before_it_left_in_memory(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    run_id = start(desk, tmp_path, "process", *["leak"] * 8)
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 17
    audit(desk, sandbox)


def test_a_worker_that_dies_while_it_cuts_is_told_apart_from_one_that_dies_while_it_builds(
    desk: DeskDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    def reason(run_id: int, point: str) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(planning, point, die)
            for _ in range(planning.MOST_STARTS):
                with pytest.raises(Killed):
                    desk.perform("plan", run_id)
                desk.lapse()
        desk.perform("plan", run_id)
        status = desk.status(run_id)
        assert status.state == "paused"
        return status.reason or ""

    building = reason(desk.start(documents(3)), "_store")
    cutting = reason(desk.start(documents(3)), "cut_pending")
    assert "at its beginning" in building and "cut the run into batches" not in building
    assert "while it cut the run into batches" in cutting and "doc-" not in cutting


# -- the bounds themselves -------------------------------------------------------------------------------------------


def outcomes(rows: list[Any], work: Callable[[Any], Any]) -> list[Any]:
    return [made for _, made in bounded.bounded(rows, work)]


def test_values_come_back_in_order_whatever_their_length() -> None:
    values = ["", "half \ud800", "\0\n", None, 2**80, [1, [2.5, {"a": None}]], "x" * (8 * MEGABYTE), *range(2000)]
    assert outcomes(values, lambda value: value) == values
    assert outcomes([], lambda value: value) == []


def test_what_a_row_does_to_its_process_is_lost() -> None:
    touched: list[int] = []
    assert outcomes([1, 2, 3], lambda row: touched.append(row) or len(touched)) == [1, 2, 3]
    assert touched == []


def test_a_fault_of_ours_is_no_fault_of_the_row() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        outcomes([1, 0], lambda row: 1 // row)


def test_a_process_that_was_killed_from_outside_is_followed_by_another() -> None:
    def work(path: Path) -> str:
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    pid = os.getpid()
    path = Path(f"/proc/{pid}/cwd").resolve() / f".bounds-{pid}"
    try:
        assert outcomes([path], work) == ["done"]
    finally:
        path.unlink()
    assert outcomes([path.parent / "no such" / "folder"], lambda path: os.kill(os.getpid(), signal.SIGKILL)) == [
        Broke("ended its process 2 times (SIGKILL, Killed)")
    ]


def test_nothing_is_left_running_when_the_rest_is_not_wanted() -> None:
    before = psutil.Process().children()
    descriptors = psutil.Process().num_fds()
    made: Iterator[Any] = bounded.bounded(range(1000), lambda row: row)
    assert [next(made), next(made)] == [(0, 0), (1, 1)]
    assert len(psutil.Process().children()) == len(before) + 1
    made.close()  # type: ignore[attr-defined]
    assert psutil.Process().children() == before
    assert psutil.Process().num_fds() == descriptors


def test_a_process_ends_with_its_worker() -> None:
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        for _, pid in bounded.bounded([0, 1], lambda row: (row and time.sleep(600)) or os.getpid()):
            os.write(writing, str(pid).encode())
        os._exit(0)
    child = int(os.read(reading, 100))
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.close(reading)
    os.close(writing)
