"""The supervisor over plain children, without the services."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.local.owners import eventually
from webapp.errors import LocalServicesError
from webapp.local import Child, Supervisor
from webapp.local.process import LONGEST_LOG

# Notes its end in the file NOTES when asked to stop.
NOTING = """
import os, signal, sys, time
def note(*_):
    with open(os.environ["NOTES"], "a") as file:
        file.write(os.environ["NAME"] + " ")
    sys.exit()
signal.signal(signal.SIGTERM, note)
open(os.environ["NOTES"] + os.environ["NAME"], "w").close()
time.sleep(60)
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "home") as made:
        yield made


def child(code: str, name: str = "child", **options: Any) -> Child:
    return Child(name, [sys.executable, "-c", code], options.pop("env", {}), **options)


def log_of(tmp_path: Path, name: str = "child") -> str:
    return (tmp_path / "home" / "log" / f"{name}.log").read_text()


def test_layers_are_stopped_from_the_highest_down(supervisor: Supervisor, tmp_path: Path) -> None:
    for name, layer in (("a", 1), ("b", 3), ("c", 2)):
        env = {"NOTES": str(tmp_path / "notes"), "NAME": name}
        here = tmp_path / f"notes{name}"
        supervisor.start(child(NOTING, name, env=env, layer=layer, ready=here.exists))
    supervisor.stop()
    assert (tmp_path / "notes").read_text() == "b c a "


def test_a_child_sees_its_own_environment_only(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the owner")
    supervisor.run(child("import os; print(os.environ.get('SECRET'), os.environ['ITS'])", env={"ITS": "own"}))
    assert log_of(tmp_path) == "None own\n"


def test_a_child_leads_a_session_of_its_own(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.run(child("import os; print(os.getsid(0) == os.getpid())"))
    assert log_of(tmp_path) == "True\n"


def test_a_child_may_write_to_our_stderr(supervisor: Supervisor, capfd: pytest.CaptureFixture[str]) -> None:
    supervisor.run(child("print('hello')", inherit_output=True))
    assert capfd.readouterr().err == "hello\n"


def test_a_child_that_does_not_start_shows_the_end_of_its_log(supervisor: Supervisor) -> None:
    with pytest.raises(LocalServicesError, match=r"child did not start: it ended with status 3.*\n +no luck"):
        supervisor.start(child("print('no luck'); raise SystemExit(3)", ready=lambda: False))
    assert supervisor.pids() == {}


def test_a_child_that_does_not_get_ready_is_ended(supervisor: Supervisor) -> None:
    with pytest.raises(LocalServicesError, match=r"did not get ready in 0.2 seconds"):
        supervisor.start(child("import time; time.sleep(60)", ready=lambda: False, ready_seconds=0.2))
    assert supervisor.pids() == {}


def test_a_program_that_is_not_there_is_named(supervisor: Supervisor) -> None:
    with pytest.raises(LocalServicesError, match=r"child cannot (be started|run on this system)(.|\n)*/no/such"):
        supervisor.run(Child("child", ["/no/such/program"], {}))


def test_a_long_log_is_emptied_when_its_child_starts(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "home" / "log").mkdir(parents=True)
    (tmp_path / "home" / "log" / "child.log").write_bytes(b"x" * (LONGEST_LOG + 1))
    supervisor.run(child("print('new')"))
    assert log_of(tmp_path) == "new\n"


def test_children_are_kept_up_while_the_owner_does_something_else(supervisor: Supervisor, tmp_path: Path) -> None:
    code = "import time; print('once'); time.sleep(0.1)"
    supervisor.add(child(code))
    assert eventually(lambda: log_of(tmp_path).count("once") >= 2)


def test_a_log_that_cannot_be_written_does_not_end_the_supervising(tmp_path: Path) -> None:
    def closed(message: str) -> None:
        raise BrokenPipeError(message)

    with Supervisor(tmp_path / "home", closed) as supervisor:
        supervisor.add(child("import time; print('once'); time.sleep(0.1)"))
        assert eventually(lambda: log_of(tmp_path).count("once") >= 2)


def test_watching_ends_with_its_event(supervisor: Supervisor) -> None:
    done = threading.Event()
    threading.Timer(0.2, done.set).start()
    began = time.monotonic()
    supervisor.watch(done)
    assert 0.1 < time.monotonic() - began < 5.0


def test_stopping_may_be_repeated(supervisor: Supervisor) -> None:
    supervisor.add(child("import time; time.sleep(60)"))
    supervisor.stop()
    supervisor.stop()
    assert supervisor.pids() == {}
