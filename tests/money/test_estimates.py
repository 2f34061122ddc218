"""What new attempts are likely to cost: the mean of the like, told with what it is made of, and unknown otherwise."""

from __future__ import annotations

from decimal import Decimal

from support.desk import DeskDriver, documents

from webapp import db
from webapp.money import estimates
from webapp.money.estimates import Estimate, Mean


def means(*run_ids: int) -> dict[int, Mean]:
    with db.transaction() as tx:
        return estimates.means(tx, run_ids)


def test_the_mean_is_of_the_runs_own_answers(desk: DeskDriver) -> None:
    run_id = desk.run(documents(4))
    total = desk.scalar("SELECT sum(cost_usd) FROM ledger_lines")
    found = means(run_id)[run_id]
    assert (found.answers, found.own) == (4, True)
    assert found.cost_usd * 4 == total
    assert estimates.likely({run_id: 8}, {run_id: found}) == Estimate(total * 2, 4, own=True)


def test_a_run_without_answers_is_taken_for_one_of_the_same_task_and_model(desk: DeskDriver) -> None:
    first = desk.run(documents(3))
    alike = desk.start(documents(2))
    other = desk.start(documents(2), labels="alpha,beta", model="claude-opus-4-8")
    found = means(first, alike, other)
    assert found[alike].cost_usd == found[first].cost_usd and not found[alike].own
    assert other not in found
    assert estimates.likely({alike: 1, other: 1}, found).cost_usd is None
    assert estimates.likely({first: 1, alike: 1}, found).own is False


def test_nothing_is_known_where_nothing_was_answered_or_priced(desk: DeskDriver) -> None:
    run_id = desk.run(documents(2))
    desk.execute("UPDATE ledger_lines SET cost_usd = NULL")
    assert means(run_id) == {} == means()
    assert estimates.likely({run_id: 1}, {}) == Estimate(None, 0, own=True)
    assert estimates.likely({run_id: 0}, {run_id: Mean(Decimal(1), 1, own=True)}).cost_usd is None
