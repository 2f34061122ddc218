"""Caps: what is sent stays within them, whoever sends and wherever it dies; what does not fit waits for a person."""

from __future__ import annotations

import threading
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from chaos.boundaries import Watch
from chaos.points import Point
from chaos.scenarios import Killed, watched
from flask import Flask
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches.steps import Lease
from webapp.errors import InputError, NotFound
from webapp.money import caps, exposure
from webapp.money.caps import Scope

SHARD = 5


@pytest.fixture
def small(desk: DeskDriver) -> DeskDriver:
    """A desk whose batches hold five requests at most."""
    desk.change(batch_max_requests=SHARD)
    return desk


def planned(desk: DeskDriver, count: int = 30, **settings: str) -> tuple[int, Decimal]:
    """A run whose requests are built, and the top of its estimate."""
    run_id = desk.start(documents(count), **settings)
    desk.perform("plan", run_id)
    return run_id, desk.scalar("SELECT high_usd FROM run_estimates WHERE run_id = :id", id=run_id)


def spent(desk: DeskDriver, run_id: int) -> Decimal:
    found: Decimal = desk.scalar("SELECT coalesce(sum(cost_usd), 0) FROM ledger_lines WHERE run_id = :id", id=run_id)
    return found


def cap(scope: Scope, target: str | int, usd: Decimal | str, **options: bool) -> int:
    return wishes.ask_cap(scope, str(target), Decimal(usd), actor="ann", **options)


def test_a_capped_run_stops_before_its_cap_and_goes_on_when_it_is_raised(small: DeskDriver, sandbox: Sandbox) -> None:
    run_id, high = planned(small)
    limit = high / 2
    cap(Scope.RUN, run_id, limit)
    status = small.work_until_over(run_id, hurry=True)
    assert status.state == "paused"
    assert status.reason is not None
    for words in (f"The cap of run {run_id} is $", "billed", "the next batch may cost up to $", "Raise the cap"):
        assert words in status.reason
    assert limit / 4 < spent(small, run_id) <= limit
    assert set(small.states()) == {"done", "planned"}
    sent = len(sandbox.accepted())

    wishes.ask_resume(run_id, actor="ann")
    assert small.work_until_over(run_id, hurry=True).state == "paused"  # it asks again
    assert len(sandbox.accepted()) == sent

    cap(Scope.RUN, run_id, high)
    wishes.ask_resume(run_id, actor="ann")
    assert small.work_until_over(run_id, hurry=True).state == "finished"
    assert small.summary(run_id).succeeded == 30
    assert spent(small, run_id) <= high
    audit(small, sandbox)


