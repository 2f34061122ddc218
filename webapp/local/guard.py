"""The owner's end of the watcher: keeps it running and tells it which processes there are.

Only the supervisor uses it, under its lock.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from webapp.local.process import BARE_PYTHON

WATCHER = Path(__file__).with_name("watcher.py")


class Guard:
    """A watcher process and the pipe to it; the processes it would end if the owner died now."""

    def __init__(self) -> None:
        self._watcher: subprocess.Popen[bytes] | None = None
        self._signals: dict[int, int] = {}
        self._sockets: Path | None = None

    def ensure(self, lock: int) -> None:
        """Start the watcher, or another when it was killed. It inherits the descriptor of the owner's lock."""
        if self._watcher is not None and self._watcher.poll() is None:
            return
        self._close_pipe()
        self._watcher = subprocess.Popen(
            [*BARE_PYTHON, str(WATCHER)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            pass_fds=(lock,),
            start_new_session=True,
        )
        for pid, number in self._signals.items():
            self._tell(f"+{pid} {number}\n")
        if self._sockets is not None:
            self.remember_sockets(self._sockets)

    def remember_sockets(self, folder: Path) -> None:
        """Have the watcher remove this folder at its end."""
        self._sockets = folder
        self._tell(f"={folder}\n")

    def add(self, pid: int, polite: int) -> None:
        self._signals[pid] = polite
        self._tell(f"+{pid} {polite}\n")

    def remove(self, pid: int) -> None:
        if self._signals.pop(pid, None) is not None:
            self._tell(f"-{pid}\n")

    def close(self) -> None:
        """End the watcher; it ends whatever was not removed. May be repeated."""
        self._close_pipe()
        if self._watcher is not None:
            self._watcher.wait()
            self._watcher = None
        self._signals.clear()
        self._sockets = None

    def _tell(self, line: str) -> None:
        # A broken pipe: it was killed. `ensure` starts another, which is told everything.
        if self._watcher is not None and self._watcher.stdin is not None:
            with suppress(OSError):
                self._watcher.stdin.write(line.encode())

    def _close_pipe(self) -> None:
        if self._watcher is not None and self._watcher.stdin is not None:
            with suppress(OSError):
                self._watcher.stdin.close()
