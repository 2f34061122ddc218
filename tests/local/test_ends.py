"""How owners and their processes end, in good order and otherwise, and what the next start makes of it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.local.owners import AS_NOBODY, StartOwner, eventually, processes_of
from webapp.local.home import Home
from webapp.local.identity import switched
from webapp.local.postgres import Postgres

linux = pytest.mark.skipif(sys.platform != "linux", reason="the parent death signal is Linux's")

# A program that neither the parent death signal nor a polite request ends.
STUBBORN = """
import ctypes, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ctypes.CDLL(None).prctl(1, 0)
time.sleep(60)
"""
# ... that the parent death signal does not end, but a polite request does.
DEAF = "import ctypes, time; ctypes.CDLL(None).prctl(1, 0); time.sleep(60)"
ORDINARY = "import time; time.sleep(60)"


def test_nothing_outlives_an_owner_killed_with_9_and_the_next_start_works(
    start_owner: StartOwner, home: Path, user: str
) -> None:
    owner = start_owner(home, user, durable=True)
    child = owner.ask(do="child", name="child", code=ORDINARY)
    owner.sql("CREATE TABLE after_kill AS SELECT 1 AS number")
    owner.send(signal.SIGKILL)
    next_one = start_owner(home, user, durable=True)
    assert not any(is_alive(pid) for pid in [child, *owner.pids.values()])
    assert next_one.sql("SELECT number FROM after_kill") == [[1]]
    assert not owner.sockets.exists()


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_an_owner_ended_by_a_signal(
    start_owner: StartOwner, home: Path, number: signal.Signals
) -> None:
    owner = start_owner(home)
    child = owner.ask(do="child", name="child", code=ORDINARY)
    owner.send(number)
    assert eventually(lambda: not processes_of(owner.home) and not is_alive(child), 5.0)
    assert eventually(lambda: lock_is_free(owner.home), 5.0)
    assert not owner.sockets.exists()


def lock_is_free(home: Path) -> bool:
    with (home / "owner.lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_ctrl_c_in_a_terminal_reaches_the_owner_only(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    os.killpg(owner.process.pid, signal.SIGINT)
    assert owner.process.wait(10) == 130
    assert "received fast shutdown request" in (home / "log" / "postgresql.log").read_text()
    assert lock_is_free(owner.home)


@linux
def test_the_parent_death_signal_alone_ends_everything(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    (watcher,) = watchers(owner.process.pid)
    watcher.suspend()
    try:
        owner.send(signal.SIGKILL)
        assert eventually(lambda: not processes_of(owner.home), 5.0)
    finally:
        watcher.resume()


def watchers(owner: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(owner).children():
        with suppress(psutil.ZombieProcess):
            if any(word.endswith("watcher.py") for word in child.cmdline()):
                found.append(child)
    return found


@linux
def test_the_watcher_alone_ends_a_child(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    child = owner.ask(do="child", name="deaf", code=DEAF)
    time.sleep(0.3)  # for it to have made itself deaf
    owner.send(signal.SIGKILL)
    assert eventually(lambda: not is_alive(child), 3.0)


@linux
def test_a_stubborn_child_of_a_dead_owner_is_killed_before_the_next_start(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    child = owner.ask(do="child", name="stubborn", code=STUBBORN)
    time.sleep(0.3)
    owner.send(signal.SIGKILL)
    start_owner(home)
    assert not is_alive(child)


def test_a_stubborn_child_is_killed_when_its_time_is_up(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    owner.ask(do="child", name="stubborn", code=STUBBORN, stop_seconds=0.5)
    time.sleep(0.3)
    began = time.monotonic()
    assert owner.leave() == 0
    assert 0.4 < time.monotonic() - began < 5.0


def test_a_killed_watcher_is_replaced(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    (watcher,) = watchers(owner.process.pid)
    watcher.kill()
    assert eventually(lambda: any(one.pid != watcher.pid for one in watchers(owner.process.pid)))


@pytest.mark.parametrize("name", ["PostgreSQL", "Valkey"])
def test_a_server_that_dies_is_started_again(start_owner: StartOwner, home: Path, name: str) -> None:
    owner = start_owner(home, durable=True)
    owner.sql(f"CREATE TABLE after_{name} AS SELECT 1 AS number")
    os.kill(owner.pids[name], signal.SIGKILL)
    assert eventually(lambda: owner.ask(do="pids").get(name) not in (None, owner.pids[name]))
    assert eventually(lambda: owner.answers(f"SELECT number FROM after_{name}"))
    assert eventually(lambda: owner.pings())


def test_a_child_that_dies_is_started_again_and_it_is_told(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    first = owner.ask(do="child", name="child", code=ORDINARY)
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: owner.ask(do="pids").get("child") not in (None, first))
    assert owner.process.stderr is not None
    assert "child was ended by SIGKILL; starting it again in 0.2 s." in owner.process.stderr.readline()


def test_a_child_that_always_dies_is_started_ever_more_slowly(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    owner.ask(do="child", name="child", code="import time; time.sleep(0.05); raise SystemExit(7)")
    assert owner.process.stderr is not None
    told = [owner.process.stderr.readline() for _ in range(3)]
    assert [line.split(" in ")[1].strip() for line in told] == ["0.2 s.", "0.4 s.", "0.8 s."]


def test_a_stale_pid_file_that_names_a_strangers_process_is_no_obstacle(
    start_owner: StartOwner, home: Path, user: str
) -> None:
    start_owner(home, user).leave()
    prefix = AS_NOBODY if user == "ordinary user" else []
    with subprocess.Popen([*prefix, "sleep", "60"]) as stranger:
        for path in (home / "postgres" / "postmaster.pid", home / "valkey" / "valkey.pid"):
            path.write_text(f"{stranger.pid}\n")
            shutil.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)
        assert start_owner(home, user).answers()
        assert stranger.poll() is None
        stranger.kill()


def test_a_postgres_that_outlived_its_owner_is_ended_and_its_data_used(
    start_owner: StartOwner, home: Path, user: str
) -> None:
    start_owner(home, user).leave()
    with orphan_postgres(home) as orphan:
        pid_file = home / "postgres" / "postmaster.pid"
        assert eventually(lambda: pid_file.exists() and "ready" in pid_file.read_text())
        assert start_owner(home, user).answers()
        assert orphan.wait(1) == 0


def orphan_postgres(home: Path) -> subprocess.Popen[bytes]:
    data = home / "postgres"
    postgres = Postgres(Home(home), durable=False)
    postgres.home.sockets = data
    numbers = (data.stat().st_uid, data.stat().st_gid)
    if os.geteuid() != 0:
        return subprocess.Popen(postgres.child().argv, stderr=subprocess.DEVNULL)
    assert switched(numbers, postgres.paths).switch
    as_owner = ["setpriv", f"--reuid={numbers[0]}", f"--regid={numbers[1]}", *AS_NOBODY[3:]]
    return subprocess.Popen([*as_owner, *postgres.child().argv], stderr=subprocess.DEVNULL)