def test_what_is_under_way_counts_until_it_is_billed(small: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    run_id, high = planned(small)
    cap(Scope.RUN, run_id, high / 2)
    for _ in range(3):
        small.hurry()
        small.perform_due()
    flying = small.states().count("in_progress")
    assert 1 <= flying <= 3 and small.status(run_id).state == "running"
    (waits, *_) = small.rows("SELECT reason FROM batches WHERE state = 'planned' ORDER BY id")
    assert "It waits for what is under way to be billed" in waits.reason
    assert f"{flying} batches under way for up to $" in waits.reason or "1 batch under way" in waits.reason
    with db.transaction() as tx:
        level = caps.level_of_run(tx, run_id)
    assert level is not None
    assert (level.spent.billed_usd, level.spent.flying) == (0, flying)
    assert 0 < level.spent.flying_usd <= level.limit_usd


@pytest.mark.parametrize("scope", [Scope.ACCOUNT, Scope.TASK, Scope.OWNER])
def test_a_monthly_cap_counts_all_runs_that_it_is_of(small: DeskDriver, scope: Scope) -> None:
    first, _ = planned(small, 10)
    small.work_until_over(first, hurry=True)
    before = spent(small, first)
    target = {Scope.ACCOUNT: "1", Scope.TASK: "classify", Scope.OWNER: "tester"}[scope]
    cap(scope, target, before + before / 4)
    second, _ = planned(small, 10)
    status = small.work_until_over(second, hurry=True)
    assert (status.state, spent(small, second)) == ("paused", 0)
    assert status.reason is not None and f"The monthly cap of {scope} {target} is $" in status.reason
    # Another month's money, and a sandbox's beside real money, are no part of it.
    small.execute("UPDATE ledger_tallies SET day = day - 40")
    cap(scope, target, before * 2)
    wishes.ask_resume(second, actor="ann")
    assert small.work_until_over(second, hurry=True).state == "finished"
    with db.transaction() as tx:
        assert exposure.of(tx, scope, target, sandbox=not small.desk.settings.sandbox).billed_usd == 0


def test_another_tasks_and_owners_caps_do_not_count(small: DeskDriver) -> None:
    run_id, _ = planned(small, 6)
    cap(Scope.TASK, "summarise", "0")
    cap(Scope.OWNER, "somebody else", "0")
    assert small.work_until_over(run_id).state == "finished"


def test_attempts_that_go_again_by_themselves_are_under_the_cap(small: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(expired_share=1.0)
    run_id, high = planned(small, 10)
    small.perform_due()
    cap(Scope.RUN, run_id, "0")
    status = small.work_until_over(run_id, hurry=True)
    assert status.state == "paused" and status.reason is not None and "cap of run" in status.reason
    assert small.scalar("SELECT max(attempt) FROM requests") == 2
    sandbox.configure(expired_share=0.0)
    cap(Scope.RUN, run_id, high * 2)
    wishes.ask_resume(run_id, actor="ann")
    assert small.work_until_over(run_id, hurry=True).state == "finished"


def test_what_nobody_can_price_is_refused_unless_an_admin_lets_it_through(small: DeskDriver) -> None:
    run_id = small.start(documents(4), labels="alpha,beta", model="claude-fable-5-2")
    cap(Scope.TASK, "classify", "1000")
    status = small.work_until_over(run_id)
    assert status.state == "paused" and status.reason is not None
    assert "takes nothing whose cost is unknown" in status.reason
    cap(Scope.TASK, "classify", "1000", refuse_unpriced=False)
    wishes.ask_resume(run_id, actor="ann")
    assert small.work_until_over(run_id).state == "finished"
    with db.transaction() as tx:
        (level,) = caps.levels(tx, sandbox=False)
    assert "4 answers without a known price" in level.spent.told()


def test_two_workers_at_once_count_each_other(app: Flask, small: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    run_id, high = planned(small, 2 * SHARD - 1)
    cap(Scope.RUN, run_id, high * 3 / 4)  # room for one of the two
    first, second = (batch_id for (batch_id,) in small.rows("SELECT id FROM batches ORDER BY id"))

    def submit(batch_id: int) -> None:
        with app.app_context():
            small.perform("submit", batch_id)

    workers = [threading.Thread(target=submit, args=(batch_id,)) for batch_id in (first, second)]
    with db.transaction() as tx:
        db.run(tx, "SELECT 1 FROM caps FOR UPDATE")
        for worker in workers:
            worker.start()
        while _waiting(small) < 2:  # one at the cap, the other at the cap or the account
            assert any(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.join()
    assert sorted(small.states()) == ["in_progress", "planned"]


def _waiting(desk: DeskDriver) -> int:
    found: int = desk.scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return found


def test_a_cap_is_locked_until_the_intent_is_committed(app: Flask, small: DeskDriver) -> None:
    """Also for workers of different accounts, whose account's own lock does not keep them apart."""
    planned(small, 4)
    cap(Scope.TASK, "classify", "5")
    (batch,) = small.rows("SELECT id, run_id, total, body_bytes FROM batches")
    over: list[bool] = []

    def ask() -> None:
        with app.app_context(), db.transaction() as tx:
            caps.bar(tx, batch, 2)
            over.append(True)

    other = threading.Thread(target=ask)
    with db.transaction() as tx:
        assert caps.bar(tx, batch, 1) is None
        other.start()
        while not _waiting(small):
            assert other.is_alive()
        assert not over
    other.join()
    assert over


def test_the_cap_holds_wherever_a_worker_dies(small: DeskDriver, sandbox: Sandbox) -> None:
    """A worker is killed once at every point that submitting passes; each kill is in a run of its own."""
    passed = _killed_at(small, None)
    points = [point for point in passed if point.step == "submit" and point.place != "jobs.nudge" and point.nth == 1]
    assert {point.place for point in points} >= {"submission._arm", "submission._record", "gateway.create"}
    for point in points:
        _killed_at(small, point)
    audit(small, sandbox)


def _killed_at(desk: DeskDriver, strike: Point | None) -> list[Point]:
    """Work on a capped run until it is paused, dying once at a point; what was passed."""
    run_id, high = planned(desk, 2 * SHARD)
    limit = high * 3 / 5  # room for one batch, whatever becomes of it
    cap(Scope.RUN, run_id, limit)
    passed: dict[Point, None] = {}
    left = [strike] if strike else []

    def act(point: Point, _: Lease) -> None:
        passed.setdefault(point)
        if left and point == left[0]:
            left.clear()
            raise Killed

    with watched(Watch(act)):
        for _ in range(60):
            if desk.status(run_id).state == "paused" and not _flying(desk, run_id):
                break
            with suppress(Killed):
                desk.lapse()
                desk.hurry()
                desk.perform_due()
    assert not left, f"nothing passes {strike}"
    assert desk.status(run_id).state == "paused", (strike, desk.states())
    assert spent(desk, run_id) <= limit, strike
    wishes.ask_cancel_run(run_id, actor="ann")
    desk.work_until_over(run_id, hurry=True)
    return list(passed)


def _flying(desk: DeskDriver, run_id: int) -> bool:
    return bool(
        desk.rows(
            "SELECT 1 FROM batches WHERE run_id = :id AND state NOT IN ('planned', 'done', 'failed', 'discarded')",
            id=run_id,
        )
    )


def test_caps_are_set_changed_and_taken_away_with_an_event_each(small: DeskDriver) -> None:
    cap_id = cap(Scope.TASK, "classify", "5")
    assert cap(Scope.TASK, "classify", "7.50", refuse_unpriced=False) == cap_id
    with db.transaction() as tx:
        (level,) = caps.levels(tx, sandbox=False)
    assert (level.limit_usd, level.left_usd, level.refuse_unpriced) == (Decimal("7.50"), Decimal("7.50"), False)
    assert wishes.ask_cap_away(cap_id, actor="ann") == "the monthly cap of task classify"
    events = small.rows("SELECT actor, reason, target FROM events WHERE target_kind = 'cap' ORDER BY id")
    assert [(one.actor, one.target) for one in events] == [("ann", "task classify")] * 3
    assert "set to $7.50" in events[1].reason and "taken away" in events[2].reason
    with pytest.raises(NotFound):
        wishes.ask_cap_away(cap_id, actor="ann")


@pytest.mark.parametrize(
    ("scope", "target", "usd"),
    [
        (Scope.RUN, "99", "1"),
        (Scope.ACCOUNT, "x", "1"),
        (Scope.ACCOUNT, "9" * 30, "1"),
        (Scope.TASK, "", "1"),
        (Scope.OWNER, "x" * 201, "1"),
        (Scope.OWNER, "a\nb", "1"),
        (Scope.TASK, "classify", "-1"),
        (Scope.TASK, "classify", "NaN"),
        (Scope.TASK, "classify", "1e30"),
    ],
)
def test_a_cap_of_nothing_or_of_no_amount_is_refused(small: DeskDriver, scope: Scope, target: str, usd: str) -> None:
    with pytest.raises(InputError):
        cap(scope, target, usd)


@pytest.mark.parametrize(("text", "usd"), [("25", "25"), (" $1,250.50 ", "1250.50"), ("0", "0")])
def test_an_amount_is_read_as_people_write_it(text: str, usd: str) -> None:
    assert caps.amount(text) == Decimal(usd)


@pytest.mark.parametrize("text", ["", "x", "-1", "inf", "NaN", "1e13", "1 2"])
def test_what_is_no_amount_is_told(text: str) -> None:
    with pytest.raises(InputError, match="amount in US dollars"):
        caps.amount(text)


def test_what_a_cap_would_say_is_told_before(small: DeskDriver) -> None:
    cap(Scope.TASK, "classify", "5")

    def told(**given: Any) -> list[str]:
        with db.transaction() as tx:
            return caps.warnings(
                tx, **({"task": "classify", "owner": "ann", "limit_usd": None, "sandbox": False} | given)
            )

    assert told(high_usd=Decimal(4)) == []
    assert told(high_usd=Decimal(6), task="summarise") == []
    (words,) = told(high_usd=Decimal(6))
    assert "may cost $6.00" in words and "monthly cap of task classify, $5.00, has $5.00 left" in words
    assert "more than its cap of $3.00" in told(high_usd=Decimal(4), limit_usd=Decimal(3))[0]
    assert len(told(high_usd=None, limit_usd=Decimal(3))) == 2
