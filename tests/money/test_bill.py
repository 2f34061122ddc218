"""The ledger is the bill of the API to the last digit, whatever becomes of batches: the sandbox reckons it by prices of
its own, which the desk does not read.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support import audit as books
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches.states import FailureClass
from webapp.money import ledger

# A shared part that is cached, for an hour or for five minutes, by any model; answers from the US if that is wanted.
CACHED = """
from webapp.hooks import ModelSettings, Task, hookimpl

class Settings(ModelSettings):
    ttl: str = "1h"
    geo: str = ""
    words: int = 6000

class Cached(Task[Settings]):
    name = "cached"
    Settings = Settings

    def shared_params(self, settings):
        marker = {"type": "ephemeral", "ttl": settings.ttl}
        system = [{"type": "text", "text": "rule " * settings.words, "cache_control": marker}]
        own = {"inference_geo": settings.geo} if settings.geo else {}
        return settings.base_params() | own | {"system": system}

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.text}]}

    def process(self, subject, message, settings):
        return {"text": message.text}

@hookimpl
def register_tasks():
    return [Cached()]
"""


@pytest.fixture
def cached(desk: DeskDriver, tmp_path: Path) -> None:
    desk.use_plugin(tmp_path / "own", CACHED)


def dollars(sandbox: Sandbox) -> Decimal:
    """What the sandbox billed in all."""
    return Decimal(sandbox.bill()["total"]["picodollars"]) / 10**12


def spent(desk: DeskDriver) -> Decimal:
    with db.transaction() as tx:
        parts = ledger.totals_of_runs(tx, [run_id for (run_id,) in db.rows(tx, "SELECT id FROM runs")]).values()
    return sum((part.cost_usd for part in parts if part.cost_usd is not None), Decimal())


@pytest.mark.usefixtures("cached")
def test_each_model_class_of_tokens_tier_and_place_is_billed_as_the_api_bills_it(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    sandbox.configure(cache_hit_rate=1, cache_cold_requests=2, nasty_share=0.4, nasty_bytes=3_000)
    desk.run(documents(8), "cached", model="claude-opus-5-5", ttl="1h")
    desk.run(documents(8), "cached", model="claude-sonnet-4-6", ttl="5m", geo="us")
    desk.run(documents(8), "cached", model="claude-fable-5", ttl="5m")
    # A shared part of over 100,000 tokens, and one of just below.
    desk.run(documents(5), "cached", model="claude-haiku-5-5", words="62000", geo="us")
    desk.run(documents(5), "cached", model="claude-haiku-5-5", words="61000")
    audit(desk, sandbox)
    assert spent(desk) == dollars(sandbox) > 0
    tallied = desk.rows(
        "SELECT model, price, inference_geo, sum(write_5m_tokens) AS five, sum(write_1h_tokens) AS hour, "
        "sum(read_tokens) AS read FROM ledger_tallies GROUP BY 1, 2, 3"
    )
    told = {(line.model, line.price, line.inference_geo): line for line in tallied}
    assert {key[:2] for key in told} >= {("claude-haiku-5-5", "2026-10-07 over"), ("claude-haiku-5-5", "2026-10-07")}
    assert {key[2] for key in told} == {"us", "global"}
    with db.transaction() as tx:
        of_runs = ledger.totals_of_runs(tx, [1, 2, 3])
    for one in of_runs.values():
        assert one.saved_by_batching == one.cost_usd and (one.saved_by_caching or 0) > 0
    assert all(line.read and bool(line.five) != bool(line.hour) for line in tallied), told


@pytest.mark.usefixtures("cached")
def test_batches_that_were_cancelled_or_expired_are_billed_for_what_was_answered(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    """I4, I8: their answers are paid, and the rest is not."""
    desk.change(batch_max_requests=10)
    sandbox.configure(expired_share=0.3, errored_share=0.2, missing_share=0.1)
    expired = desk.run(documents(20), "cached", model="claude-sonnet-5-5")
    wishes.ask_resubmit(expired, list(FailureClass), actor="t")
    sandbox.configure(expired_share=0, errored_share=0, missing_share=0, delay=3600)
    cancelled = desk.start(documents(20), "cached", model="claude-sonnet-5-5")
    for _ in range(6):
        desk.hurry()
        desk.perform_due()
    wishes.ask_cancel_run(cancelled, actor="t")
    desk.work_until_over(cancelled, hurry=True)
    sandbox.advance(7200)
    desk.work_until_over(expired, hurry=True)
    found = desk.summary(cancelled)
    assert found.canceled and found.succeeded and desk.summary(expired).succeeded
    audit(desk, sandbox)
    assert spent(desk) == dollars(sandbox) > 0


@pytest.mark.usefixtures("cached")
def test_a_batch_that_was_paid_twice_is_billed_twice_and_told_apart(desk: DeskDriver, sandbox: Sandbox) -> None:
    """The same requests sent again, as when a person did so without knowing: both answers are in the ledger."""
    run_id = desk.run(documents(5), "cached", model="claude-opus-5-5")
    (batch,) = desk.rows("SELECT id, api_id FROM batches")
    requests = desk.rows(
        "SELECT r.custom_id, run.shared::text AS shared, p.own::text AS own FROM requests r "
        "JOIN items i ON i.id = r.item_id JOIN runs run ON run.id = i.run_id JOIN item_params p ON p.item_id = i.id"
    )
    lines = [{"custom_id": one.custom_id, "params": json.loads(one.shared) | json.loads(one.own)} for one in requests]
    twin = sandbox.call("POST", "/v1/messages/batches", {"requests": lines})["id"]
    desk.execute(
        "UPDATE batches SET state = 'ingesting', api_id = :twin, results_url = NULL WHERE id = :id",
        twin=twin,
        id=batch.id,
    )
    desk.execute("INSERT INTO steps (step, target_id, due_at) VALUES ('ingest', :id, now())", id=batch.id)
    desk.work_until_over(run_id)
    assert desk.rows("SELECT duplicate, count(*) FROM ledger_lines GROUP BY 1 ORDER BY 1") == [(False, 5), (True, 5)]
    assert spent(desk) == dollars(sandbox)
    one, two = desk.rows(
        "SELECT sum(cost_usd) AS cost, sum(duplicate_cost_usd) AS twice FROM ledger_tallies "
        "GROUP BY api_batch_id ORDER BY twice"
    )
    assert (one.twice, two.twice) == (0, two.cost) and two.cost > 0
    assert not list(books.the_ledger_is_the_bill(books.Books(desk, sandbox)))


@pytest.mark.parametrize(
    ("mistake", "by"),
    [
        ("a discount that is forgotten", "cost_usd = 2 * cost_usd"),
        ("a cache write at the price of input", "cost_usd = cost_usd - write_1h_tokens * 0.000002"),
        ("a picodollar", "cost_usd = cost_usd + 0.000000000001"),
        ("an answer that is free", "cost_usd = 0"),
        ("an answer without a price", "cost_usd = NULL"),
    ],
)
@pytest.mark.usefixtures("cached")
def test_the_audit_sees_a_bill_that_is_not_right(desk: DeskDriver, sandbox: Sandbox, mistake: str, by: str) -> None:
    desk.run(documents(3), "cached", model="claude-opus-5-5")
    assert not list(books.the_ledger_is_the_bill(books.Books(desk, sandbox)))
    desk.execute(
        f"UPDATE ledger_lines SET {by} WHERE id = (SELECT id FROM ledger_lines WHERE write_1h_tokens > 0 LIMIT 1)"
    )
    told: list[Any] = list(books.the_ledger_is_the_bill(books.Books(desk, sandbox)))
    assert told and "was billed as" in told[0], mistake
