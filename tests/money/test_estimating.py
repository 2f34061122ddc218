"""A run's estimate: made of its own requests before anything is sent, and of less where the API counts nothing."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches.facts import run_facts
from webapp.money import estimating
from webapp.money.estimating import Stored

LENGTHS = [{"key": f"k{n}", "text": "word " * (10 + n)} for n in range(40)]


def estimate(desk: DeskDriver, run_id: int) -> Stored:
    with db.transaction() as tx:
        found = estimating.stored(tx, run_id)
    assert found is not None
    return found


def planned(desk: DeskDriver, records: Any, **settings: str) -> int:
    run_id = desk.start(records, **settings)
    desk.perform("plan", run_id)
    return run_id


def test_it_is_there_before_anything_is_sent_and_is_told_to_plugins(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = planned(desk, LENGTHS)
    found = estimate(desk, run_id)
    assert sandbox.accepted() == []
    assert found.low_usd is not None and found.high_usd is not None and found.most_usd is not None
    assert 0 < found.low_usd < found.high_usd < found.most_usd
    assert "The API counted 6 of the 40 requests" in found.reasons[0]
    with db.transaction() as tx:
        assert run_facts(tx, run_id).estimate_usd == found.high_usd
    assert desk.scalar("SELECT size FROM run_estimates") == pytest.approx(
        desk.scalar("SELECT sum(body_bytes) FROM batches"), rel=Decimal("0.02")
    )
    desk.work_until_over(run_id)
    assert estimate(desk, run_id) == found  # what it costs in the end changes nothing
    audit(desk, sandbox)


def test_the_answers_of_runs_before_take_the_place_of_the_guess(desk: DeskDriver) -> None:
    desk.run(LENGTHS)
    other = planned(desk, LENGTHS, labels="alpha,gamma")
    same = planned(desk, LENGTHS)
    elsewhere = planned(desk, LENGTHS, labels="alpha,beta", model="claude-opus-4-8")
    assert any("40 answers" in words and "with other settings" in words for words in estimate(desk, other).reasons)
    assert any("40 answers" in words and "with the same settings" in words for words in estimate(desk, same).reasons)
    assert any("a guess" in words for words in estimate(desk, elsewhere).reasons)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ("403*", "Your API key does not have permission"),
        ("429:60*", "rate limit"),
        ("529*", "Overloaded"),
        ("drop_before*", "The connection to the API failed"),
        ("garbled*", "cannot be read"),
        ("ok,ok,500*", "Internal server error"),
    ],
)
def test_where_the_api_counts_nothing_the_bytes_are_taken_and_the_run_goes_on(
    desk: DeskDriver, sandbox: Sandbox, faults: str, words: str
) -> None:
    sandbox.configure(count_faults=faults)
    run_id = planned(desk, documents(12))
    first = estimate(desk, run_id).reasons[0]
    assert "No tokens were counted" in first and words in first
    assert desk.scalar("SELECT counted FROM run_estimates") == 0
    assert desk.work_until_over(run_id).state == "finished"


def test_some_counts_are_better_than_none(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(count_faults="ok*5,500*")
    run_id = planned(desk, LENGTHS)
    assert "The API counted 4 of the 40 requests" in estimate(desk, run_id).reasons[0]


def test_a_run_that_is_planned_again_keeps_its_first_estimate(desk: DeskDriver) -> None:
    wishes.ask_configure("limits", {"most_records": "1"}, actor="t")
    run_id = planned(desk, documents(6))
    found = estimate(desk, run_id)
    assert desk.status(run_id).state == "paused"
    wishes.ask_configure("limits", {"most_records": ""}, actor="t")
    wishes.ask_resume(run_id, actor="t")
    assert desk.work_until_over(run_id).state == "finished"
    assert estimate(desk, run_id) == found


def test_images_are_counted_by_their_pixels_and_not_sent_to_be_counted(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(8):
        Picture.new("RGB", (280 * (n + 1), 280), (20 * n, 9, 9)).save(folder / f"{n}.png")
    run_id = desk.start_folder(folder, "alt_text")
    desk.perform("plan", run_id)
    found = estimate(desk, run_id)
    assert any("The images have 450 tokens a request" in words for words in found.reasons)  # 100 to 800 of them
    desk.work_until_over(run_id)
    cost = desk.summary(run_id).cost_usd
    assert found.low_usd is not None and found.high_usd is not None and cost is not None
    assert found.low_usd <= cost <= found.high_usd


def test_a_run_of_nothing_that_can_be_sent_costs_nothing(desk: DeskDriver) -> None:
    run_id = planned(desk, [{"key": "a", "text": ""}, {"key": "b", "text": " "}])
    assert (estimate(desk, run_id).high_usd, estimate(desk, run_id).reasons) == (0, ["No request can be sent."])


def test_an_unpriced_model_has_no_estimate_in_money(desk: DeskDriver) -> None:
    run_id = planned(desk, documents(3), labels="a,b", model="claude-fable-5-2")
    found = estimate(desk, run_id)
    assert (found.low_usd, found.high_usd) == (None, None)
    with db.transaction() as tx:
        assert run_facts(tx, run_id).estimate_usd is None
