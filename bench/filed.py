"""`python -m bench.filed`: records file to outputs file, beside what people write without us, in turns in one run.

The plain script uses the SDK alone and keeps nothing. The obvious way keeps one ORM row per request, committed one at a
time. All talk to the same sink; making the results that it streams is nobody's time, nor is waiting between polls.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import anthropic
import orjson
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.data import MODEL, records, result_lines
from bench.house import House, opened
from bench.report import Figure
from bench.road import Road
from webapp import db
from webapp.batches import queries
from webapp.batches.states import BatchState
from webapp.batches.steps import StepName
from webapp.db import normal_url
from webapp.records.exporting import write_outputs
from webapp.records.reading import read_records

RECORD_BYTES, LINE_BYTES = 2_500, 1_000
LEAST = 20.0  # times that we should be faster than the obvious way


class Base(DeclarativeBase):
    """The tables of the obvious way."""


class Row(Base):
    """All that is known of one request."""

    __tablename__ = "obvious_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]
    state: Mapped[str]
    answer: Mapped[str | None]


class Stopwatch:
    """Seconds, but for those that are nobody's."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done here does not count."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def seconds(self) -> float:
        return time.perf_counter() - self._began


Way = Callable[[House, Path, Path], float]


def ours(house: House, source: Path, out: Path) -> float:
    """Import, plan, submit, poll, ingest, process and export, as the workers and the command line do."""
    watch = Stopwatch()
    road = Road(house, _count(source), 0, read_records(source))
    road.perform(StepName.PLAN)
    road.perform(StepName.SUBMIT)
    with watch.stopped():
        road.end(LINE_BYTES)
    road.perform(StepName.INGEST)
    road.expect(BatchState.DONE)
    road.perform(StepName.PROCESS)
    with db.transaction(by_key=True) as tx:
        write_outputs(queries.outputs(tx, road.run_id), out)
    return watch.seconds()


def plain(house: House, source: Path, out: Path) -> float:
    """The SDK's own `create` with a list and its `results()` loop, all in memory."""
    watch = Stopwatch()
    client = _client(house)
    found = [orjson.loads(line) for line in source.read_bytes().splitlines()]
    batch = client.messages.batches.create(requests=[_request(one["key"], one["text"]) for one in found])
    with watch.stopped():
        _answer(house, batch.id, [one["key"] for one in found])
    with out.open("wb") as file:
        for line in client.messages.batches.results(batch.id):
            file.write(orjson.dumps({"key": line.custom_id, "output": _text(line)}) + b"\n")
    return watch.seconds()


def obvious(house: House, source: Path, out: Path) -> float:
    """A row for each record, changed and committed by itself."""
    engine = create_engine(normal_url(house.environ["DATABASE_URL"]))
    Base.metadata.create_all(engine)
    watch = Stopwatch()
    client = _client(house)
    with Session(engine) as session:
        for line in source.read_bytes().splitlines():
            one = orjson.loads(line)
            session.add(Row(key=one["key"], text=one["text"], state="pending"))
            session.commit()
        rows = session.scalars(select(Row)).all()
        batch = client.messages.batches.create(requests=[_request(row.key, row.text) for row in rows])
        with watch.stopped():
            _answer(house, batch.id, [row.key for row in rows])
        for answer in client.messages.batches.results(batch.id):
            row = session.scalars(select(Row).where(Row.key == answer.custom_id)).one()
            row.state, row.answer = "succeeded", _text(answer)
            session.commit()
        with out.open("wb") as file:
            for row in session.scalars(select(Row).order_by(Row.id)):
                file.write(orjson.dumps({"key": row.key, "output": row.answer}) + b"\n")
    taken = watch.seconds()
    Base.metadata.drop_all(engine)
    engine.dispose()
    return taken


def compared(house: House, *, requests: int, obvious_requests: int, rounds: int) -> list[Figure]:
    """Ours in requests per second beside the plain script's, and how many times faster than the obvious way it is.

    The obvious way gets fewer requests: it takes as long for each of them, however many there are.
    """
    taken: defaultdict[Way, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for way, count in ((plain, requests), (ours, requests), (obvious, obvious_requests)):
            source, out = house.folder / "records.jsonl", house.folder / "outputs.jsonl"
            some = count if number else max(1, count // 10)  # the first round loads code and does not count
            source.write_bytes(b"".join(bytes(one.data) + b"\n" for one in records(some, RECORD_BYTES)))
            seconds = way(house, source, out)
            assert _count(out) == some, f"{way.__name__} wrote {_count(out)} of {some} outputs"
            house.empty()
            if number:
                taken[way].append(seconds / count)
    ours_, plain_, obvious_ = (1 / median(taken[way]) for way in (ours, plain, obvious))
    return [
        Figure("file to file, beside a plain script", ours_, "req/s", plain_),
        Figure("file to file, times the obvious way", ours_ / obvious_, "times", LEAST),
    ]


def _client(house: House) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="sink", base_url=house.environ["ANTHROPIC_BASE_URL"])


def _request(key: str, text: str) -> Any:
    system = "You sort documents. Answer with JSON: the label, alpha or beta. " * 20  # as long as the task's own
    message = {"role": "user", "content": text}
    return {
        "custom_id": key,
        "params": {"model": MODEL, "max_tokens": 200, "system": system, "messages": [message]},
    }


def _text(line: Any) -> str:
    return "".join(block.text for block in line.result.message.content if block.type == "text")


def _answer(house: House, api_id: str, custom_ids: list[str]) -> None:
    house.results_file(api_id).write_bytes(b"".join(result_lines(custom_ids, LINE_BYTES)))


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def main(arguments: list[str] | None = None) -> None:
    """Compare, and print one JSON object per figure."""
    parser = argparse.ArgumentParser(prog="python -m bench.filed", description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000, help="requests per round, in one batch (API: 256 MB)")
    parser.add_argument("--obvious-requests", type=int, default=3_000, help="requests per round of the obvious way")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the median counts")
    given = parser.parse_args(arguments)
    with opened(BATCHDESK_BATCH_MAX_REQUESTS=str(given.requests)) as house:
        figures = compared(house, requests=given.requests, obvious_requests=given.obvious_requests, rounds=given.rounds)
        for figure in figures:
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
