"""Polling where there is much to poll: one list in place of many single calls, and a GET for what it lacks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.apicalls import counted
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db
from webapp.batches.states import BatchState, move_batch
from webapp.runs import verbs


def sent(desk: DeskDriver, sandbox: Sandbox, batches: int, **settings: object) -> tuple[int, list[int]]:
    """A run whose batches, of one or two requests, are all being worked on: (run id, batch ids)."""
    desk.change(batch_max_requests=2, poll_schedule="*:30")
    sandbox.configure(**({"delay": 3600} | settings))
    run_id = desk.start(documents(batches + batches // 2))
    desk.perform("plan", run_id)
    ids = [batch_id for (batch_id,) in desk.rows("SELECT id FROM batches ORDER BY id")]
    assert len(ids) == batches
    for batch_id in ids:
        desk.perform("submit", batch_id)
    assert set(desk.states()) == {"in_progress"}
    return run_id, ids


def round_of_polls(desk: DeskDriver) -> list[str]:
    """Let all polls be due, and perform what is due as the workers would until nothing is; the calls of the API."""
    desk.hurry()
    due = "SELECT target_id FROM steps WHERE step = 'poll' AND due_at <= now() ORDER BY due_at, target_id LIMIT 1"
    with counted(desk.desk.gateway) as calls:
        while (batch_id := desk.scalar(due)) is not None:
            desk.perform("poll", batch_id)
    return calls


def test_a_thousand_batches_are_polled_with_at_most_three_calls_a_round(desk: DeskDriver, sandbox: Sandbox) -> None:
    """A thousand of our own in flight, in a workspace of our own: rows made by hand, batches at the API real ones."""
    _, (first, *_) = sent(desk, sandbox, 2)
    params = {"model": "claude-haiku-4-5", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]}
    made = [
        sandbox.call("POST", "/v1/messages/batches", {"requests": [{"custom_id": f"own-{n}", "params": params}]})["id"]
        for n in range(998)
    ]
    desk.execute(
        """
        WITH made AS (
            INSERT INTO batches (run_id, account_id, ordinal, total, body_bytes, api_id, api_created_at)
            SELECT run_id, account_id, 10 + nth, 1, 1, made.api_id, api_created_at
            FROM batches, unnest(CAST(:ids AS text[])) WITH ORDINALITY AS made(api_id, nth) WHERE id = :first
            RETURNING id
        ) INSERT INTO steps (step, target_id, due_at) SELECT 'poll', id, now() FROM made
        """,
        ids=made,
        first=first,
    )
    with db.transaction() as tx:
        for (batch_id,) in db.rows(tx, "SELECT id FROM batches WHERE state = 'planned'"):
            move_batch(tx, batch_id, BatchState.SUBMITTING, actor="tester")
            move_batch(tx, batch_id, BatchState.IN_PROGRESS, actor="tester")
    assert desk.scalar("SELECT count(*) FROM batches WHERE state = 'in_progress'") == 1000
    began = datetime.now(UTC)
    assert len(round_of_polls(desk)) <= 3
    assert desk.scalar("SELECT count(*) FROM batches WHERE polled_at >= :began", began=began) == 1000
    assert desk.scalar("SELECT count(*) FROM steps WHERE step = 'poll' AND due_at > now()") == 1000
    assert desk.scalar("SELECT count(*) FROM steps WHERE lease_until IS NOT NULL") == 0

    sandbox.advance(4000)
    assert len(round_of_polls(desk)) <= 3
    assert set(desk.states()) == {"ingesting"}


def test_a_few_batches_are_polled_with_one_list_and_one_with_one_get(desk: DeskDriver, sandbox: Sandbox) -> None:
    _, ids = sent(desk, sandbox, 5)
    assert round_of_polls(desk) == ["GET /v1/messages/batches?limit=1000"]
    desk.execute("DELETE FROM steps WHERE target_id <> :id", id=ids[0])
    api_id = desk.batch(ids[0]).api_id
    assert round_of_polls(desk) == [f"GET /v1/messages/batches/{api_id}"]


def test_what_a_list_lacks_is_asked_for_alone_and_not_lost(desk: DeskDriver, sandbox: Sandbox) -> None:
    _, ids = sent(desk, sandbox, 4)
    gone = desk.batch(ids[2]).api_id
    sandbox.advance(4000)
    sandbox.call("DELETE", f"/v1/messages/batches/{gone}")
    calls = round_of_polls(desk)
    assert calls == ["GET /v1/messages/batches?limit=1000", f"GET /v1/messages/batches/{gone}"]
    assert desk.states() == ["ingesting", "ingesting", "in_progress", "ingesting"]
    assert "held, not lost" in desk.batch(ids[2]).reason


@pytest.mark.parametrize("fault", ["500", "429:120", "drop_before", "401", "garbled"])
def test_a_list_that_fails_changes_nothing_and_all_come_again(desk: DeskDriver, sandbox: Sandbox, fault: str) -> None:
    run_id, _ = sent(desk, sandbox, 4, list_faults="ok*4," + fault)  # each POST asks first who it is
    assert len(round_of_polls(desk)) == 1
    assert desk.states() == ["in_progress"] * 4
    assert desk.scalar("SELECT count(*) FROM steps WHERE step = 'poll' AND due_at > now()") == 4
    waits = desk.scalar("SELECT extract(epoch FROM min(due_at) - now()) FROM steps WHERE step = 'poll'")
    assert (waits > 100) == (fault == "429:120")
    assert desk.scalar("SELECT count(*) FROM batches WHERE reason IS NOT NULL") == 4
    round_of_polls(desk)
    assert desk.scalar("SELECT count(*) FROM batches WHERE reason IS NOT NULL") == 0
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_a_poll_that_another_worker_is_at_is_left_to_it(desk: DeskDriver, sandbox: Sandbox) -> None:
    _, ids = sent(desk, sandbox, 4)
    desk.hurry()
    desk.execute(
        "UPDATE steps SET due_at = NULL, epoch = 77, lease_until = now() + interval '9 seconds' WHERE target_id = :id",
        id=ids[1],
    )
    desk.perform("poll", ids[0])
    assert desk.batch(ids[1]).polled_at is None
    assert desk.batch(ids[2]).polled_at is not None
    assert desk.scalar("SELECT epoch FROM steps WHERE step = 'poll' AND target_id = :id", id=ids[1]) == 77


def test_a_wish_to_cancel_is_told_to_the_api_among_many(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, ids = sent(desk, sandbox, 4, cancel_delay=3600)
    with db.transaction() as tx:
        verbs.cancel_batch(tx, ids[3], actor="tester")
    calls = round_of_polls(desk)
    assert [call.split()[0] for call in calls] == ["GET", "POST"]
    assert desk.states() == ["in_progress", "in_progress", "in_progress", "canceling"]
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_a_list_looks_a_little_ahead_and_no_further(desk: DeskDriver, sandbox: Sandbox) -> None:
    _, ids = sent(desk, sandbox, 4)
    for batch_id, seconds in zip(ids, (0, 5, 14, 20), strict=True):
        desk.execute(
            "UPDATE steps SET due_at = now() + make_interval(secs => :in) WHERE target_id = :id",
            id=batch_id,
            **{"in": seconds},
        )
    desk.perform("poll", ids[0])
    assert [desk.batch(batch_id).polled_at is not None for batch_id in ids] == [True, True, True, False]
