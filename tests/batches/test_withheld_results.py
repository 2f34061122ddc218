"""Results that the API does not give: held while they may still come, ended when their time is over, never lost."""

from __future__ import annotations

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import API_KEY, Sandbox

from webapp import wishes
from webapp.gateway import Gateway

DAYS = 86_400.0


def sent(desk: DeskDriver, sandbox: Sandbox, count: int = 6) -> tuple[int, int]:
    """A run whose one batch is being worked on: (run id, batch id)."""
    sandbox.configure(delay=3600)
    run_id = desk.start(documents(count))
    return run_id, desk.perform_until("in_progress")


def at_the_end(desk: DeskDriver, sandbox: Sandbox, count: int = 6) -> tuple[int, int]:
    """A run whose one batch has ended at the API, nothing of it read: (run id, batch id)."""
    run_id, batch_id = sent(desk, sandbox, count)
    sandbox.advance(4000)
    desk.perform_until("ingesting")
    return run_id, batch_id


def pass_days(desk: DeskDriver, sandbox: Sandbox, days: int) -> None:
    """Here and at the API."""
    sandbox.advance(days * DAYS)
    desk.execute("UPDATE batches SET api_created_at = api_created_at - make_interval(days => :days)", days=days)


def perform(desk: DeskDriver, step: str, batch_id: int) -> str:
    desk.hurry()
    desk.perform(step, batch_id)
    return str(desk.batch(batch_id).state)


# -- another key ---------------------------------------------------------------------------------------------------


def test_a_key_rotated_within_its_account_changes_nothing(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I22: not the key is the account, but the organization and workspace that the API names for it."""
    desk.change(batch_max_requests=4)
    sandbox.configure(delay=3600, create_faults="ok,drop_after")
    run_id = desk.start(documents(7))
    desk.perform("plan", run_id)
    for batch_id in (1, 2):
        desk.perform("submit", batch_id)
    assert desk.states() == ["in_progress", "submit_unknown"]
    desk.desk.gateway = Gateway(api_key=f"{API_KEY}-of-tomorrow", base_url=sandbox.url)
    assert perform(desk, "poll", 1) == "in_progress"
    assert perform(desk, "submit", 2) == "in_progress"
    sandbox.advance(4000)
    status = desk.work_until_over(run_id, hurry=True)
    assert (status.state, status.held) == ("finished", ())
    assert desk.summary(run_id).succeeded == 7
    assert desk.scalar("SELECT count(*) FROM accounts") == 1
    audit(desk, sandbox)


def test_results_that_another_accounts_key_does_not_get_are_held_until_the_right_one_is_back(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    """I22: a batch of another key answers 404, and is not lost."""
    run_id, batch_id = at_the_end(desk, sandbox)
    right, desk.desk.gateway = desk.desk.gateway, Gateway(api_key="ws:other:key", base_url=sandbox.url)
    assert perform(desk, "ingest", batch_id) == "ingesting"
    assert "held, not lost" in desk.status(run_id).held[0]
    assert desk.scalar("SELECT count(*) FROM requests WHERE state = 'pending'") == 6
    desk.desk.gateway = right
    desk.hurry()
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 6
    audit(desk, sandbox)


@pytest.mark.parametrize("fault", ["401", "403", "404"])
def test_a_refusal_of_the_results_holds_the_batch_and_loses_nothing(
    desk: DeskDriver, sandbox: Sandbox, fault: str
) -> None:
    run_id, batch_id = at_the_end(desk, sandbox)
    sandbox.configure(results_faults=fault)
    assert perform(desk, "ingest", batch_id) == "ingesting"
    assert desk.batch(batch_id).held
    assert perform(desk, "ingest", batch_id) == "done"
    assert not desk.batch(batch_id).held
    desk.work_until_over(run_id)
    audit(desk, sandbox)


# -- vanished ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "ends"), [(28, "ingesting"), (30, "done")])
def test_results_are_given_up_only_when_their_29_days_are_over(
    desk: DeskDriver, sandbox: Sandbox, days: int, ends: str
) -> None:
    """A 404 before that is trouble; after it, the API has archived the batch, and what it answered is gone."""
    run_id, batch_id = at_the_end(desk, sandbox)
    pass_days(desk, sandbox, days)
    if days < 29:
        sandbox.configure(results_faults="404")
    assert perform(desk, "ingest", batch_id) == ends
    if ends == "ingesting":
        assert desk.batch(batch_id).held
        assert perform(desk, "ingest", batch_id) == "done"
        desk.work_until_over(run_id)
        assert desk.summary(run_id).succeeded == 6
        audit(desk, sandbox)
    else:
        assert desk.work_until_over(run_id).state == "finished"
        assert desk.summary(run_id).missing == 6
        assert all("29 days" in (row.error or "") for row in desk.outputs(run_id))
        # Sent again they are paid again, so that only a person may say so.
        assert {line.failure_class for line in desk.rows("SELECT failure_class FROM items")} == {"fix"}
        assert {row.attempts for row in desk.outputs(run_id)} == {1}


def test_a_batch_that_is_deleted_at_the_api_is_held_and_ends_when_its_time_is_over(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    run_id, batch_id = sent(desk, sandbox)
    sandbox.advance(4000)
    api_id = desk.batch(batch_id).api_id
    desk.desk.gateway.retrieve(api_id)
    sandbox.call("DELETE", f"/v1/messages/batches/{api_id}")
    assert perform(desk, "poll", batch_id) == "in_progress"
    assert desk.batch(batch_id).held
    pass_days(desk, sandbox, 30)
    assert perform(desk, "poll", batch_id) == "done"
    assert desk.work_until_over(run_id).state == "finished"
    assert desk.summary(run_id).missing == 6


def test_a_part_that_was_stored_before_the_rest_vanished_stays(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, batch_id = at_the_end(desk, sandbox)
    monkeypatch.setattr("webapp.batches.lines.CHUNK_LINES", 1)
    monkeypatch.setattr("webapp.gateway.READ_CHUNK", 256)
    sandbox.configure(results_faults="truncate:3000")
    perform(desk, "ingest", batch_id)
    stored = desk.scalar("SELECT count(*) FROM results")
    assert 0 < stored < 6
    pass_days(desk, sandbox, 30)
    assert perform(desk, "ingest", batch_id) == "done"
    desk.work_until_over(run_id)
    summary = desk.summary(run_id)
    assert (summary.succeeded, summary.missing) == (stored, 6 - stored)


# -- batches that did not go well, in trouble besides --------------------------------------------------------------


@pytest.mark.parametrize("end", ["cancelled", "expired"])
@pytest.mark.parametrize("fault", ["500", "truncate:900", "duplicate:3+garbage:1", "unknown_type:2", "404"])
def test_a_batch_that_was_cut_short_is_read_whole_though_its_results_fail(
    desk: DeskDriver, sandbox: Sandbox, end: str, fault: str
) -> None:
    """I4, I8: what was answered before the end is paid, and read however often it takes."""
    desk.change(max_attempts=1, missing_wait=60)
    sandbox.configure(delay=172_800 if end == "expired" else 3600, results_faults=fault)
    run_id = desk.start(documents(30))
    desk.perform_until("in_progress")
    if end == "cancelled":
        wishes.ask_cancel_run(run_id, actor="tester")
        desk.perform_until("canceling")
    sandbox.advance(90_000)
    for _ in range(3):
        desk.hurry()
        desk.work_until_over(run_id, hurry=True)
    summary = desk.summary(run_id)
    assert summary.succeeded and summary.succeeded + summary.canceled + summary.expired == 30
    assert summary.cost_usd
    audit(desk, sandbox)
