"""Everything at once: an API that fails in every way, and workers that die at any transaction. The books must agree."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db

CALM = 20  # transactions after a death in which nobody dies


class Killed(BaseException):
    """Stands for the worker's death: nothing of ours catches it."""


def mortal(chance: float, seed: int) -> Any:
    """`db.transaction`, in which the worker dies now and then: before it, before its commit, or just after.

    After each death some transactions go well: a record whose worker dies again and again is blamed, and rightly.
    """
    real = db.transaction
    dice = random.Random(seed)
    calm = 0

    @contextmanager
    def transaction(**options: Any) -> Iterator[Any]:
        nonlocal calm
        calm -= 1
        mortal = threading.current_thread() is threading.main_thread() and calm < 0
        drawn = dice.random() / chance if mortal else 9
        calm = CALM if drawn < 3 else calm
        if drawn < 1:
            raise Killed
        with real(**options) as tx:
            yield tx
            if drawn < 2:
                raise Killed
        if drawn < 3:
            raise Killed

    return transaction


def drive(desk: DeskDriver, run_id: int) -> int:
    """Perform what is due, with new workers for dead ones, until the run is over; how many died."""
    deaths = 0
    for _ in range(400):
        try:
            desk.lapse()
            desk.hurry()
            desk.perform_due()
            if desk.status(run_id).over:
                return deaths
        except Killed:
            deaths += 1
    raise AssertionError(f"run {run_id} does not end: {desk.status(run_id)} {desk.rows('SELECT * FROM steps')}")


def trouble(sandbox: Sandbox) -> None:
    sandbox.configure(
        create_faults="500,drop_after,429:0,413,ok,garbled,drop_before,529_after",
        results_faults="truncate:3000,duplicate:3+garbage:1,500,unknown:2+crlf,missing:2",
        retrieve_faults="500,ok,drop_before,ok,garbled",
        list_faults="ok,ok,500,ok,ok,drop_before",
        overloaded_share=0.1,
        expired_share=0.1,
        invalid_share=0.05,
        nasty_share=0.2,
        nasty_bytes=10_000,
    )


@pytest.mark.parametrize("seed", range(6))
def test_workers_that_die_at_any_transaction_leave_books_that_agree(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """I1, I2, I7: killed anywhere, each record is answered once, each answer paid once."""
    desk.change(batch_max_requests=8)
    run_id = desk.start(documents(30))
    with monkeypatch.context() as patched:
        patched.setattr(db, "transaction", mortal(0.1, seed))
        assert drive(desk, run_id) >= 3
    assert desk.summary(run_id).succeeded == 30
    assert {row.attempts for row in desk.outputs(run_id)} == {1}
    assert len(sandbox.accepted()) == 30
    audit(desk, sandbox)


@pytest.mark.parametrize("seed", range(3))
def test_an_api_in_trouble_and_dying_workers_leave_books_that_agree(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    desk.change(batch_max_requests=12)
    trouble(sandbox)
    run_id = desk.start(documents(60), task="summarise")
    with monkeypatch.context() as patched:
        patched.setattr(db, "transaction", mortal(0.04, 100 + seed))
        drive(desk, run_id)
    counts = desk.status(run_id).counts
    assert counts.total == 60 and counts.pending == 0
    audit(desk, sandbox)


def test_an_api_in_trouble_alone_leaves_books_that_agree(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(batch_max_requests=12)
    trouble(sandbox)
    run_id = desk.start(documents(60), task="summarise")
    drive(desk, run_id)
    assert desk.status(run_id).state == "finished"
    audit(desk, sandbox)


def test_a_cancel_in_the_storm_ends_with_books_that_agree(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp.runs import verbs

    desk.change(batch_max_requests=8)
    sandbox.configure(delay=3600, canceled_share=0.5)
    run_id = desk.start(documents(30))
    desk.perform_until("in_progress")
    with db.transaction() as tx:
        verbs.cancel_run(tx, run_id, actor="tester")
    with monkeypatch.context() as patched:
        patched.setattr(db, "transaction", mortal(0.03, 1))
        drive(desk, run_id)
    assert desk.status(run_id).state == "cancelled"
    audit(desk, sandbox)
