"""Outlives the owner by a moment to end what it left running, however the owner died.

Only the supervisor starts it, as a script in a bare interpreter (`-I -S`). It reads ``+PID SIGNAL`` and ``-PID``
lines from the owner's pipe; at its end (the owner exited, or was killed with -9) it ends the processes still
listed. It is the whole safety net where there is no parent death signal (macOS) and the second one on Linux. It
holds the owner's lock file open, so no new owner starts before it is done.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

GRACE_SECONDS = 4.0


def alive(pid: int) -> bool:
    """Tell whether ``pid`` is a process that still runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True  # no /proc here (macOS), or it is not ours to see
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def send(pid: int, number: int, *, group: bool = False) -> None:
    """Send a signal to a process, or to the group it leads; one that is gone is no fault."""
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def follow() -> dict[int, int]:
    """Read the owner's lines until its end; return what is left: pid -> polite signal, in start order."""
    left: dict[int, int] = {}
    for line in sys.stdin:
        if line.startswith("+"):
            pid, number = line[1:].split()
            left[int(pid)] = int(number)
        elif line.startswith("-"):
            left.pop(int(line[1:]), None)
    return left


def end(left: dict[int, int]) -> None:
    """End processes and their groups: politely, then, after the grace time, with SIGKILL."""
    for pid, number in reversed(left.items()):
        send(pid, number)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(alive(pid) for pid in left) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        send(pid, signal.SIGKILL, group=True)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    end(follow())
