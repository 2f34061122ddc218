"""How fast the API is asked: its 429s slow a whole account, and its queue is filled no further than it goes."""

from __future__ import annotations

import pytest
from support.apicalls import counted
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import wishes


def planned(desk: DeskDriver, count: int, most: int) -> tuple[int, list[int]]:
    """A run that is planned in batches of at most `most`: (run id, batch ids)."""
    desk.change(batch_max_requests=most)
    run_id = desk.start(documents(count))
    desk.perform("plan", run_id)
    return run_id, [batch_id for (batch_id,) in desk.rows("SELECT id FROM batches ORDER BY id")]


def submit(desk: DeskDriver, batch_ids: list[int]) -> list[str]:
    """Perform the submit step of each; their states."""
    for batch_id in batch_ids:
        desk.perform("submit", batch_id)
    return desk.states()


def posts(calls: list[str]) -> int:
    return sum(call.startswith("POST") for call in calls)


def test_a_429_holds_back_every_batch_of_the_account_and_fails_none(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, ids = planned(desk, 12, 4)
    sandbox.configure(create_faults="429:60")
    with counted(desk.desk.gateway) as calls:
        assert submit(desk, ids) == ["planned"] * len(ids)
    assert posts(calls) == 1
    waits = desk.rows("SELECT extract(epoch FROM due_at - now()) AS wait FROM steps WHERE step = 'submit'")
    assert all(50 < line.wait <= 60 for line in waits)
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 12
    audit(desk, sandbox)


def test_after_a_429_one_post_goes_ahead_and_the_others_wait_for_it(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, ids = planned(desk, 12, 4)
    sandbox.configure(create_faults="429:60")
    submit(desk, ids)
    desk.hurry()
    account = desk.scalar("SELECT id FROM accounts")
    open_post = desk.scalar(
        "INSERT INTO submissions (batch_id, account_id, total, api_time) VALUES (:batch, :account, 999, now()) "
        "RETURNING id",
        batch=ids[0],
        account=account,
    )
    with counted(desk.desk.gateway) as calls:
        assert submit(desk, ids[1:]) == ["planned"] * len(ids)
    assert posts(calls) == 0
    desk.execute("DELETE FROM submissions WHERE id = :id", id=open_post)
    desk.hurry()
    assert submit(desk, ids[:1])[0] == "in_progress"
    assert desk.scalar("SELECT throttled_until FROM accounts") is None
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_batches_wait_until_the_api_has_room_for_them(desk: DeskDriver, sandbox: Sandbox) -> None:
    """The sandbox refuses what its queue has no room for: with a limit of ours, it is never asked to."""
    sandbox.configure(delay=3600, queue_limit=20)
    desk.change(queue_limit=20)
    run_id, ids = planned(desk, 40, 10)
    with counted(desk.desk.gateway) as calls:
        states = submit(desk, ids)
    assert states == ["in_progress", "in_progress", *["planned"] * (len(ids) - 2)]
    assert posts(calls) == 2
    waiting = desk.batch(ids[2])
    assert "It waits for room: the API has 19 requests" in waiting.reason and not waiting.held
    first, second = (
        desk.scalar(
            "SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = 'submit' AND target_id = :id", id=one
        )
        for one in ids[2:4]
    )
    assert 10 < first <= 15 < second <= 30

    sandbox.advance(4000)
    sandbox.configure(delay=0)
    desk.perform("poll", ids[0])
    desk.hurry()
    desk.perform("poll", ids[0])
    assert desk.batch(ids[0]).state == "ingesting"
    due = "SELECT due_at <= now() FROM steps WHERE step = 'submit' AND target_id = :id"
    assert desk.scalar(due, id=ids[2]), "the next in line is looked at when there is room"
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 40
    audit(desk, sandbox)


def test_a_batch_larger_than_the_limit_goes_alone(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(queue_limit=5)
    run_id, _ = planned(desk, 20, 12)
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 20
    audit(desk, sandbox)


def test_without_a_limit_nothing_waits_for_room(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    desk.change(queue_limit=0)
    _, ids = planned(desk, 40, 10)
    assert set(submit(desk, ids)) == {"in_progress"}


def test_a_full_queue_at_the_api_only_costs_time(desk: DeskDriver, sandbox: Sandbox) -> None:
    """Somebody else's requests fill the queue: the API's own 429 says what our rows cannot know."""
    sandbox.configure(queue_limit=10, delay=0.2)
    run_id, _ = planned(desk, 40, 10)
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 40
    assert not desk.rows("SELECT id FROM batches WHERE state = 'failed'")
    audit(desk, sandbox)


@pytest.mark.parametrize("fault", ["spend_cap", "credit", "401", "402", "403"])
def test_what_only_a_person_can_mend_pauses_the_run_with_the_reason_and_one_resume(
    desk: DeskDriver, sandbox: Sandbox, fault: str
) -> None:
    run_id, ids = planned(desk, 12, 4)
    sandbox.configure(create_faults=fault)
    with counted(desk.desk.gateway) as calls:
        submit(desk, ids)
    assert posts(calls) == 1
    status = desk.status(run_id)
    assert status.state == "paused" and status.reason and status.reason.startswith("The API refuses this account: ")
    assert set(desk.states()) == {"planned"}
    wishes.ask_resume(run_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 12
    audit(desk, sandbox)
