"""Pilots: the first subjects go ahead, the rest waits for a person, and is released or never sent."""

from __future__ import annotations

from decimal import Decimal

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db, wishes
from webapp.batches.naming import new_token
from webapp.batches.states import FailureClass
from webapp.errors import InputError
from webapp.runs import pilots
from webapp.runs.staleness import Over
from webapp.runs.verbs import Manner

RECORDS, PILOT = 60, 20


@pytest.fixture
def piloting(desk: DeskDriver, sandbox: Sandbox) -> int:
    """A run of which twenty subjects go ahead, in batches of at most fifteen."""
    desk.change(batch_max_requests=15)
    return desk.start(documents(RECORDS), manner=Manner(pilot=PILOT))


def pilot(run_id: int) -> pilots.Pilot:
    with db.transaction() as tx:
        found = pilots.of_run(tx, run_id)
    assert found is not None
    return found


def sent(sandbox: Sandbox) -> int:
    return len(sandbox.accepted())


def batches(desk: DeskDriver) -> list[tuple[str | None, int]]:
    return [tuple(one) for one in desk.rows("SELECT role, total FROM batches ORDER BY id")]


def test_the_first_subjects_go_ahead_and_the_rest_waits_until_it_is_released(
    desk: DeskDriver, sandbox: Sandbox, piloting: int
) -> None:
    status = desk.work_until_over(piloting, hurry=True)
    assert batches(desk)[:2] == [("pilot", 15), ("pilot", 5)]
    assert {role for role, _ in batches(desk)[2:]} == {None}
    assert (status.state, sent(sandbox)) == ("paused", PILOT)
    assert status.reason is not None
    for words in (
        "The pilot of 20 subjects is over: 20 with an output.",
        "the other 40 are likely to cost $",
        "resume",
    ):
        assert words in status.reason
    assert [row.position for row in desk.rows("SELECT position FROM items WHERE state = 'succeeded' ORDER BY 1")] == [
        *range(PILOT)
    ]
    found = pilot(piloting)
    assert (found.through, found.released, found.rest, found.ok, found.open) == (True, False, 40, 20, 0)

    before = desk.summary(piloting).cost_usd
    assert before is not None and found.low_usd is not None and found.high_usd is not None
    wishes.ask_resume(piloting, actor="ann")
    assert desk.work_until_over(piloting, hurry=True).over
    after = desk.summary(piloting)
    assert after.succeeded == RECORDS and after.cost_usd is not None
    assert found.low_usd <= Decimal(after.cost_usd - before) <= found.high_usd
    assert pilot(piloting).released
    audit(desk, sandbox)


def test_a_run_that_is_stopped_after_its_pilot_sends_nothing_more(
    desk: DeskDriver, sandbox: Sandbox, piloting: int
) -> None:
    desk.work_until_over(piloting, hurry=True)
    wishes.ask_cancel_run(piloting, actor="ann")
    assert desk.work_until_over(piloting, hurry=True).state == "cancelled"
    assert sent(sandbox) == PILOT
    assert desk.summary(piloting).stopped == RECORDS - PILOT
    audit(desk, sandbox)


def test_a_pause_in_the_middle_does_not_release_the_rest(desk: DeskDriver, sandbox: Sandbox, piloting: int) -> None:
    desk.perform_until("in_progress")
    wishes.ask_pause(piloting, actor="ann")
    for _ in range(10):
        desk.hurry()
        desk.perform_due()
    assert desk.status(piloting).reason == "Paused by ann."
    wishes.ask_resume(piloting, actor="ann")
    status = desk.work_until_over(piloting, hurry=True)
    assert status.state == "paused" and "The pilot of 20 subjects is over" in str(status.reason)
    assert sent(sandbox) == PILOT


