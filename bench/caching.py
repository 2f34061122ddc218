"""`python -m bench.caching`: what the input of a large run with a long shared part is billed, beside the same asked one
by one without a cache; with one request that goes ahead and writes the cache, and without. As JSON lines.

The sandbox answers and keeps the cache's books: of each batch, the requests that begin before the first has written
the shared part miss, and so do some of the others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from bench.house import House, opened
from bench.report import Figure
from webapp import db, jobs
from webapp.batches.states import RunState
from webapp.batches.steps import StepName
from webapp.datasets.importing import import_records
from webapp.hooks import load_plugins
from webapp.kit.sandboxes import API_KEY, SandboxThread
from webapp.money import caching
from webapp.money.prices import SHIPPED, Usage
from webapp.money.priming import Prime
from webapp.records.jsontext import dumps
from webapp.records.record import Record
from webapp.runs import verbs
from webapp.runs.verbs import Manner

LIMIT = Decimal("0.055")  # of the bill one by one and uncached, primed, with a model that reads at 0.05 of its input
READS = {
    "claude-sonnet-5-5": "0.05",
    "claude-sonnet-5": "0.1",
}  # each model's price of a read, as a part of the input's
HIT_RATE = 0.98  # of the requests that are not too early
BATCH_SECONDS = 600  # of the API's time, that a batch takes: all that is sent together is under way together
COLD_PART = 100  # one in so many requests of a batch is too early
SHARED_LETTERS, OWN_LETTERS = 24_615, 307  # 8,000 and 100 tokens

#: A task whose shared part is 8,000 tokens, another for each name.
TASK = f"""
from webapp.hooks import ModelSettings, Task, hookimpl

class Settings(ModelSettings):
    name: str = ""

class Long(Task[Settings]):
    name = "long"
    Settings = Settings

    def shared_params(self, settings):
        block = {{"type": "text", "text": settings.name.ljust({SHARED_LETTERS}, "r")}}
        marker = {{"type": "ephemeral", "ttl": "1h"}}
        return settings.base_params() | {{"system": [block | {{"cache_control": marker}}]}}

    def request_params(self, subject, settings):
        return {{"messages": [{{"role": "user", "content": subject.text}}]}}

    def process(self, subject, message, settings):
        return None

@hookimpl
def register_tasks():
    return [Long()]
"""


@dataclass(frozen=True, slots=True)
class Bill:
    """What the input of a run was billed, in USD.

    :param uncached_usd: the same one by one, and without a cache.
    :param rate: the part of what was cached that was read.
    """

    batch_usd: Decimal
    uncached_usd: Decimal
    rate: Decimal

    @property
    def ratio(self) -> Decimal:
        return self.batch_usd / self.uncached_usd


def bill_of_input(run_id: int, model: str) -> Bill:
    """By the tokens of the ledger and the prices of the day; the model must have no tiers."""
    with db.transaction() as tx:
        tokens = db.row(
            tx,
            "SELECT CAST(sum(input_tokens) AS bigint), CAST(sum(write_5m_tokens) AS bigint), "
            "CAST(sum(write_1h_tokens) AS bigint), CAST(sum(read_tokens) AS bigint) FROM ledger_tallies "
            "WHERE run_id = :run",
            run=run_id,
        )
        hits = caching.of_run(tx, run_id)
    cost = SHIPPED.cost(model, Usage(*tokens, output=0, web_searches=0, geo=None), datetime.now(UTC))
    assert cost is not None and hits is not None and hits.rate is not None
    return Bill(cost.batch, cost.uncached, hits.rate)


def records(count: int) -> Iterator[Record]:
    """Documents of 100 tokens."""
    for position in range(count):
        key = f"doc-{position}"
        yield Record(position, key, "document", dumps({"key": key, "text": key.ljust(OWN_LETTERS, "w")}), None)


def main(arguments: list[str] | None = None) -> None:
    """Run each model with and without the request that goes ahead."""
    parser = argparse.ArgumentParser(prog="python -m bench.caching", description=__doc__)
    parser.add_argument("--documents", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=10_000, help="most requests of a batch")
    given = parser.parse_args(arguments)
    config = {"cache_hit_rate": HIT_RATE, "cache_cold_requests": max(1, given.batch // COLD_PART)}
    with (
        tempfile.TemporaryDirectory(prefix="batchdesk-bench-") as folder,
        SandboxThread(Path(folder), delay=BATCH_SECONDS, **config) as sandbox,
        opened(
            ANTHROPIC_API_KEY=API_KEY,
            ANTHROPIC_BASE_URL=sandbox.url,
            BATCHDESK_BATCH_MAX_REQUESTS=str(given.batch),
            BATCHDESK_POLL_SCHEDULE="*:0.2",
        ) as house,
    ):
        _use_task(house)
        for model, read in READS.items():
            bills = {}
            for prime in (Prime.AUTO, Prime.OFF):
                run_id = _run(house, sandbox, given.documents, model, prime)
                bills[prime] = bill_of_input(run_id, model)
            for figure in _figures(read, bills[Prime.AUTO], bills[Prime.OFF]):
                print(figure.line(), flush=True)


def _figures(read: str, primed: Bill, plain: Bill) -> Iterator[Figure]:
    reads = f"reads at {read}"
    limit = float(LIMIT * 100) if read == "0.05" else None
    yield Figure(f"{reads}: input one by one, uncached", float(primed.uncached_usd), "USD")
    for name, bill, most in (("primed", primed, limit), ("not primed", plain, None)):
        yield Figure(f"{reads}, {name}: input", float(bill.batch_usd), "USD")
        yield Figure(f"{reads}, {name}: input, of one by one and uncached", float(bill.ratio * 100), "%", most)
        yield Figure(f"{reads}, {name}: read from the cache", float(bill.rate * 100), "%")


def _use_task(house: House) -> None:
    folder = house.folder / "plugins"
    folder.mkdir()
    (folder / "long.py").write_text(TASK)
    house.app.extensions["batchdesk"].registry = load_plugins(folder=folder, entry_points=False)


def _run(house: House, sandbox: SandboxThread, documents: int, model: str, prime: Prime) -> int:
    """Start a run and see it to its end, as a worker does. Between two looks at batches, the API's time moves on."""
    registry = house.app.extensions["batchdesk"].registry
    task = registry.task("long")
    settings = registry.parse_settings(task, {"model": model, "name": f"{model} {prime}"})
    with db.transaction() as tx:
        dataset, _ = import_records(
            tx, records(documents), name="bench", source=Path("bench.jsonl"), text_field="text", owner="bench"
        )
        run_id = verbs.start_run(
            tx, dataset_id=dataset, task=task, settings=settings, owner="bench", manner=Manner(prime=prime)
        )
    while True:
        with db.transaction() as tx:
            run = db.row(tx, "SELECT state, priming, planned_at FROM runs WHERE id = :id", id=run_id)
            ready = db.rows(
                tx, "SELECT step, target_id FROM steps WHERE due_at <= now() AND lease_until IS NULL ORDER BY due_at"
            )
        if run.state == RunState.FINISHED:
            return run_id
        assert run.state in (RunState.PLANNING, RunState.RUNNING), run.state
        if run.planned_at is not None and (run.priming is None) == (prime == Prime.AUTO):
            raise SystemExit(f"Primed: {run.priming}. That was not to be so with --prime {prime}: too few documents?")
        for step, target_id in ready:
            jobs.perform(step, target_id)
        if any(step == StepName.POLL for step, _ in ready):
            sandbox.advance(BATCH_SECONDS / 2)
        if not ready:
            time.sleep(0.05)


if __name__ == "__main__":
    main()
