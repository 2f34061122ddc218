"""Real PostgreSQL and Valkey for tests: fast, forgetful, in a folder of the caller's.

Any test may use it, best from a session-scoped fixture that calls ``stop()`` on the supervisor.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from webapp.local import Services, Supervisor

# What PostgreSQL says when a file cannot grow, said by itself, at a row in the middle of a chunk.
FULL = """
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file "base/1/2": No space left on device'
            USING ERRCODE = 'disk_full', HINT = 'Check free disk space.';
    END $$
"""


MEMORY = Path("/dev/shm")
ROOM = 8 << 30  # bytes; the databases of all tests of one process take a fraction of it
_PREFIX = "batchdesk-tests-"


@contextmanager
def quick_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where that has ample room, else another one.

    A database for each test is a thousand files made and removed: on a disk most of a test's time goes into these.
    """
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        yield otherwise
        return
    for left in MEMORY.glob(f"{_PREFIX}*"):  # by tests that were killed
        if not Path("/proc", left.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=MEMORY, prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def start_services(folder: Path) -> tuple[Supervisor, Services]:
    """Start both servers for the folder ``folder / "home"``, without fsync and append-only file."""
    supervisor = Supervisor(folder / "home", durable=False)
    return supervisor, supervisor.start_services()


def create_database(services: Services, name: str, template: str = "template1") -> str:
    """Make a database as a copy of ``template`` (to which nobody may be connected) and return its URL."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return services.database_url.replace("/batchdesk?", f"/{name}?", 1)


def drop_database(services: Services, name: str) -> None:
    """Drop a database; sessions still on it are ended.

    But for an autovacuum worker, which is the server's own and may not be ended: it is soon gone, and waited for.
    """
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        for _ in range(50):
            try:
                connection.execute(statement)
            except InsufficientPrivilege:
                time.sleep(0.1)
            else:
                return
