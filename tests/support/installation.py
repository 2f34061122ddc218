"""One installation as people have it: the `batchdesk` command, its processes and its home, in a folder of its own.

Journey and command line tests make one with `Installation.made()`; whatever it started has ended when it is left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
from support.desk import DeskDriver
from support.sandbox import API_KEY, Sandbox

from webapp import create_app, local
from webapp.local import Supervisor
from webapp.settings import load

BATCHDESK = Path(sys.executable).with_name("batchdesk")
PATIENCE = 100.0  # seconds for anything: machines that run tests are slow and busy
STEP = 0.05


def until(true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until something is true, and return it; what is waited for is told when it does not come."""
    deadline = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds: {what}"
        time.sleep(STEP)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The object that `--json` prints last."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


class Command:
    """A command that runs; its words go to files, so that it never waits for a reader."""

    def __init__(self, arguments: list[str], env: dict[str, str], folder: Path) -> None:
        with (
            tempfile.NamedTemporaryFile(dir=folder, prefix="out-", delete=False) as out,
            tempfile.NamedTemporaryFile(dir=folder, prefix="err-", delete=False) as err,
        ):
            self._out, self._err = Path(out.name), Path(err.name)
            self.process = subprocess.Popen(
                [str(BATCHDESK), *arguments],
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8", "replace")

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8", "replace")

    def says(self, words: str, seconds: float = PATIENCE) -> None:
        """Wait until its stderr has these words."""

        def said() -> bool:
            over = self.process.poll() is not None
            if words in self.err:
                return True
            assert not over, f"it ended with {self.process.returncode} before {words!r}: {self.err}"
            return False

        until(said, f"{words!r} in {self.err!r}", seconds)

    def ended(self, seconds: float = PATIENCE) -> Finished:
        """Wait for its end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.process.args} does not end: {self.err}") from None
        return Finished(self.process.returncode, self.out, self.err)

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> Finished:
        """End it in order, as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.ended(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()


class Installation:
    """A home and the environment of its commands.

    :param folder: working folder of the commands; the home is made in it.
    :param sandbox: what answers as the API; None: the installation's own sandbox.
    :param settings: environment variables, without BATCHDESK_ and in lower case.
    """

    def __init__(self, folder: Path, sandbox: Sandbox | None, **settings: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.sandbox = sandbox
        self.port = free_port()
        own = {"home": str(self.home), "port": str(self.port), "poll_schedule": "*:0.5", "retry_delay": "1"}
        own |= {"unknown_grace": "2", "missing_wait": "1"}
        self.env = {name: value for name, value in os.environ.items() if not _ours(name)}
        self.env |= {f"BATCHDESK_{name.upper()}": value for name, value in (own | settings).items()}
        # Progress bars and wrapped words depend on the terminal; pytest's must not.
        self.env |= {"COLUMNS": "200", "PYTHONUTF8": "1"}
        if sandbox is not None:
            self.env |= {"ANTHROPIC_API_KEY": API_KEY, "ANTHROPIC_BASE_URL": sandbox.url}
        self._commands: list[Command] = []

    @classmethod
    @contextmanager
    def made(cls, sandbox: Sandbox | None, **settings: str) -> Iterator[Self]:
        """An installation in a folder with a short name; nothing of it runs when the block has ended."""
        folder = Path(tempfile.mkdtemp(prefix="bd-"))
        made = cls(folder, sandbox, **settings)
        try:
            yield made
        finally:
            made.close()
            shutil.rmtree(folder)

    # -- commands -----------------------------------------------------------------------------------------------

    def start(self, *arguments: str | Path, **environ: str) -> Command:
        """Start a command and do not wait for it."""
        command = Command([str(one) for one in arguments], self.env | environ, self.folder)
        self._commands.append(command)
        return command

    def run(self, *arguments: str | Path, seconds: float = PATIENCE, **environ: str) -> Finished:
        """Run a command to its end."""
        return self.start(*arguments, **environ).ended(seconds)

    def classify(self, source: str | Path, *arguments: str | Path, seconds: float = PATIENCE) -> Finished:
        """The main job, over texts that share words with `alpha` and `beta`."""
        return self.run(*self.classifying(source), *arguments, seconds=seconds)

    def classifying(self, source: str | Path) -> tuple[str, ...]:
        out = str(self.folder / "out.jsonl")
        return ("run", "classify", str(source), "--set", "labels=alpha,beta", "--out", out, "--json")

    @contextmanager
    def up(self, workers: int = 1) -> Iterator[Command]:
        """Keep everything up: `batchdesk up`; ended in order."""
        command = self.start("up", "--workers", str(workers))
        command.says("The dashboard is at")
        yield command
        assert command.stop().status == 0, command.err

    @contextmanager
    def up_until_killed(self, workers: int = 1) -> Iterator[Command]:
        """`batchdesk up` for a test that kills it."""
        command = self.start("up", "--workers", str(workers))
        command.says("The dashboard is at")
        yield command
        assert command.ended(30).status == -signal.SIGKILL, command.err

    # -- files --------------------------------------------------------------------------------------------------

    def write(self, name: str, lines: list[Any]) -> Path:
        """Write records as JSONL."""
        path = self.folder / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return path

    def outputs(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        """What `--out` wrote."""
        return [json.loads(line) for line in (self.folder / name).read_text("utf-8").split("\n")[:-1]]

    # -- processes ----------------------------------------------------------------------------------------------

    def child(self, owner: Command, what: str) -> int:
        """The process id of a child of `up` or `run`: worker, clock, web, postgres, valkey, sandbox."""
        words = {"worker": "worker.py work", "clock": "worker.py clock", "web": "gunicorn", "sandbox": "webapp.sandbox"}
        sign = words.get(what, what)
        found = until(lambda: [one.pid for one in _children(owner.pid) if sign in _line(one)], f"{what} of {owner.pid}")
        pid: int = found[0]
        return pid

    def kill_child(self, owner: Command, what: str) -> None:
        """End a child with kill -9, and wait until another has its place."""
        pid = self.child(owner, what)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(pid) or self.child(owner, what) != pid, f"another {what}")

    def left_running(self) -> list[str]:
        """The live processes that work in the home, by their command lines."""
        return [_line(one) for one in self._processes()]

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                    continue
                ours = process.environ().get("BATCHDESK_HOME") == str(self.home)
                if ours or str(self.home) in _line(process) or process.cwd().startswith(str(self.home)):
                    found.append(process)
        return found

    def close(self) -> None:
        """End what still runs, by its id, and say if that was more than the commands started here."""
        for command in self._commands:
            command.close()
        outlived: list[str] = []
        deadline = time.monotonic() + 20
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(STEP)
        for process in left:
            outlived.append(_line(process))
            with suppress(psutil.Error):
                process.kill()
        assert not outlived, f"processes outlived their owner: {outlived}"

    # -- books --------------------------------------------------------------------------------------------------

    @contextmanager
    def desk(self) -> Iterator[DeskDriver]:
        """The installation's database, for looking into it; its services are started when nobody keeps them up."""
        settings = load(self.env)
        with Supervisor(self.home) as supervisor:
            if local.running(self.home) is None:
                supervisor.start_services()
            app = create_app(settings)
            with app.app_context():
                try:
                    yield DeskDriver(app)
                finally:
                    from webapp.db import db

                    db.engine.dispose()


def _ours(name: str) -> bool:
    return name.startswith(("ANTHROPIC_", "BATCHDESK_")) or name in ("DATABASE_URL", "REDIS_URL", "COVERAGE_RUN")


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.Error:
        return []


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