def test_failures_of_a_pilot_are_told_and_sent_again_by_a_person_before_the_rest(
    desk: DeskDriver, sandbox: Sandbox, piloting: int
) -> None:
    sandbox.configure(invalid_share=0.3)
    status = desk.work_until_over(piloting, hurry=True)
    failed = pilot(piloting).failed
    assert 0 < failed < PILOT and f"{failed} failed" in str(status.reason)
    sandbox.configure(invalid_share=0)
    wishes.ask_resubmit(piloting, [FailureClass.FIX], actor="ann")
    status = desk.work_until_over(piloting, hurry=True)
    assert (status.state, sent(sandbox)) == ("paused", PILOT + failed)
    assert desk.summary(piloting).succeeded == PILOT
    wishes.ask_resume(piloting, actor="ann")
    assert desk.work_until_over(piloting, hurry=True).over
    assert desk.summary(piloting).succeeded == RECORDS
    audit(desk, sandbox)


def test_a_pilot_over_all_subjects_is_a_run_like_any_other(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.start(documents(8), manner=Manner(pilot=20))
    assert desk.work_until_over(run_id).state == "finished"


def test_people_ask_for_a_pilot_when_they_start_a_run(desk: DeskDriver, sandbox: Sandbox) -> None:
    dataset = desk.scalar("SELECT dataset_id FROM runs WHERE id = :id", id=desk.run(documents(9)))
    run_id = wishes.ask_start(
        dataset, "classify", {"labels": "a,b"}, over=Over.ALL, actor="ann", token=new_token(), manner=Manner(pilot=3)
    )
    assert desk.work_until_over(run_id, hurry=True).state == "paused"
    assert pilot(run_id).rest == 6


@pytest.mark.parametrize("text", ["0", "-3", "many", "10001", "1.5", "", "99999999999999", "٣"])
def test_what_is_no_size_of_a_pilot_is_refused_in_words(text: str) -> None:
    with pytest.raises(InputError, match="a number of subjects from 1 to 10,000"):
        pilots.size(text)


# -- the request that writes the cache --------------------------------------------------------------------------


def primed(desk: DeskDriver, **columns: int) -> int:
    desk.change(batch_max_requests=15)
    run_id = desk.start(documents(RECORDS))
    desk.execute("UPDATE runs SET priming = 'It pays.', pilot = :pilot WHERE id = :id", id=run_id, **columns)
    return run_id


def test_one_request_goes_ahead_and_the_rest_follows_when_it_has_ended(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    run_id = primed(desk, pilot=None)
    desk.perform_until("in_progress")
    for _ in range(5):
        desk.hurry()
        desk.perform_due()
    assert batches(desk)[0] == ("prime", 1) and sent(sandbox) == 1
    (first,) = desk.rows("SELECT id FROM batches WHERE role = 'prime'")
    reasons = {reason for (reason,) in desk.rows("SELECT reason FROM batches WHERE role IS NULL")}
    assert reasons == {f"It waits for batch {first.id}, a single request that writes the shared part into the cache."}
    sandbox.advance(3600)
    sandbox.configure(delay=0)
    assert desk.work_until_over(run_id).over, "nobody hurries: its end makes the others due"
    assert desk.summary(run_id).succeeded == RECORDS
    audit(desk, sandbox)


def test_the_rest_waits_no_longer_than_it_is_worth(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=86_000)
    primed(desk, pilot=None)
    desk.perform_until("in_progress")
    desk.execute("UPDATE submissions SET armed_at = armed_at - interval '61 minutes'")
    desk.hurry()
    desk.perform_due()
    assert sent(sandbox) == RECORDS


def test_the_rest_follows_where_the_first_request_fails(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = primed(desk, pilot=None)
    desk.perform("plan", run_id)
    (first,) = desk.rows("SELECT id FROM batches WHERE role = 'prime'")
    wishes.ask_cancel_batch(first.id, actor="ann")
    assert desk.work_until_over(run_id).over
    assert (desk.summary(run_id).succeeded, desk.summary(run_id).stopped) == (RECORDS - 1, 1)


def test_a_pilot_is_primed_too(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = primed(desk, pilot=PILOT)
    status = desk.work_until_over(run_id, hurry=True)
    assert batches(desk)[:3] == [("prime", 1), ("pilot", 15), ("pilot", 4)]
    assert status.state == "paused" and "The pilot of 20 subjects is over: 20 with an output." in str(status.reason)
    wishes.ask_resume(run_id, actor="ann")
    assert desk.work_until_over(run_id, hurry=True).over
    audit(desk, sandbox)
