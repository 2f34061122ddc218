"""Real PostgreSQL and Valkey for tests: fast, forgetful, in a folder of the caller's.

Any test may use it, best from a session-scoped fixture that calls ``stop()`` on the supervisor.
"""

from __future__ import annotations

import time
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
