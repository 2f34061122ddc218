"""Servers that a dead owner left on our data. Only the services call it, while they hold the owner's lock."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from webapp.errors import LocalServicesError
from webapp.local.watcher import alive, send

PATIENCE = ((10.0, signal.SIGQUIT), (5.0, signal.SIGKILL), (5.0, None))


def stop_orphan(pid_file: Path, program: str, folder: Path, polite: int) -> None:
    """End the server that ``pid_file`` names, if that process really is ``program`` working on ``folder``.

    A pid file outlives a crash, and after a restart (of a container above all) its number may be anybody's.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return
    if not works_on(pid, program, folder):
        return
    send(pid, polite)
    for seconds, harder in PATIENCE:
        deadline = time.monotonic() + seconds
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not alive(pid):
            return
        if harder is not None:
            send(pid, harder)
    raise LocalServicesError(f"An earlier {program} (process {pid}) on {folder} cannot be stopped.")


def works_on(pid: int, program: str, folder: Path) -> bool:
    """Tell whether the process is ``program`` with ``folder`` among its arguments, or as its working folder."""
    if pid <= 1 or not alive(pid):
        return False
    arguments = _arguments(pid)
    if not arguments or Path(arguments[0]).name != program:
        return False
    with suppress(OSError):
        if Path(f"/proc/{pid}/cwd").samefile(folder):  # holds even if the home was moved meanwhile
            return True
    return str(folder) in arguments


def _arguments(pid: int) -> list[str]:
    if Path("/proc/self/cmdline").exists():
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        return []
    listed = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
    return _unspaced(listed.stdout.strip())


def _unspaced(command: str) -> list[str]:
    # `ps` joins by spaces, which paths may hold as well: cut only where our own options are.
    program, _, rest = command.partition(" -D ")
    return [program, rest.partition(" -p ")[0]] if rest else command.split(" ", 1)
