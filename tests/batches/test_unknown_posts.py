"""What becomes of a POST without a clear answer: adopted, sent again, disproved, or held for a person."""

from __future__ import annotations

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox

from webapp import db
from webapp.batches import runs
from webapp.gateway import Gateway


def unknown(desk: DeskDriver, sandbox: Sandbox, fault: str, count: int = 5) -> tuple[int, int]:
    """A run whose one batch's POST is unknown: (run id, batch id)."""
    sandbox.configure(create_faults=fault)
    run_id = desk.start(documents(count))
    desk.perform("plan", run_id)
    batch_id: int = desk.scalar("SELECT id FROM batches WHERE run_id = :id", id=run_id)
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "submit_unknown"
    sandbox.configure(create_faults="")
    return run_id, batch_id


def stranger(sandbox: Sandbox, count: int = 5) -> str:
    """A batch that somebody else in the workspace makes; its id."""
    params = {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
    requests = [{"custom_id": f"theirs-{n}", "params": params} for n in range(count)]
    return str(sandbox.call("POST", "/v1/messages/batches", {"requests": requests})["id"])


def settle(desk: DeskDriver, batch_id: int) -> str:
    desk.hurry()
    desk.perform("submit", batch_id)
    return str(desk.batch(batch_id).state)


def test_before_the_grace_time_nothing_is_sent_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(unknown_grace=900)
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    assert settle(desk, batch_id) == "submit_unknown"
    assert desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps") <= 30
    desk.execute("UPDATE submissions SET ended_at = now() - interval '901 seconds'")
    assert settle(desk, batch_id) == "planned"
    desk.work_until_over(run_id)
    audit(desk, sandbox)


def test_a_strangers_batch_is_disproved_by_its_lines_and_the_search_goes_on(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(unknown_grace=900)
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    theirs = stranger(sandbox)
    assert settle(desk, batch_id) == "in_progress"
    assert not desk.batch(batch_id).proved
    desk.hurry()
    desk.perform("poll", batch_id)
    desk.perform("ingest", batch_id)
    batch = desk.batch(batch_id)
    assert (batch.state, batch.api_id) == ("submit_unknown", None)
    assert "stranger" in batch.reason
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 0
    assert settle(desk, batch_id) == "submit_unknown"
    desk.execute("UPDATE submissions SET ended_at = now() - interval '901 seconds'")
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox, strangers=[theirs])


def test_an_empty_stream_does_not_disprove_an_adoption_at_once(desk: DeskDriver, sandbox: Sandbox) -> None:
    """A stream that was cut before its first line says nothing about whose batch it is."""
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    sandbox.configure(results_faults="missing:5")
    desk.work_until_over(run_id, hurry=True)
    assert desk.batch(batch_id).proved
    assert len(sandbox.bill()["batches"]) == 1
    audit(desk, sandbox)


def test_an_adopted_batch_without_any_line_is_held_and_never_sent_again(desk: DeskDriver, sandbox: Sandbox) -> None:
    """It may be ours: un-adopted, it would be looked for, ruled out, and paid twice."""
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    sandbox.configure(results_faults="missing:5*")
    for _ in range(8):
        desk.hurry()
        desk.perform_due()
    assert desk.batch(batch_id).held and "no line at all" in desk.batch(batch_id).reason
    assert len(sandbox.bill()["batches"]) == 1
    sandbox.configure(results_faults="")
    desk.hurry()
    desk.work_until_over(run_id)
    assert desk.batch(batch_id).proved
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)


def test_several_candidates_wait_for_a_person(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    stranger(sandbox)
    status = desk.work_until_over(run_id, hurry=True)
    assert len(status.held) == 1
    assert "2 batches at the API may be this one" in status.held[0]
    assert settle(desk, batch_id) == "submit_unknown"
    events = "SELECT count(*) FROM events WHERE kind = 'note' AND reason LIKE '%waits for a person%'"
    assert desk.scalar(events) == 1
    audit(desk, sandbox, over=False, strangers=[line["batch_id"] for line in sandbox.accepted()])


def test_a_batch_of_another_total_is_no_candidate(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    theirs = stranger(sandbox, 4)
    assert settle(desk, batch_id) == "in_progress"
    desk.work_until_over(run_id)
    audit(desk, sandbox, strangers=[theirs])


def test_a_batch_that_a_row_knows_is_no_candidate(desk: DeskDriver, sandbox: Sandbox) -> None:
    first = desk.run(documents(5))
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    assert settle(desk, batch_id) == "planned"
    desk.work_until_over(run_id)
    assert desk.summary(first).succeeded == desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)


def test_an_older_batch_is_no_candidate(desk: DeskDriver, sandbox: Sandbox) -> None:
    theirs = stranger(sandbox)
    sandbox.advance(3600)
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    assert settle(desk, batch_id) == "planned"
    desk.work_until_over(run_id)
    audit(desk, sandbox, strangers=[theirs])


def test_a_list_that_cannot_be_read_decides_nothing(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    sandbox.configure(list_faults="500*4")
    assert settle(desk, batch_id) == "submit_unknown"
    sandbox.configure(list_faults="ok,drop_before")
    assert settle(desk, batch_id) == "submit_unknown"
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


def test_another_accounts_list_proves_nothing(desk: DeskDriver, sandbox: Sandbox) -> None:
    """I22: a batch that belongs to another key is not lost, and not sent again."""
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    right = desk.desk.gateway
    desk.desk.gateway = Gateway(api_key="ws:other:key", base_url=sandbox.url)
    assert settle(desk, batch_id) == "submit_unknown"
    assert "another account" in desk.status(run_id).held[0]
    desk.desk.gateway = right
    assert settle(desk, batch_id) == "in_progress"
    assert not desk.status(run_id).held
    desk.work_until_over(run_id, hurry=True)
    assert len(sandbox.bill()["batches"]) == 1
    audit(desk, sandbox)


@pytest.mark.parametrize(("fault", "ends"), [("drop_after", "succeeded"), ("drop_before", "stopped")])
def test_cancelling_an_unknown_post_ends_the_run_either_way(
    desk: DeskDriver, sandbox: Sandbox, fault: str, ends: str
) -> None:
    run_id, _ = unknown(desk, sandbox, fault)
    with db.transaction() as tx:
        runs.cancel_run(tx, run_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.status(run_id).state == "cancelled"
    assert {row.status for row in desk.outputs(run_id)} == {ends}
    audit(desk, sandbox)


def test_a_batch_that_is_searched_again_is_no_longer_shown_as_held(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(unknown_grace=900)
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    theirs = [stranger(sandbox), stranger(sandbox)]
    settle(desk, batch_id)
    assert desk.status(run_id).held
    for api_id in theirs:
        desk.desk.gateway.retrieve(api_id)
        sandbox.call("DELETE", f"/v1/messages/batches/{api_id}")
    assert settle(desk, batch_id) == "submit_unknown"
    assert not desk.status(run_id).held
