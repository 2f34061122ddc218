"""A plugin from outside the repository, two workers and a dashboard: installed, upgraded while a run of the old version
is in flight, rolled back and removed, with all processes agreeing each time.
"""

from __future__ import annotations

import re
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

import pytest
from support.audit import audit
from support.desk import documents
from support.installation import Command, Installation, until
from support.plugin_wheels import NAME, unloaded, wheel, write
from support.sandbox import SandboxProcess

pytestmark = pytest.mark.journey

RECORDS = 1000
FEW = 10
ALL = "Taken up by all 3 processes that are up."
WHILE = 3600.0  # seconds that the API takes, by its own clock


class Person:
    """The admin at the dashboard, over HTTP."""

    def __init__(self, base: str, password: str) -> None:
        self._base = base
        jar = urllib.request.HTTPCookieProcessor(CookieJar())
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar).open
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get("/login"))
        assert token
        fields = {"csrf_token": token[1], "email": "admin@example.com", "password": password}
        self._open(f"{base}/login", urllib.parse.urlencode(fields).encode(), 30).read()

    def get(self, path: str) -> str:
        text: str = self._open(f"{self._base}{path}", None, 30).read().decode()
        return text

    def sees_task(self) -> bool:
        """Whether a run of the plugin's task can be started."""
        return "Choose a dataset for Stamp" in self.get("/runs/new?task=stamp")


def changed(installation: Installation, person: Person, *arguments: str) -> None:
    """Change the set of plugins; the dashboard is looked at meanwhile, and in the end all processes agree."""
    command = installation.start("plugins", *arguments)
    until(lambda: person.get("/") and command.process.poll() is not None, f"the end of {arguments}")
    done = command.ended()
    assert done.status == 0, done.err
    assert ALL in done.err, done.err


def run_of(installation: Installation, out: str, records: int = FEW) -> Command:
    source = installation.write(f"{out}.in.jsonl", documents(records))
    return installation.start("run", "stamp", source, "--out", installation.folder / out, "--json")


def versions(installation: Installation, out: str) -> list[str]:
    return [row["output"]["version"] for row in installation.outputs(out)]


def test_each_run_keeps_its_version_and_all_processes_agree(installation: Installation, api: SandboxProcess) -> None:
    first = write(installation.folder, wheel("1.0"), "1.0")
    second = write(installation.folder, wheel("2.0"), "2.0")
    with unloaded(), installation.up(workers=2) as up:
        password = re.search(r"with the password (\S+) \(shown only now\)", up.err)
        assert password
        person = Person(f"http://127.0.0.1:{installation.port}", password[1])
        assert not person.sees_task()
        changed(installation, person, "install", str(first), "--yes")
        assert person.sees_task()

        api.configure(delay=WHILE)
        old = run_of(installation, "old.jsonl", RECORDS)
        until(lambda: len(api.accepted()) == RECORDS, "the first run is at the API")
        changed(installation, person, "upgrade", str(second), "--yes")
        new = run_of(installation, "new.jsonl")
        until(lambda: len(api.accepted()) == RECORDS + FEW, "the second run is at the API, beside the first")
        api.advance(WHILE)
        api.configure(delay=0.3)
        for command, count in ((old, RECORDS), (new, FEW)):
            done = command.ended()
            assert (done.status, done.summary["succeeded"]) == (0, count), done.err
        assert versions(installation, "old.jsonl") == ["1.0"] * RECORDS
        assert versions(installation, "new.jsonl") == ["2.0"] * FEW

        changed(installation, person, "rollback", NAME)
        done = run_of(installation, "again.jsonl").ended()
        assert done.status == 0, done.err
        assert versions(installation, "again.jsonl") == ["1.0"] * FEW

        changed(installation, person, "remove", NAME)
        assert not person.sees_task()
        gone = run_of(installation, "gone.jsonl").ended()
        assert gone.status == 2 and "There is no task 'stamp'" in gone.err
        with installation.desk() as desk:
            audit(desk, api)
