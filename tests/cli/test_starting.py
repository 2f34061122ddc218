"""Starting a run is repeated when services go away meanwhile: the whole input is imported, and only once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.installation import Installation, until
from support.sandbox import SandboxProcess

from webapp import local
from webapp.cli.starting import Wanted, start

RECORDS = 20
WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'runs'::regclass AND NOT granted"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in documents(RECORDS)) + "{no record\n")
    return path


def wanted(desk: DeskDriver, source: Path) -> Wanted:
    task = desk.desk.registry.task("classify")
    settings = desk.desk.registry.parse_settings(task, {"labels": "alpha,beta"})
    return Wanted(task, settings, source, "key", "text", source.with_suffix(".rejected"))


def test_a_run_whose_start_was_not_answered_is_found_and_not_started_again(desk: DeskDriver, source: Path) -> None:
    one = wanted(desk, source)
    first = start(one)
    assert one.rejected is not None
    one.rejected.unlink()  # as when the command did not get as far

    assert start(one) == first
    assert desk.rows("SELECT subjects FROM runs") == [(RECORDS,)]
    assert desk.scalar("SELECT count(*) FROM subjects") == RECORDS
    assert len(one.rejected.read_text().splitlines()) == 1


def test_what_is_wanted_twice_is_two_runs(desk: DeskDriver, source: Path) -> None:
    assert start(wanted(desk, source)) != start(wanted(desk, source))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[SandboxProcess]:
    with SandboxProcess(tmp_path / "api", delay=0, cancel_delay=0) as process:
        yield process


@pytest.mark.journey
def test_an_owner_who_leaves_during_the_import_costs_no_record(api: SandboxProcess) -> None:
    with Installation.made(api) as installation, installation.up_until_killed() as up:
        services = local.running(installation.home)
        assert services is not None
        with closing(psycopg.connect(services.database_url)) as connection:
            # The input has been read to its end, and the run cannot be stored yet.
            connection.execute("LOCK TABLE runs IN SHARE MODE")
            run = installation.start(*installation.classifying(installation.write("docs.jsonl", documents(RECORDS))))
            until(lambda: connection.execute(WAITING).fetchone() == (1,), "the run is to be stored")
            up.kill()
        done = run.ended()
        assert done.status == 0, done.err
        assert done.summary["succeeded"] == RECORDS
        assert [line["key"] for line in installation.outputs()] == [one["key"] for one in documents(RECORDS)]
        with installation.desk() as desk:
            audit(desk, api)
