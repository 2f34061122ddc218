"""Outlives the owner by a moment to end what it left running, however the owner died.

Only the supervisor starts it, as a script in a bare interpreter (`-I -S`). It reads ``+PID SIGNAL``, ``-PID`` and
``=SOCKETS`` lines from the owner's pipe; at its end (the owner exited, or was killed with -9) it ends the processes
still listed and removes the folder of their sockets. It is the whole safety net where there is no parent death
signal (macOS) and the second one on Linux. It holds the owner's lock file open, so no new owner starts before it
is done.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE_SECONDS = 4.0

POSTGRES_PORT = 5432  # only a part of the socket's name; set everywhere, else PGPORT would decide
POSTGRES_SOCKETS = (f".s.PGSQL.{POSTGRES_PORT}", f".s.PGSQL.{POSTGRES_PORT}.lock")
VALKEY_SOCKET = "valkey.sock"
SOCKETS_PREFIX = "batchdesk-"


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


def remove_sockets(folder: Path) -> None:
    """Remove a folder of sockets. Only names we know, then rmdir: whatever else is in there is not ours."""
    if not folder.name.startswith(SOCKETS_PREFIX) or folder.is_symlink() or not folder.is_dir():
        return
    with suppress(OSError):
        for name in (*POSTGRES_SOCKETS, VALKEY_SOCKET):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def follow() -> tuple[dict[int, int], Path | None]:
    """Read the owner's lines until its end; return what is left (pid -> polite signal) and the sockets' folder."""
    left: dict[int, int] = {}
    sockets = None
    for line in sys.stdin:
        if line.startswith("+"):
            pid, number = line[1:].split()
            left[int(pid)] = int(number)
        elif line.startswith("-"):
            left.pop(int(line[1:]), None)
        elif line.startswith("="):
            sockets = Path(line[1:].rstrip("\n"))
    return left, sockets


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
    processes, folder = follow()
    end(processes)
    if folder is not None:
        remove_sockets(folder)
