"""One child process: what it is, how it is launched, where its output goes, how it is ended.

The supervisor starts and ends them; the CLI and the services describe them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from webapp.errors import LocalServicesError
from webapp.local.home import OWN_SERVERS
from webapp.local.identity import Identity
from webapp.local.launch import CANNOT_EXECUTE
from webapp.local.watcher import send

LAUNCHER = Path(__file__).with_name("launch.py")
BARE_PYTHON = (sys.executable, "-I", "-S")
LONGEST_LOG = 8_000_000  # bytes
TAIL_LINES = 12


@dataclass(frozen=True)
class Child:
    """A program for the supervisor to keep up.

    :param name: unique in its supervisor; names the log file.
    :param argv: the program's absolute path and its arguments.
    :param env: its whole environment.
    :param ready: asked until true before :meth:`Supervisor.start` returns; at most ``ready_seconds``.
    :param prepare: called before each start, restarts included.
    :param stop_signal: the polite way to end it; SIGKILL to its process group follows after ``stop_seconds``.
    :param layer: children of a higher layer are stopped first, those of one layer together, last started first.
    :param inherit_output: write to our stderr rather than to ``log/NAME.log``.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path | None = None
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0
    prepare: Callable[[], None] | None = None
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10.0
    layer: int = 10
    inherit_output: bool = False
    identity: Identity | None = None


@dataclass
class Process:
    """A started child: its process, and since when."""

    child: Child
    popen: subprocess.Popen[bytes]
    log: Path | None
    log_start: int
    since: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def dead(self) -> bool:
        return self.popen.poll() is not None

    def ask_to_stop(self) -> None:
        """Send the polite signal, once."""
        if not self.dead():
            send(self.pid, self.child.stop_signal)

    def end(self, deadline: float) -> None:
        """Wait until ``deadline`` (monotonic seconds), then kill what is left of its process group."""
        try:
            self.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            send(self.pid, signal.SIGKILL, group=True)
            self.popen.wait()

    def how_it_ended(self) -> str:
        code = self.popen.returncode
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def cut_log(self) -> None:
        """Empty the log when it has grown too long; the process appends, so it goes on at the start."""
        if self.log is not None and self.log.stat().st_size > LONGEST_LOG:
            os.truncate(self.log, 0)
            self.log_start = 0

    def failure(self, what: str) -> LocalServicesError:
        """Return the error that says it did not start, with the end of its log."""
        if self.popen.returncode == CANNOT_EXECUTE:
            what = "cannot run on this system"
        return LocalServicesError(f"{self.child.name} {what}.{self._tail()}\n{OWN_SERVERS}")

    def _tail(self) -> str:
        if self.log is None:
            return ""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            lines = file.read(LONGEST_LOG).decode(errors="replace").splitlines()[-TAIL_LINES:]
        shown = "".join(f"\n    {line}" for line in lines)
        return f" Its log {self.log} ends with:{shown}" if lines else f" Its log {self.log} is empty."


def launch(child: Child, log_folder: Path) -> Process:
    """Start a child in a session of its own, so that Ctrl-C reaches only the owner.

    Call it from a thread that lives as long as the owner: Linux sends the parent death signal when the *thread*
    that forked ends. Raises OSError or LocalServicesError.
    """
    if child.prepare is not None:
        child.prepare()
    if child.inherit_output:
        return Process(child, _popen(child, 2), None, 0)
    path = log_folder / f"{child.name.lower()}.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(descriptor).st_size > LONGEST_LOG:
            os.ftruncate(descriptor, 0)
        start = os.fstat(descriptor).st_size
        return Process(child, _popen(child, descriptor), path, start)
    finally:
        os.close(descriptor)


def _popen(child: Child, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _command(child),
        env=dict(child.env),
        cwd=child.cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _command(child: Child) -> list[str]:
    identity = child.identity
    if sys.platform != "linux" and not (identity and identity.switch):
        return list(child.argv)
    switch = identity if identity is not None and identity.switch else None
    ids = (switch.uid, switch.gid, switch.capability) if switch else (None, None, None)
    words = ["-" if number is None else str(number) for number in ids]
    return [*BARE_PYTHON, str(LAUNCHER), str(os.getpid()), str(int(child.stop_signal)), *words, *child.argv]
