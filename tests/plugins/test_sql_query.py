"""The shipped source of SQL queries, against PostgreSQL and SQLite: values, columns, read only, faults in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.services import create_database, drop_database

from webapp import PLUGINS
from webapp.errors import InputError
from webapp.hooks import calls, load_plugins
from webapp.local import Services
from webapp.records.jsontext import loads
from webapp.records.reading import Problem, Record

REGISTRY = load_plugins(folder=PLUGINS, entry_points=False)
SOURCE = REGISTRY.source("sql_query")


@pytest.fixture(scope="module")
def shop(services: Services) -> Iterator[str]:
    """A database of somebody else's."""
    url = create_database(services, "shop")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE parcels (id int PRIMARY KEY, body text, price numeric(10,2), seen date)")
        connection.execute(
            "INSERT INTO parcels SELECT n, 'Parcel ' || n, n + 0.5, date '2026-01-01' + n FROM generate_series(1, 5) n"
        )
    yield url
    drop_database(services, "shop")


@pytest.fixture
def database(shop: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SHOP_URL", shop)
    return shop


def read(query: str, **settings: str) -> list[Record | Problem]:
    raw = {"database": "env:SHOP_URL", "query": query} | settings
    return list(calls.records(SOURCE, REGISTRY.parse_settings(SOURCE, raw)))


def fault(query: str, **settings: str) -> str:
    with pytest.raises(InputError) as caught:
        read(query, **settings)
    return str(caught.value)


def data(query: str, **settings: str) -> Any:
    (found,) = read(query, **settings)
    assert isinstance(found, Record), found
    return loads(found.data)


def test_each_row_is_a_record_of_its_columns(database: str) -> None:
    found = read("SELECT id, body, price, seen FROM parcels ORDER BY id;", key_field="id", text_field="body")
    assert [one.key for one in found if isinstance(one, Record)] == ["1", "2", "3", "4", "5"]
    first = found[0]
    assert isinstance(first, Record) and first.kind == "document"
    assert loads(first.data) == {"id": 1, "body": "Parcel 1", "price": "1.50", "seen": "2026-01-02"}


def test_what_json_does_not_have_is_written_as_text(database: str) -> None:
    assert data(
        "SELECT 'a' AS key, 't' AS text, 0.10::numeric AS price, 'NaN'::float8 AS odd, timestamptz '2026-01-02 03:04Z' "
        "AS at, '\\x00ff'::bytea AS raw, ARRAY[1.5, NULL]::numeric[] AS list, '{\"a\": [1]}'::jsonb AS json, "
        "uuid '00000000-0000-0000-0000-000000000001' AS uuid, interval '1 day' AS long, true AS yes, NULL AS none"
    ) == {
        "key": "a", "text": "t", "price": "0.10", "odd": "nan", "at": "2026-01-02T03:04:00+00:00", "raw": "AP8=",
        "list": ["1.5", None], "json": {"a": [1]}, "uuid": "00000000-0000-0000-0000-000000000001",
        "long": "1 day, 0:00:00", "yes": True, "none": None,
    }  # fmt: skip


def test_other_kinds_need_no_text(database: str) -> None:
    (found,) = read("SELECT 'a' AS key, 5 AS size", kind="lead")
    assert isinstance(found, Record) and found.kind == "lead"


def test_the_query_is_sent_as_it_stands(database: str) -> None:
    assert data("SELECT 'a' AS key, '5% of :all' AS text, 5 % 3 AS rest")["rest"] == 2


def test_nothing_can_be_changed_through_it(database: str) -> None:
    assert "refuses the query" in fault("DELETE FROM parcels RETURNING id AS key, body AS text")
    with psycopg.connect(database) as connection:
        connection.execute("CREATE FUNCTION sweep() RETURNS int LANGUAGE sql AS 'DELETE FROM parcels RETURNING id'")
    words = fault("SELECT 'a' AS key, 'b' AS text, sweep()")
    assert "read-only transaction" in words
    assert len(read("SELECT id AS key, body AS text FROM parcels")) == 5


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEC 1", 'The database refuses the query: syntax error at or near "SELEC"'),
        ("SELECT nope FROM parcels", 'refuses the query: column "nope" does not exist'),
        ("SELECT id, body FROM parcels", "gives no column 'key' for the key: it gives id, body. Name one of these"),
        ("SELECT id AS key, body FROM parcels", "gives no column 'text' for the text: it gives key, body."),
        ("SELECT id AS key, body AS key FROM parcels", "several columns called key: tell them apart with AS"),
        ("SELECT 1/(id-3) AS text, id AS key FROM parcels", "refuses the query: division by zero"),
    ],
)
def test_what_is_wrong_with_a_query_is_told(database: str, query: str, words: str) -> None:
    assert words in fault(query)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/shop", "The database does not answer, or refuses:"),
        ("paradox://me:hunter2@host/shop", "No such kind of database: paradox."),
        ("me:hunter2@host", "URL cannot be read"),
        ("mysql+pymysql://me:hunter2@host/shop", "installs the Python package that brings pymysql"),
        ("", "The secret env:SHOP_URL is not there: set the environment variable SHOP_URL where the workers run"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    monkeypatch.setenv("SHOP_URL", url)
    told = fault("SELECT 1 AS key")
    assert words in told and "hunter2" not in told


def test_a_database_that_goes_away_is_told_with_the_record(database: str) -> None:
    raw = {
        "database": "env:SHOP_URL",
        "query": "SELECT n AS key, 'text ' || n AS text FROM generate_series(1, 100000) n",
    }
    found = calls.records(SOURCE, REGISTRY.parse_settings(SOURCE, raw))
    first = next(found)
    assert isinstance(first, Record) and first.key == "1"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(InputError) as caught:
        list(found)
    assert "does not answer, or refuses" in str(caught.value)
    assert ', after record 1 (key "1").' in str(caught.value)


def test_sqlite_is_read_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE parcels (key TEXT, text TEXT, raw BLOB)")
        connection.execute("INSERT INTO parcels VALUES ('a', 'alpha', x'00ff')")
    monkeypatch.setenv("SHOP_URL", f"sqlite:///{path}")

    assert data("SELECT * FROM parcels") == {"key": "a", "text": "alpha", "raw": "AP8="}
    assert "readonly database" in fault("DELETE FROM parcels RETURNING key, text")
    assert "gives no rows: write a SELECT" in fault("BEGIN")
