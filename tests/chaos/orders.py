"""What a round wants to happen at which fault point, and what did: files in a folder, so that they outlive kills.

The harness gives orders and reads what came of them; the workers' processes carry them out, each order once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.points import COMMIT, Point
from webapp.batches.steps import Lease, StepName

KILL = "kill"  # kill -9 the process of the job
KILL_WORKER = "kill-worker"  # ... and the worker that forked it
STALL = "stall"  # fall silent for so long that it is taken for dead, then go on
STALL_SECONDS = 1.0
WAIT = "wait"  # do nothing for a moment: the other end of a connection is faster
WAIT_SECONDS = 0.3
SECONDS = {STALL: STALL_SECONDS, WAIT: WAIT_SECONDS}
LEAVE = "leave"  # the worker is asked to end (SIGTERM)
DEADLY = (KILL, KILL_WORKER)
# Deaths of one step of one row, at most: a record whose worker dies again and again is blamed, and rightly.
# A look blames nobody, and all looks of a household are at the same account.
MOST_DEATHS = {StepName.PLAN: 4, StepName.LOOK: 100}
MOST_DEATHS_ELSE = 3


@dataclass(frozen=True)
class Done:
    """An order that was carried out."""

    point: Point
    what: str
    pid: int
    lease: tuple[str, int, int]  # step, target, epoch


class Orders:
    """The folder of one round."""

    def __init__(self, folder: Path) -> None:
        self._wanted, self._taken, self._held, self._deaths = (
            folder / name for name in ("wanted", "taken", "held", "deaths")
        )
        self._passed = folder / "passed"
        self._acting = threading.Lock()

    def make(self) -> None:
        for folder in (self._wanted, self._taken, self._held, self._deaths):
            folder.mkdir(parents=True)
        self._passed.touch()

    # -- the harness's side ---------------------------------------------------------------------------------------

    def give(self, point: Point, what: str) -> None:
        """Want something at a point, once. A process that is silent within a transaction would block the others."""
        assert what not in SECONDS or point.moment != COMMIT
        part = self._wanted / f".{point}"
        part.write_text(what)
        part.rename(self._wanted / str(point))

    def withdraw(self) -> list[Point]:
        """Want nothing more; what nobody came to."""
        left = []
        for path in sorted(self._wanted.iterdir()):
            with suppress(FileNotFoundError):
                path.unlink()
                left.append(Point.read(path.name))
        return left

    def forget(self) -> None:
        """Begin anew: what was carried out, and who died, is told no more."""
        for folder in (self._taken, self._deaths):
            for path in folder.iterdir():
                path.unlink()

    def done(self) -> list[Done]:
        """What was carried out, in order."""
        found = []
        for path in sorted(self._taken.iterdir(), key=lambda one: one.stat().st_mtime_ns):
            words = path.read_text().split()
            if len(words) == 5:  # else it is being written
                what, pid, step, target, epoch = words
                found.append(Done(Point.read(path.name), what, int(pid), (step, int(target), int(epoch))))
        return found

    def passed(self) -> set[Point]:
        """The points that anybody passed."""
        return {Point.read(line) for line in self._passed.read_text().splitlines()}

    def dead(self) -> Iterator[tuple[str, int, int]]:
        """The leases (step, target, epoch) of processes that are no more, each once."""
        for path in self._held.iterdir():
            if _lives(int(path.name)):
                continue
            lines = path.read_text().splitlines()
            path.unlink()
            for step, target, epoch in (line.split() for line in lines):
                yield step, int(target), int(epoch)

    # -- the workers' side ----------------------------------------------------------------------------------------

    def hold(self, lease: Lease) -> None:
        """Note that this process has a lease."""
        with (self._held / str(os.getpid())).open("a") as held:
            held.write(f"{lease.step} {lease.target_id} {lease.epoch}\n")

    def act(self, point: Point, lease: Lease) -> None:
        """Carry out what is wanted at a point."""
        self._note(point)
        # Two threads of a step may be at a boundary each: the one must not kill the other while it takes its order.
        with self._acting:
            what = self._take(point, lease)
        if what in SECONDS:
            time.sleep(SECONDS[what])
        elif what == LEAVE:
            for pid in (os.getppid(), os.getpid()):
                os.kill(pid, signal.SIGTERM)

    def _take(self, point: Point, lease: Lease) -> str | None:
        """Take the order for a point, if there is one; die at once where it is to die."""
        wanted = self._wanted / str(point)
        if not wanted.exists() or self._dies_too_often(lease):
            return None
        taken = self._taken / str(point)
        try:
            wanted.rename(taken)
        except FileNotFoundError:
            return None  # another process was faster
        what = taken.read_text()
        if what in DEADLY:
            with (self._deaths / f"{lease.step}-{lease.target_id}").open("a") as deaths:
                deaths.write("+")
        taken.write_text(f"{what} {os.getpid()} {lease.step} {lease.target_id} {lease.epoch}")
        if what in DEADLY:
            if what == KILL_WORKER:
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return what

    def _note(self, point: Point) -> None:
        descriptor = os.open(self._passed, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, f"{point}\n".encode())
        finally:
            os.close(descriptor)

    def _dies_too_often(self, lease: Lease) -> bool:
        path = self._deaths / f"{lease.step}-{lease.target_id}"
        return path.exists() and path.stat().st_size >= MOST_DEATHS.get(lease.step, MOST_DEATHS_ELSE)


def given(orders: Orders, wanted: Mapping[Point, str]) -> None:
    """Give several orders."""
    for point, what in wanted.items():
        orders.give(point, what)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")
