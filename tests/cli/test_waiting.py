"""Waiting for a run when the database goes away, or whoever reads the output does: the status still tells the truth."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from support.command_line import CommandLine
from support.desk import DeskDriver, documents
from support.installation import BATCHDESK, until
from support.sandbox import Sandbox

from webapp.cli.waiting import _phase, finish, nobody_works, present, wait_for
from webapp.local import Services


def test_whoever_waits_is_told_that_nobody_works(desk: DeskDriver) -> None:
    words = nobody_works()
    assert words is not None and "No worker and no clock" in words and "python worker.py work" in words
    desk.execute("INSERT INTO processes (name, role) VALUES ('worker 1', 'worker')")
    words = nobody_works()
    assert words is not None and words.startswith("No clock has been seen") and "work`" not in words
    desk.execute("INSERT INTO processes (name, role) VALUES ('clock 1', 'clock')")
    assert nobody_works() is None


class Database:
    """The test's own database, which can be made to answer nobody."""

    def __init__(self, server: str, url: str) -> None:
        self.server = server
        self.name = url.rpartition("?")[0].rpartition("/")[2]

    def go(self) -> None:
        self._accept(False)
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [self.name]
            )

    def come_back(self) -> None:
        self._accept(True)

    def _accept(self, whether: bool) -> None:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(self.name), sql.Literal(whether)))


@pytest.fixture
def database(services: Services, database_url: str) -> Database:
    return Database(services.database_url, database_url)


@contextmanager
def meanwhile(work: threading.Thread) -> Iterator[None]:
    work.start()
    yield
    work.join()


def test_a_database_that_stays_away_ends_the_waiting_and_not_the_run(
    line: CommandLine, desk: DeskDriver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.cli.waiting.DATABASE_PATIENCE", 0.5)

    def leave() -> None:
        with desk.app.app_context():
            until(lambda: desk.scalar("SELECT count(*) FROM runs"), "the run has started")
        database.go()

    with meanwhile(threading.Thread(target=leave)):
        done = line.classify(line.write("docs.jsonl", *documents(3)), "--json")
    assert done.status == 4, done.err
    assert "Stopped waiting: the database does not answer." in done.err
    assert "Run 1 stays as it is" in done.err and "batchdesk resubmit 1" in done.err
    database.come_back()
    assert desk.status(1).subjects == 3


def test_a_database_that_restarts_while_the_outputs_are_read_is_waited_for(
    desk: DeskDriver, database: Database, tmp_path: Path
) -> None:
    ending = present(desk.run(documents(3)))
    out = tmp_path / "out.jsonl"
    database.go()
    back = threading.Timer(0.7, database.come_back)
    with meanwhile(back):
        assert finish(ending, out=out, as_json=False) == 0
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("deaf", ["stdout", "stderr"])
def test_a_reader_who_has_gone_does_not_turn_failures_into_success(
    line: CommandLine, sandbox: Sandbox, deaf: str
) -> None:
    sandbox.configure(invalid_share=1)
    arguments = [
        "run",
        "classify",
        str(line.write("docs.jsonl", *documents(3))),
        "--set",
        "labels=alpha,beta",
        "--json",
    ]
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {deaf: writer}
    command = subprocess.Popen(
        [str(BATCHDESK), *arguments],
        env=os.environ | line.environ,
        cwd=line.folder,
        stdin=subprocess.DEVNULL,
        **streams,
    )
    os.close(writer)
    assert command.wait(60) == 3


def test_what_goes_again_is_told_apart_from_what_has_failed(
    line: CommandLine, desk: DeskDriver, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """I25, for those who wait and for those who ask."""
    desk.change(retry_delay=3600)
    sandbox.configure(overloaded_share=0.3, invalid_share=0.3)
    run_id = desk.start(documents(40))
    desk.perform_until("done")
    for _ in range(3):
        desk.perform_due()
    counts = desk.status(run_id).counts
    assert counts.retrying and counts.failed
    assert _phase(desk.status(run_id)).startswith(f"{counts.failed} failed, {counts.retrying} go again in 3")

    words = f"{counts.ok} of 40 succeeded, {counts.failed} errored, {counts.retrying} waiting for their next attempt."
    assert f"classify, running. Run 1: {words}" in line("status", "1").out
    assert line("status", "1", "--json").summary["errored"] == counts.failed + counts.retrying, "by the latest attempt"
    assert finish(present(run_id), out=None, as_json=False) == 4
    assert f"Run 1: {words}" in capsys.readouterr().err


def test_whoever_waits_for_a_pilot_is_shown_what_came_of_it_and_how_to_go_on(
    line: CommandLine, desk: DeskDriver, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = desk.start(documents(9))
    desk.execute("UPDATE runs SET pilot = 2 WHERE id = :id", id=run_id)
    desk.work_until_over(run_id, hurry=True)

    assert finish(wait_for(run_id), out=None, as_json=False) == 4
    told = capsys.readouterr().err
    assert "the run is paused: The pilot of 2 subjects is over: 2 with an output." in told
    assert "  doc-0: {" in told and "  doc-1: {" in told and "doc-2" not in told
    assert f"`batchdesk resume {run_id}`" in told
    assert line("resume", str(run_id)).status == 0
    assert desk.work_until_over(run_id, hurry=True).over
    assert finish(present(run_id), out=None, as_json=False) == 0
    assert "doc-0" not in capsys.readouterr().err
