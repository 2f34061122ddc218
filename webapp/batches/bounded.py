"""Runs plugin code over rows in a process of its own, bounded in time and memory, and says which row broke the bounds.
Planning, checking, importing, processing and delivering call it; whatever a plugin does to that process, the worker and
the other rows go on.

The process is forked from the worker, so it has all that the worker has loaded, and is thrown away with whatever the
plugin left in it. It touches no connection of the worker's and ends without tidying up. On Linux it dies with its
worker, and its memory is limited; other systems have no such limit.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, NoReturn, TypeVar

Row = TypeVar("Row")

CPU_SECONDS = 10  # of processor time for one row
WALL_SECONDS = 30.0  # for one row, however little it computes
MEMORY_BYTES = 1 << 30  # beyond what the worker has itself
TRIES = 2  # of a row that ends its process: that may have been killed from outside, or full of what earlier rows left
PIPE_BYTES = 1 << 20
RESERVE_BYTES = 1 << 20  # to say with that there is no more


@dataclass(frozen=True, slots=True)
class Broke:
    """What plugin code did instead of coming back with a value, as the end of a sentence.

    :param certain: the row alone is at fault; else it is tried once more, in a fresh process.
    """

    words: str
    certain: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long the work on one row may take: seconds of processor time, and in all.

    :param tries: of a row that ends its process.
    """

    cpu: int
    wall: float
    tries: int = TRIES


def bounded(rows: Sequence[Row], work: Callable[[Row], Any], bounds: Bounds | None = None) -> Iterator[tuple[Row, Any]]:
    """Each row with what `work` makes of it, or with how it `Broke`, in order.

    :param work: gets one row; what it returns must be what JSON can hold (tuples come back as lists). It runs in
        another process: whatever else it does is lost.
    :param bounds: None: those for a record.
    :raises RuntimeError: `work` itself raised, which is a fault of ours and not of a row.
    """
    bounds = bounds or Bounds(CPU_SECONDS, WALL_SECONDS)
    done, tries = 0, 0
    while done < len(rows):
        child = _Child(rows, done, work, bounds)
        try:
            for value in child.values():
                yield rows[done], value
                done, tries = done + 1, 0
        finally:
            child.end()
        if done < len(rows):
            tries += 1
            broke = child.broke()
            if broke.certain or tries == bounds.tries:
                yield rows[done], broke
                done, tries = done + 1, 0


class _Child:
    """The process, as the worker sees it."""

    def __init__(self, rows: Sequence[Row], first: int, work: Callable[[Row], Any], bounds: Bounds) -> None:
        reading, writing = os.pipe()
        if sys.platform == "linux":
            with suppress(OSError):  # a smaller one works too
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with warnings.catch_warnings():
            # The thread that keeps the lease may hold locks of the database driver; the child never asks for one.
            warnings.simplefilter("ignore", DeprecationWarning)
            parent = os.getpid()
            self._pid = os.fork()
        if self._pid == 0:
            os.close(reading)
            _be_child(rows, first, work, writing, parent, bounds)
        os.close(writing)
        self._bounds = bounds
        self._pipe = reading
        self._status: int | None = None
        self._told: Broke | None = None

    def values(self) -> Iterator[Any]:
        """What the child sends, until it ends or breaks the bounds."""
        text = bytearray()
        deadline = time.monotonic() + self._bounds.wall
        waiting = select.poll()
        waiting.register(self._pipe, select.POLLIN)
        while True:
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self._told = Broke(f"did not come back within {self._bounds.wall:g} seconds", certain=True)
                return
            part = os.read(self._pipe, PIPE_BYTES)
            if not part:
                return
            text += part
            if b"\n" not in part:
                continue
            *lines, text = text.split(b"\n")
            for line in lines:
                kind, value = json.loads(line)
                if kind == "value":
                    yield value
                elif kind == "broke":
                    self._told = Broke(value)
                    return
                else:
                    raise RuntimeError(f"The process that runs plugin code failed: {value}")
            # Whoever takes the values may have been busy with them meanwhile.
            deadline = time.monotonic() + self._bounds.wall

    def end(self) -> None:
        """Make sure that the process is gone."""
        os.close(self._pipe)
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._status = os.waitpid(self._pid, 0)[1]

    def broke(self) -> Broke:
        """How it ended before its last row was done."""
        if self._told is not None:
            return self._told
        code = os.waitstatus_to_exitcode(self._status or 0)
        if code == -signal.SIGXCPU:
            return Broke(f"took more than {self._bounds.cpu} seconds of processor time", certain=True)
        how = f"exit status {code}" if code >= 0 else _signal(-code)
        times = f" {self._bounds.tries} times" if self._bounds.tries > 1 else ""
        return Broke(f"ended its process{times} ({how})")


def _signal(number: int) -> str:
    try:
        return f"{signal.Signals(number).name}, {signal.strsignal(number)}"
    except ValueError:
        return f"signal {number}"


def _be_child(
    rows: Sequence[Row], first: int, work: Callable[[Row], Any], pipe: int, parent: int, bounds: Bounds
) -> NoReturn:
    """Work on the rows and end; nothing of the worker's own is tidied up, flushed or closed."""
    reserve = bytearray(RESERVE_BYTES)
    try:
        _limit(parent)
        for at in range(first, len(rows)):
            _allow(bounds.cpu)
            _send(pipe, "value", work(rows[at]))
    except MemoryError:
        del reserve
        _send(pipe, "broke", f"needed more than {MEMORY_BYTES >> 20:,} MB of memory")
    except Exception:  # noqa: BLE001 - the worker raises it again
        _send(pipe, "failed", traceback.format_exc())
    except BaseException as error:  # noqa: BLE001 - what a plugin raised past every handler of ours
        _send(pipe, "broke", f"raised {type(error).__name__}")
    finally:
        os._exit(0)


def _limit(parent: int) -> None:
    """Bound what this process may use, and tie it to its parent."""
    # What the worker left for the collector is the worker's: collected here, it could speak on its connections.
    gc.freeze()
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")  # if the machine has no memory left, this one goes
    held = int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
    _lower(resource.RLIMIT_DATA, held + MEMORY_BYTES)


def _allow(seconds: int) -> None:
    """So much processor time from now on; the kernel ends the process beyond it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, ceil(used.ru_utime + used.ru_stime) + seconds)


def _lower(what: int, to: int) -> None:
    """Set a limit, not above the one that others have set."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (to if hard == resource.RLIM_INFINITY else min(to, hard), hard))


def _send(pipe: int, kind: str, value: Any) -> None:
    line = memoryview(json.dumps((kind, value)).encode("ascii") + b"\n")
    while line:
        line = line[os.write(pipe, line) :]
