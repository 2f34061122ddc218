"""`python -m bench.moving`: rows from one database to another through the sandbox, twice, with real workers.

A SQL source, the task classify and a SQL sink. Prints one JSON object per figure: how fast, how much the largest
process of a worker grew over an idle one, and how many rows the table holds after each of the two runs. Ends with an
error where the second run has not left the very same rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg

from bench.house import House, opened
from bench.memory import LIMIT_MB
from bench.report import Figure
from webapp import ROOT, db, wishes
from webapp.batches.naming import new_token
from webapp.runs.staleness import Over

ACTOR = "bench"
LOOK_SECONDS = 0.2
_MB = 1_000_000
ROWS = """
    CREATE TABLE letters AS SELECT 'letter-' || n AS key, 'Letter ' || n || ' about ' ||
    CASE n % 2 WHEN 0 THEN 'alpha' ELSE 'beta' END || repeat(' word', 60) AS text FROM generate_series(1, :rows) n
"""
HELD = (
    "SELECT count(*), coalesce(sum(hashtextextended(key || status || coalesce(output::text, ''), 0)), 0) FROM outputs"
)


def main(arguments: list[str] | None = None) -> None:
    """Move the rows, then move them again."""
    parser = argparse.ArgumentParser(prog="python -m bench.moving", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows that are moved")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    given = parser.parse_args(arguments)
    with (
        TemporaryDirectory(prefix="batchdesk-bench-") as name,
        _sandbox(Path(name)) as url,
        opened(ANTHROPIC_BASE_URL=url, BATCHDESK_POLL_SCHEDULE="*:1") as house,
    ):
        for figure in _moved(house, given.rows, given.workers):
            print(figure.line(), flush=True)


def _moved(house: House, rows: int, workers: int) -> Iterator[Figure]:
    shop, ledger = (_database(house, one) for one in ("shop", "ledger"))
    with psycopg.connect(shop) as connection:
        connection.execute(ROWS.replace(":rows", str(rows)))
    house.environ.update(SHOP_URL=shop, LEDGER_URL=ledger)
    wishes.ask_make_destination("ledger", "sql_table", {"url": "env:LEDGER_URL", "table": "outputs"}, actor=ACTOR)
    with _working(house, workers) as memory:
        settings = {"database": "env:SHOP_URL", "query": "SELECT key, text FROM letters"}
        began = time.monotonic()
        upload = wishes.ask_source("sql_query", settings, dataset_name="Letters", actor=ACTOR, token=new_token())
        _until(lambda: _state("uploads", upload) != "importing")
        assert _state("uploads", upload) == "imported", "the source could not be imported"
        yield Figure("import from the source", rows / (time.monotonic() - began), "rows/s")
        held = []
        for nth in ("first", "second"):
            began = time.monotonic()
            run_id = wishes.ask_start(
                1, "classify", {"labels": "alpha,beta"}, over=Over.ALL, actor=ACTOR, token=new_token(), to=["ledger"]
            )
            _until(lambda run_id=run_id: _state("runs", run_id) == "finished" and not _steps())  # type: ignore[misc]
            with psycopg.connect(ledger) as connection:
                held.append(connection.execute(HELD).fetchone())
            yield Figure(f"{nth} run, to the last row delivered", rows / (time.monotonic() - began), "rows/s")
            yield Figure(f"rows held after the {nth} run", (held[-1] or (0,))[0], "rows", rows)
        yield Figure("peak memory of a worker's process", memory() / _MB, "MB over idle", LIMIT_MB)
    if held[0] != held[1]:
        raise SystemExit(f"the table does not hold the same rows after the second run: {held}")


def _database(house: House, name: str) -> str:
    url = house.environ["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/batchdesk?", f"/{name}?", 1)


def _state(table: str, row_id: int) -> str:
    with db.transaction() as tx:
        return str(db.scalar(tx, f"SELECT state FROM {table} WHERE id = :id", id=row_id))


def _up() -> int:
    with db.transaction() as tx:
        return int(db.scalar(tx, "SELECT count(*) FROM processes WHERE role = 'worker'"))


def _steps() -> int:
    with db.transaction() as tx:
        return int(db.scalar(tx, "SELECT count(*) FROM steps WHERE step <> 'look'"))


def _until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(LOOK_SECONDS)


@contextmanager
def _working(house: House, workers: int) -> Iterator[Callable[[], int]]:
    """Workers and a clock; what it yields tells by how many bytes the largest of their processes has grown."""
    environ = {**os.environ, **house.environ}
    roles = [*["work"] * workers, "clock"]
    log = (house.folder / "work.log").open("wb")
    started = [
        subprocess.Popen((sys.executable, "worker.py", role), cwd=ROOT, env=environ, stderr=log) for role in roles
    ]
    watched = [psutil.Process(one.pid) for one in started[:workers]]
    _until(lambda: _up() >= workers)
    idle = max(one.memory_info().rss for one in watched)
    peak, over = [idle], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], *(_rss(one) for worker in watched for one in (worker, *_children(worker))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: peak[0] - idle
    finally:
        over.set()
        watcher.join()
        for one in started:
            one.terminate()
        for one in started:
            one.wait()
        log.close()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


@contextmanager
def _sandbox(folder: Path) -> Iterator[str]:
    """The local Message Batches API in a process of its own; its address."""
    address = folder / "address"
    command = (sys.executable, "-m", "webapp.sandbox", "--folder", str(folder), "--address-file", str(address))
    with subprocess.Popen((*command, "--set", "delay=0"), cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            _until(address.exists)
            yield address.read_text().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
