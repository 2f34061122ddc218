"""Exports of 200,000 lines: begun at once, in flat memory, broken where the database breaks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from support.browser import served
from support.desk import DeskDriver
from support.people import make_person
from support.services import create_database, drop_database
from support.visitor import Visitor

from webapp import db
from webapp.local import Services

MANY = 200_000
FILLED = (
    "INSERT INTO datasets (name, source, text_field, created_by) VALUES ('d', 'd', 'text', 't')",
    "INSERT INTO subjects (dataset_id, position, kind, key, content_hash, size, data) "
    "SELECT 1, n, 'document', 'doc-' || n, '', 2, '{}' FROM generate_series(0, :most) n",
    "INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner, state) "
    "VALUES (1, 'classify', '1', '{}', 't', :many, 't', 'finished')",
    "INSERT INTO batches (run_id, ordinal, total, body_bytes, state) "
    "SELECT 1, n, 10000, 1, 'done' FROM generate_series(1, 20) n",
    "INSERT INTO items (run_id, subject_id, position, size, attempts, subject_type, state, output_state) "
    "SELECT 1, 1 + n, n, 2, 1, 'document', 'succeeded', 'ok' FROM generate_series(0, :most) n",
    "INSERT INTO requests (batch_id, item_id, attempt, custom_id, state) "
    "SELECT 1 + n / 10000, 1 + n, 1, (1 + n) || '-t-1', 'succeeded' FROM generate_series(0, :most) n",
    "INSERT INTO outputs (request_id, state, value, task_version) "
    "SELECT 1 + n, 'ok', json_build_object('label', repeat('x', 100)), '1' FROM generate_series(0, :most) n",
)
OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND xact_start IS NOT NULL AND backend_type = 'client backend'"
)


@pytest.fixture(scope="module")
def filled(services: Services, template: str) -> Iterator[str]:
    """A database with a run of 200,000 subjects and their outputs, in twenty batches; each test has a copy."""
    name = f"filled_{uuid4().hex[:12]}"
    with psycopg.connect(create_database(services, name, template), autocommit=True) as connection:
        for statement in FILLED:
            connection.execute(statement.replace(":many", str(MANY)).replace(":most", str(MANY - 1)).encode())
        connection.execute("VACUUM ANALYZE")
    yield name
    drop_database(services, name)


@pytest.fixture
def database_url(services: Services, filled: str) -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    yield create_database(services, name, filled)
    drop_database(services, name)


class Client:
    """Signed in at a web server, reading answers as they come."""

    def __init__(self, address: str, app: Flask) -> None:
        self._left: list[HTTPConnection | HTTPResponse] = []
        visitor = Visitor(app).sign_in(make_person("viewer"))
        cookie = visitor.client.get_cookie("session")
        assert cookie is not None
        self.cookie = f"session={cookie.value}"
        self.address = urlsplit(address)

    def open(self, path: str) -> HTTPResponse:
        connection = HTTPConnection(self.address.hostname or "", self.address.port, timeout=60)
        connection.request("GET", path, headers={"Cookie": self.cookie})
        response = connection.getresponse()
        self._left += [connection, response]
        return response

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._left:
            one.close()


def _server() -> int:
    """The process of the web server that this test has started."""
    mine = [int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()]
    return next(pid for pid in mine if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes())


def _outside(services: Services, statement: str) -> None:
    """A statement of the server's owner, from another database."""
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def held(pid: int) -> int:
    """Bytes of memory that a process and its children hold."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * 4096 for one in (pid, *map(int, children)))


@pytest.mark.parametrize("path", ["/requests/export.jsonl?run=1", "/requests/export.csv", "/runs/1/export.jsonl"])
def test_a_large_export_begins_at_once_and_takes_no_memory(app: Flask, tmp_path: Path, path: str) -> None:
    with served(app.extensions["batchdesk"].settings, tmp_path / "web.log") as address, Client(address, app) as client:
        client.open("/requests/export.jsonl?batch=1").read()  # everything is loaded
        pid = _server()
        before, start = held(pid), time.monotonic()
        response = client.open(path)
        lines = int(bool(response.readline()))
        first, most = time.monotonic() - start, 0
        while part := response.read(1 << 20):
            lines += part.count(b"\n")
            most = max(most, held(pid))
    print(f"{path}: first byte after {first:.2f} s, all after {time.monotonic() - start:.1f} s, "
          f"{(most - before) / 1e6:+.1f} MB")  # fmt: skip
    assert lines == MANY + path.count("csv")
    assert first < 2
    assert most - before < 8_000_000


def test_a_download_breaks_where_the_database_goes_away(app: Flask, services: Services, tmp_path: Path) -> None:
    with served(app.extensions["batchdesk"].settings, tmp_path / "web.log") as address, Client(address, app) as client:
        response = client.open("/requests/export.jsonl")
        assert response.status == 200 and response.readline()
        name = db.db.engine.url.database
        _outside(services, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        _outside(services, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        try:
            with pytest.raises(IncompleteRead):
                response.read()
        finally:
            _outside(services, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_no_transaction_is_open_while_a_download_waits(app: Flask, desk: DeskDriver, tmp_path: Path) -> None:
    with served(app.extensions["batchdesk"].settings, tmp_path / "web.log") as address, Client(address, app) as client:
        response = client.open("/runs/1/export.jsonl")
        response.readline()
        calm, end = 0, time.monotonic() + 30
        while calm < 10 and time.monotonic() < end:  # until the web server waits for somebody to read on
            time.sleep(0.1)
            calm = 0 if desk.scalar(OPEN) else calm + 1
        assert calm == 10, desk.rows("SELECT state, query FROM pg_stat_activity")
        left = sum(part.count(b"\n") for part in iter(lambda: response.read(1 << 20), b""))
    assert left == MANY - 1
