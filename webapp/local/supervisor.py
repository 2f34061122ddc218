"""The owner of one home's processes: starts them, keeps them up, ends them, in order.

The CLI and the tests make one; it must be stopped, best by its `with` block, but what it started ends with it even
if it is killed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from webapp.errors import BatchdeskError, LocalServicesError
from webapp.local.guard import Guard
from webapp.local.home import OWN_SERVERS, Home, Services
from webapp.local.identity import Identity
from webapp.local.postgres import Postgres
from webapp.local.process import Child, Process, launch
from webapp.local.valkey import Valkey

T = TypeVar("T")

TICK_SECONDS = 0.1
LOG_CHECK_SECONDS = 30.0
SILENT_SECONDS = 5.0  # of waiting before a person is told what for
SHARED_MEMORY_SECONDS = 15.0
FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0  # seconds before a restart; doubles with each
STEADY_SECONDS = 30.0  # a process that lived this long is forgiven its earlier ends


class Kept:
    """A child the supervisor keeps up: its present process, and its restarts."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: Process | None = None
        self.supervised = False  # a failing first start is told, not repeated
        self.failures = 0
        self.restart_at: float | None = None

    @property
    def present(self) -> Process:
        assert self.process is not None, "it was not launched"
        return self.process

    def note_end(self, now: float) -> float:
        """Count an end and return the seconds to wait before the next start."""
        if self.process is not None and now - self.process.since > STEADY_SECONDS:
            self.failures = 0
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0**self.failures)
        self.failures += 1
        self.restart_at = now + delay
        return delay


