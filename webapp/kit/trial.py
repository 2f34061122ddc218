"""A process in which a plugin is tried, and what it did instead of answering.
The checks ask; whatever the plugin does to that process, the command goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, Self

from webapp import ROOT

CPU_SECONDS = 10  # of processor time for one call, as in planning and processing
WALL_SECONDS = 30.0  # for one call, however little it computes


class Broke(Exception):
    """The plugin broke the process that it was tried in; its text is the end of a sentence."""


class Trial:
    """A process that has loaded one plugin; a context manager.

    :param target: what `webapp.kit.child` loads.
    :param hash_seed: of Python's hashes: sets have another order with another one.
    :param time_zone: where this process believes to be: a date in a prompt differs between two that are far apart.
    :param cpu_seconds: of processor time for one call.
    :param wall_seconds: for one call, however little it computes.
    """

    def __init__(
        self, target: dict[str, str], *, hash_seed: int, time_zone: str, cpu_seconds: int, wall_seconds: float
    ) -> None:
        self._target, self._wall_seconds, self._cpu_seconds = target, wall_seconds, cpu_seconds
        self._environ = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "TZ": time_zone, "PYTHONPATH": _path()}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def load(self) -> dict[str, Any]:
        """What the target brings, in a fresh process."""
        self._end()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "webapp.kit.child", str(self._cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environ,
        )
        return self.ask("load", target=self._target)

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """What the process answers.

        :raises Broke: it ended, or did not come back in time; the next call loads the plugin again.
        """
        if self._process is None:
            self.load()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        late = threading.Event()
        timer = threading.Timer(self._wall_seconds, _kill, (process, late))
        timer.start()
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps((method, arguments)).encode("ascii") + b"\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            return dict(json.loads(line))
        status = process.wait()
        self._end()
        if late.is_set():
            raise Broke(f"did not come back within {self._wall_seconds:g} seconds")
        if -status == signal.SIGXCPU:
            raise Broke(f"took more than {self._cpu_seconds} seconds of processor time")
        raise Broke(f"ended its process ({_how(status)})")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _kill(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"{signal.Signals(-status).name}, {signal.strsignal(-status)}"
    except ValueError:
        return f"signal {-status}"


def _path() -> str:
    """Where Python looks for modules: this Batchdesk's first, wherever the command was called."""
    others = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(ROOT), *([others] if others else [])])
