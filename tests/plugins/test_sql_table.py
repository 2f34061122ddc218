"""The sink `sql_table` on real databases: each output a row, once, however often and in whatever order it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from webapp.errors import BadSettings
from webapp.hooks import OutputRecord, RunFacts, calls, load_plugins

ROOT = Path(__file__).parents[2]
REGISTRY = load_plugins(folder=ROOT / "plugins", entry_points=False)
SINK = REGISTRY.sink("sql_table")
RUN = RunFacts(7, "classify", "1", "docs", "ann", "finished", "m", 3, 3, 1)
NEWER = replace(RUN, id=8)


def record(key: str, output: Any = None, run: int = 7, **more: Any) -> OutputRecord:
    made = {"custom_id": f"{key}-{run}-1", "key": key, "status": "succeeded", "output": output or {"label": "a"}}
    return OutputRecord(**(made | {"error": None, "data": {}} | more))


class Database:
    """A database of somebody else."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        monkeypatch.setenv("TABLE_URL", url)

    def deliver(self, run: RunFacts, outputs: list[OutputRecord], **settings: Any) -> str | None:
        """What went wrong, if anything did."""
        parsed = REGISTRY.parse_settings(SINK, {"url": "env:TABLE_URL", "table": "answers", **settings})
        trouble = calls.deliver(SINK, run, outputs, parsed, "key")
        return None if trouble is None else trouble.words

    def do(self, statement: str) -> None:
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(statement))

    def rows(self, columns: str = "key, run, output", table: str = "answers") -> list[tuple[Any, ...]]:
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1, 2"))]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    if request.param == "sqlite":
        yield Database(f"sqlite:///{tmp_path / 'other.db'}", monkeypatch)
    else:
        yield Database(request.getfixturevalue("database_url"), monkeypatch)


def test_each_output_is_a_row_and_to_deliver_again_changes_nothing(database: Database) -> None:
    outputs = [record("a"), record("b", status="invalid", output=None, error="no use"), record("c", ["x", 1])]
    outputs[1] = replace(outputs[1], output=None)
    assert database.deliver(RUN, outputs) is None
    rows = database.rows("*")
    assert [row[:3] for row in database.rows("key, status, output")] == [
        ("a", "succeeded", '{"label": "a"}'), ("b", "invalid", None), ("c", "succeeded", '["x", 1]')]  # fmt: skip
    assert database.rows("custom_id, run, task, error")[1] == ("b-7-1", 7, "classify", "no use")
    assert database.deliver(RUN, list(reversed(outputs))) is None
    assert database.deliver(RUN, outputs[1:]) is None
    assert database.rows("*") == rows


def test_a_newer_run_replaces_rows_and_an_older_one_never_does(database: Database) -> None:
    database.deliver(RUN, [record("a"), record("b")])
    database.deliver(NEWER, [record("a", {"label": "new"}, 8)])
    database.deliver(RUN, [record("a"), record("b", {"label": "mended"})])
    assert database.rows() == [("a", 8, '{"label": "new"}'), ("b", 7, '{"label": "mended"}')]
    database.deliver(replace(NEWER, task="summarise"), [record("a", "short", 8)])
    assert len(database.rows()) == 3, "the outputs of another task are rows of their own"


def test_by_custom_id_each_answer_of_each_run_has_its_row(database: Database) -> None:
    for run in (RUN, NEWER, RUN):
        assert database.deliver(run, [record("a", run=run.id)], identity="custom_id") is None
    assert database.rows() == [("a", 7, '{"label": "a"}'), ("a", 8, '{"label": "a"}')]


def test_fields_have_columns_of_their_own(database: Database) -> None:
    outputs = [
        record("a", {"label": "x", "score": 0.5, "more": [1]}),
        record("b", "flat"),
        record("c", {"label": None}),
    ]
    assert database.deliver(RUN, outputs, fields="label,score,more") is None
    assert database.rows("key, label, score, more") == [
        ("a", "x", "0.5", "[1]"), ("b", None, None, None), ("c", None, None, None)]  # fmt: skip


def test_what_no_text_column_holds_is_escaped(database: Database) -> None:
    outputs = [record("a\0b\ud800", {"label": "x\0y"}), record("ü '; DROP TABLE answers; --")]
    assert database.deliver(RUN, outputs, fields="label") is None
    assert database.deliver(RUN, outputs, fields="label") is None
    assert database.rows("key, label") == [("a\\u0000b\\ud800", "x\\u0000y"), ("ü '; DROP TABLE answers; --", "a")]


def test_many_rows_go_in_few_statements(database: Database) -> None:
    outputs = [record(f"k{n}") for n in range(1_200)]
    assert database.deliver(RUN, outputs) is None
    assert database.deliver(NEWER, [record(f"k{n}", run=8) for n in range(1_200)]) is None
    assert database.rows("count(*), min(run), max(run)") == [(1_200, 8, 8)]


def test_a_table_that_lacks_columns_is_named(database: Database) -> None:
    database.do("CREATE TABLE answers (key text, run int)")
    assert "lacks the columns custom_id, task, status, output" in (database.deliver(RUN, [record("a")]) or "")


def test_a_database_that_refuses_is_told_without_the_statement_and_its_password(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.do("CREATE TABLE answers (key text, custom_id text, task text, run int, status text, output text, "
                "error text, delivered_at timestamp, other text not null)")  # fmt: skip
    words = database.deliver(RUN, [record("a", "a very private text")])
    assert words is not None and "other" in words and "IntegrityError" in words and "private" not in words
    monkeypatch.setenv("TABLE_URL", "postgresql://me:hunter22@127.0.0.1:9/x")
    words = database.deliver(RUN, [record("a")])
    assert words is not None and "OperationalError" in words and "hunter22" not in words


def test_a_secret_that_is_not_there_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TABLE_URL")
    assert "set the environment variable TABLE_URL" in (database.deliver(RUN, [record("a")]) or "")


def test_two_at_once_lose_nothing(database: Database, in_two_threads: Callable[..., list[Any]]) -> None:
    """Whoever was second is told to come again, and then finds what the first has written."""
    outputs = {run.id: [record(f"k{n}", {"run": run.id}, run.id) for n in range(50)] for run in (RUN, NEWER)}
    for _ in range(3):
        in_two_threads(*(lambda run=run: database.deliver(run, outputs[run.id]) for run in (RUN, NEWER)))
    for run in (NEWER, RUN):
        assert database.deliver(run, outputs[run.id]) is None
    assert database.rows() == sorted((f"k{n}", 8, '{"run": 8}') for n in range(50))


@pytest.fixture
def in_two_threads() -> Callable[..., list[Any]]:
    from concurrent.futures import ThreadPoolExecutor

    def run(*works: Callable[[], Any]) -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda work: work(), works))

    return run


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "postgresql://me:hunter22@db/x"},
        {"table": "a.b.c"},
        {"table": "a; drop"},
        {"table": ""},
        {"fields": "key"},
        {"fields": "a,a"},
        {"fields": "a b"},
        {"identity": "run"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(BadSettings) as refused:
        REGISTRY.parse_settings(SINK, {"url": "env:X", **settings})
    assert "hunter22" not in str(refused.value)