class Supervisor:
    """Owns the child processes of one home.

    All forking is done by one thread that lives until the process ends: the parent death signal follows the thread
    that forked. That thread also restarts what dies, so the caller is free to do other things meanwhile.

    :param log: is told in a sentence of each restart; may be called from that thread.
    :param durable: False makes the services fast and forgetful; for tests.
    """

    def __init__(self, home: Path, log: Callable[[str], None] = lambda message: None, *, durable: bool = True) -> None:
        self.home = Home(home)
        self._log = log
        self._durable = durable
        self._kept: dict[str, Kept] = {}
        self._lock = threading.RLock()  # guards _kept, _stopping and _guard
        self._stopping = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = Guard()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_services(self) -> Services:
        """Become the owner of the home and start PostgreSQL and Valkey; returns when both answer.

        Raises LocalServicesError, with nothing left running, when that is not possible or another owner lives.
        """
        try:
            self._own()
            postgres = Postgres(self.home, durable=self._durable)
            valkey = Valkey(self.home, postgres.identity, durable=self._durable)
            self._make_sockets(postgres.identity)
            postgres.create(self.run)
            valkey.create()
            queue_server = self._begin(valkey.child())
            self._start_postgres(postgres.child())
            self._wait_until_ready(queue_server)
            return self.publish()
        except OSError as error:
            self.stop()
            raise LocalServicesError(f"The local services cannot be started: {error}. {OWN_SERVERS}") from error
        except BaseException:
            self.stop()
            raise

    def _make_sockets(self, identity: Identity) -> None:
        with self._lock:
            self._guard.remember_sockets(self.home.make_sockets(identity.uid, identity.gid))

    def _start_postgres(self, child: Child) -> None:
        # Sessions of a server that was killed live on for a moment; until they are gone it refuses to start.
        deadline = time.monotonic() + SHARED_MEMORY_SECONDS
        while True:
            try:
                return self.start(child)
            except LocalServicesError as error:
                if "shared memory block" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def _own(self) -> None:
        with self._lock:
            self._stopping = False
            if not self.home.owned:
                self.home.make()
                self.home.own()
                self.home.unpublish()

    def add(self, child: Child) -> None:
        """Start a child and keep it up from now on, without waiting until it is ready.

        Raises LocalServicesError when it cannot be started at all, as do `start` and `run`.
        """
        self._begin(child).supervised = True

    def start(self, child: Child) -> None:
        """Start a child, wait until it is ready, and keep it up from then on.

        Raises LocalServicesError with the end of its log, and ends it, when it does not get ready.
        """
        self._wait_until_ready(self._begin(child))

    def run(self, child: Child) -> None:
        """Run a child to its end; raises LocalServicesError with the end of its log when it fails."""
        process = self._begin(child).present
        while not process.dead():
            time.sleep(0.01)
        self._forget(child.name)
        if process.popen.returncode != 0:
            raise process.failure(process.how_it_ended())

    def _begin(self, child: Child) -> Kept:
        assert child.name not in self._kept, f"there is a child named {child.name}"
        self._own()
        kept = Kept(child)
        try:
            self._in_thread(lambda: self._launch(kept))
        except OSError as error:
            raise LocalServicesError(f"{child.name} cannot be started: {error}. {OWN_SERVERS}") from error
        return kept

    def publish(self, *, sandbox_url: str | None = None) -> Services:
        """Write down where the embedded services are reached, for `running`; returns the same."""
        assert self.home.sockets is not None, "publish() comes after start_services()"
        services = Services(self.home.database_url(), self.home.redis_url(), sandbox_url)
        self.home.publish(services)
        return services

    def pids(self) -> dict[str, int]:
        """Return the children that run now: name -> process id."""
        with self._lock:
            found = {name: kept.process for name, kept in self._kept.items()}
        return {name: process.pid for name, process in found.items() if process and not process.dead()}

    def watch(self, until: Callable[[], bool] | threading.Event | None = None) -> None:
        """Stay until ``until`` is true or set, or the supervisor is stopped; None: until an exception."""
        done = until.is_set if isinstance(until, threading.Event) else until
        while not self._stopping and not (done is not None and done()):
            time.sleep(TICK_SECONDS)

    def stop(self) -> None:
        """End all children, highest layer first, then give the home back; may be repeated."""
        with self._lock:
            self._stopping = True
            kept = list(self._kept.values())
        for layer in sorted({one.child.layer for one in kept}, reverse=True):
            self._stop_together([one for one in reversed(kept) if one.child.layer == layer])
        self._end_thread()
        with self._lock:
            self._guard.close()
        if self.home.owned:
            self.home.unpublish()
            self.home.remove_sockets()
            self.home.disown()

    def _stop_together(self, layer: list[Kept]) -> None:
        processes = [one.process for one in layer if one.process is not None]
        for process in processes:
            process.ask_to_stop()
        asked = time.monotonic()
        for process in processes:
            process.end(asked + process.child.stop_seconds)
        for one in layer:
            self._forget(one.child.name)

    def _wait_until_ready(self, kept: Kept) -> None:
        child, process = kept.child, kept.present
        began, told = time.monotonic(), False
        while not (child.ready is None or child.ready()):
            waited = time.monotonic() - began
            if process.dead():
                self._forget(child.name)
                raise process.failure(f"did not start: it {process.how_it_ended()}")
            if waited > child.ready_seconds:
                self._stop_together([kept])
                raise process.failure(f"did not get ready in {child.ready_seconds:g} seconds")
            if waited > SILENT_SECONDS and not told:
                told = True
                self._tell(f"Waiting for {child.name} to get ready.")
            time.sleep(0.01)
        kept.supervised = True

    def _tell(self, sentence: str) -> None:
        with suppress(OSError, ValueError):  # a terminal that was closed must not stop the supervising
            self._log(sentence)

    def _forget(self, name: str) -> None:
        with self._lock:
            kept = self._kept.pop(name, None)
            if kept is not None and kept.process is not None:
                self._guard.remove(kept.process.pid)

    # -- the forking thread -------------------------------------------------------------------------------------

    def _in_thread(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
                self._thread.start()
        future: Future[T] = Future()

        def job() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - carried to the caller, who raises it
                future.set_exception(error)

        self._jobs.put(job)
        return future.result()

    def _loop(self) -> None:
        logs_checked = time.monotonic()
        while True:
            try:
                job = self._jobs.get(timeout=TICK_SECONDS)
            except queue.Empty:
                self._tick()
                if time.monotonic() - logs_checked > LOG_CHECK_SECONDS:
                    logs_checked = time.monotonic()
                    self._cut_logs()
                continue
            if job is None:
                return
            job()

    def _tick(self) -> None:
        with self._lock:
            if self._stopping or not self._kept:
                return
            with suppress(OSError):
                self._guard.ensure(self.home.lock)
            for kept in list(self._kept.values()):
                if kept.supervised and (kept.process is None or kept.process.dead()):
                    self._revive(kept)

    def _revive(self, kept: Kept) -> None:
        now = time.monotonic()
        if kept.restart_at is None:
            process, delay = kept.process, kept.note_end(now)
            if process is not None:
                self._guard.remove(process.pid)
                self._tell(f"{kept.child.name} {process.how_it_ended()}; starting it again in {delay:g} s.")
        elif now >= kept.restart_at:
            try:
                self._launch(kept)
            except (OSError, BatchdeskError) as error:
                self._tell(f"{kept.child.name} cannot be started: {error}")
                kept.note_end(now)

    def _launch(self, kept: Kept) -> None:
        with self._lock:
            if self._stopping:
                raise LocalServicesError(f"{kept.child.name} is not started: the supervisor is stopping.")
            self._guard.ensure(self.home.lock)
            kept.process = launch(kept.child, self.home.log)
            kept.restart_at = None
            self._kept[kept.child.name] = kept
            self._guard.add(kept.process.pid, int(kept.child.stop_signal))

    def _cut_logs(self) -> None:
        with self._lock:
            processes = [kept.process for kept in self._kept.values() if kept.process is not None]
        for process in processes:
            with suppress(OSError):
                process.cut_log()

    def _end_thread(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()
