"""Owners of homes as processes of their own: the tests' end of `owner.py`."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("owner.py")

# Lets an ordinary user read our interpreter and packages wherever they are (root's folders are often closed), and
# nothing more: what it may write, and whose processes it may signal, stays as for any other user.
AS_NOBODY = [
    *("setpriv", "--reuid=nobody", f"--regid={pwd.getpwnam('nobody').pw_gid}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something is true, at most so long; return whether it came true."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the live processes that name this home in their arguments or work in it, but no owner script."""
    found = []
    for process in psutil.process_iter():
        try:
            line, folder = process.cmdline(), process.cwd()
            dead = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        mentions = any(str(home) in word for word in line) or folder.startswith(str(home))
        if mentions and not dead and str(SCRIPT) not in line:
            found.append(process)
    return found


class Owner:
    """A running owner script."""

    def __init__(self, home: Path, prefix: list[str], *, durable: bool) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(SCRIPT), str(home), "durable" if durable else "fleeting"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        self.first: dict[str, Any] = {}

    def wait_for_start(self) -> None:
        self.first = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            pytest.fail(f"the owner ended: {self.process.stderr.read()}")
        return json.loads(line)

    @property
    def pids(self) -> dict[str, int]:
        return self.first["pids"]

    @property
    def refused(self) -> str:
        return self.first.get("refused", "")

    @property
    def sockets(self) -> Path:
        return Path(self.first["services"]["redis_url"].removeprefix("unix://")).parent

    def ask(self, **order: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]

    def sql(self, statement: str) -> Any:
        return self.ask(do="sql", sql=statement)

    def redis(self, *words: str) -> Any:
        return self.ask(do="redis", words=words)

    def answers(self, statement: str = "SELECT 1") -> bool:
        try:
            self.sql(statement)
        except RuntimeError:
            return False
        return True

    def pings(self) -> bool:
        return self.redis("PING") is True

    def leave(self) -> int:
        """Let it end in an orderly way; return its status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)

    def send(self, number: int) -> None:
        """Send a signal to it alone, and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None and not pipe.closed:
                with suppress(BrokenPipeError):  # an order it did not live to read
                    pipe.close()


StartOwner = Callable[..., Owner]
