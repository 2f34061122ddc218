"""What a long shared part costs many requests: one that goes ahead writes it to the cache, and the others read it.

The sandbox misses as the API does: what begins before the first has written it, and a few of the others.
`bench.caching` makes the same figures at 40,000 documents.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from support.audit import audit
from support.desk import DeskDriver
from support.sandbox import Sandbox

from bench import caching as bench
from webapp import db
from webapp.money import caching

DOCUMENTS, IN_A_BATCH = 2_000, 500
READS_AT_A_TWENTIETH = "claude-opus-5-5"


@pytest.fixture(autouse=True)
def _books(desk: DeskDriver, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.configure(cache_hit_rate=bench.HIT_RATE, cache_cold_requests=IN_A_BATCH // bench.COLD_PART, delay=600)
    desk.use_plugin(tmp_path / "own", bench.TASK)
    desk.change(batch_max_requests=IN_A_BATCH)


def begun(desk: DeskDriver, name: str, *, prime: str | None = None) -> int:
    """A run with a shared part of its own."""
    run_id = desk.start_records(bench.records(DOCUMENTS), "long", model=READS_AT_A_TWENTIETH, name=name)
    desk.execute("UPDATE runs SET prime = :prime WHERE id = :id", prime=prime, id=run_id)
    return run_id


def see_out(desk: DeskDriver, sandbox: Sandbox, run_id: int) -> None:
    """Work until the run is over. What can be sent is sent together; between two looks the API has time to work."""
    for _ in range(40):
        if desk.status(run_id).over:
            return
        desk.hurry()
        desk.perform_due()
        sandbox.advance(300)
    raise AssertionError(desk.status(run_id))


def test_many_documents_with_a_long_shared_part_cost_a_twentieth_of_what_they_would_one_by_one(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    primed = begun(desk, "primed")
    see_out(desk, sandbox, primed)
    plain = begun(desk, "plain", prime="off")
    see_out(desk, sandbox, plain)
    audit(desk, sandbox)

    # By the numbers: nobody asked for it.
    assert "writes the shared part of about 8,0" in desk.scalar("SELECT priming FROM runs WHERE id = :id", id=primed)
    totals = desk.rows("SELECT role, total FROM batches WHERE run_id = :id ORDER BY ordinal", id=primed)
    assert tuple(totals[0]) == ("prime", 1) and sum(total for _, total in totals) == DOCUMENTS
    assert not desk.scalar("SELECT count(role) FROM batches WHERE run_id = :id", id=plain)

    with_it, without = (bench.bill_of_input(run, READS_AT_A_TWENTIETH) for run in (primed, plain))
    assert with_it.uncached_usd == without.uncached_usd
    assert with_it.ratio <= bench.LIMIT
    assert with_it.batch_usd < without.batch_usd
    # Five of each of four batches began too early, where one wrote it for all.
    assert without.rate == pytest.approx(with_it.rate - Decimal(19) / DOCUMENTS, abs=Decimal("0.003"))


def test_the_pages_say_what_was_read_from_the_cache(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(cache_cold_requests=100)
    desk.change(batch_max_requests=200)
    run_id = desk.start_records(bench.records(400), "long", model=READS_AT_A_TWENTIETH, name="early")
    see_out(desk, sandbox, run_id)
    with db.transaction() as tx:
        of_run = caching.of_run(tx, run_id)
        (first,) = db.rows(tx, "SELECT id FROM batches WHERE run_id = :id ORDER BY id LIMIT 1", id=run_id)
        of_batch = caching.of_batch(tx, run_id, first.id)
    assert of_run is not None and of_run.rate is not None and of_batch is not None
    assert Decimal("0.45") < of_run.rate < Decimal("0.55")
    assert "answers wrote it themselves" in of_run.words and "Priming lets one request go ahead" in of_batch.words
