"""What becomes of a POST without a clear answer: adopted, sent again, disproved, or held for a person."""

from __future__ import annotations

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox
from support.unknown import settle, slow_stranger, stranger, unknown

from webapp import db, wishes
from webapp.errors import Refused
from webapp.gateway import Gateway
from webapp.runs import verbs


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
    ended = desk.scalar("SELECT ended_at FROM submissions")
    theirs = slow_stranger(sandbox)
    assert settle(desk, batch_id) == "in_progress"
    assert not desk.batch(batch_id).proved
    sandbox.advance(4000)
    desk.hurry()
    desk.perform("poll", batch_id)
    desk.perform("ingest", batch_id)
    batch = desk.batch(batch_id)
    assert (batch.state, batch.api_id) == ("submit_unknown", None)
    assert "stranger" in batch.reason
    assert desk.scalar("SELECT ended_at FROM submissions") == ended, "the grace time is that of the POST"
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


def test_a_guess_that_nothing_proves_can_be_taken_back_by_a_person(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    sandbox.configure(results_faults="missing:5*")
    theirs = stranger(sandbox)
    with pytest.raises(Refused, match="no guess"):
        wishes.ask_disown(batch_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert "no line at all" in desk.batch(batch_id).reason
    sandbox.configure(results_faults="")
    wishes.ask_disown(batch_id, actor="tester")
    batch = desk.batch(batch_id)
    assert (batch.state, batch.api_id) == ("submit_unknown", None) and "tester says" in batch.reason
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox, strangers=[theirs])


def test_several_candidates_wait_for_a_person(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    theirs = stranger(sandbox)
    status = desk.work_until_over(run_id, hurry=True)
    assert len(status.held) == 1
    assert "2 batches at the API may be this one" in status.held[0]
    assert settle(desk, batch_id) == "submit_unknown"
    events = "SELECT count(*) FROM events WHERE kind = 'note' AND reason LIKE '%waits for a person%'"
    assert desk.scalar(events) == 1
    audit(desk, sandbox, over=False, strangers=[theirs])


def test_a_held_batch_settles_by_itself_once_its_candidate_has_ended(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    theirs = stranger(sandbox)
    assert settle(desk, batch_id) == "submit_unknown"
    assert desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = 'submit'") <= 300
    sandbox.advance(4000)
    assert settle(desk, batch_id) == "in_progress"
    assert desk.batch(batch_id).proved
    desk.work_until_over(run_id, hurry=True)
    assert desk.batch(batch_id).api_id != theirs
    audit(desk, sandbox, strangers=[theirs])


@pytest.mark.parametrize("fault", ["drop_after", "drop_before"])
def test_candidates_that_have_ended_are_proved_by_their_first_lines_before_anyone_is_asked(
    desk: DeskDriver, sandbox: Sandbox, fault: str
) -> None:
    desk.change(unknown_grace=900)
    run_id, batch_id = unknown(desk, sandbox, fault)
    theirs = [stranger(sandbox) for _ in range(3)]
    state = settle(desk, batch_id)
    assert not desk.status(run_id).held
    if fault == "drop_after":
        assert (state, desk.batch(batch_id).proved) == ("in_progress", True)
        assert desk.batch(batch_id).api_id not in theirs
    else:
        assert state == "submit_unknown"
        assert sorted(desk.scalar("SELECT ruled_out FROM submissions")) == sorted(theirs)
        assert desk.scalar("SELECT count(*) FROM events WHERE reason LIKE '%holds no line%' OR reason LIKE '%hold no%'")
        looked = len(desk.rows("SELECT id FROM events"))
        assert settle(desk, batch_id) == "submit_unknown"
        assert len(desk.rows("SELECT id FROM events")) == looked, "what is ruled out is not looked into again"
        desk.execute("UPDATE submissions SET ended_at = now() - interval '901 seconds'")
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox, strangers=theirs)


@pytest.mark.parametrize(
    ("faults", "proved"),
    [
        ("missing:5", False),  # no line at all
        ("missing:5+garbage:3", False),  # no line that can be read
        ("missing:5+unknown:1+truncate:150", False),  # a line of somebody, and the stream broke off
        ("truncate:3", False),
        ("500", False),
        ("404", False),
        ("unknown:3+garbage:2+blank+crlf", True),
    ],
)
def test_a_candidate_whose_lines_say_nothing_is_a_guess(
    desk: DeskDriver, sandbox: Sandbox, faults: str, proved: bool
) -> None:
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    sandbox.configure(results_faults=faults)
    assert settle(desk, batch_id) == "in_progress"
    assert desk.batch(batch_id).proved is proved
    assert desk.scalar("SELECT ruled_out FROM submissions") == []
    sandbox.configure(results_faults="")
    desk.work_until_over(run_id, hurry=True)
    assert desk.batch(batch_id).proved
    audit(desk, sandbox)


def test_what_came_long_after_the_post_is_no_candidate(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    sandbox.advance(3600)
    theirs = slow_stranger(sandbox)
    assert settle(desk, batch_id) == "planned"
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox, strangers=[theirs])


@pytest.mark.parametrize("seen", ["poll", "ingest"])
def test_a_guess_that_is_deleted_at_the_api_is_searched_on(desk: DeskDriver, sandbox: Sandbox, seen: str) -> None:
    desk.change(unknown_grace=900)
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    theirs = slow_stranger(sandbox)
    assert settle(desk, batch_id) == "in_progress"
    sandbox.advance(4000)
    desk.hurry()
    if seen == "ingest":
        desk.perform("poll", batch_id)
    sandbox.call("DELETE", f"/v1/messages/batches/{theirs}")
    desk.perform(seen, batch_id)
    assert (desk.batch(batch_id).state, desk.batch(batch_id).api_id) == ("submit_unknown", None)
    desk.execute("UPDATE submissions SET ended_at = now() - interval '901 seconds'")
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox, strangers=[theirs])


def test_a_guess_that_cannot_be_found_for_a_moment_stays(desk: DeskDriver, sandbox: Sandbox) -> None:
    """A GET that answers 404 once is asked again, and the key of another account proves nothing."""
    sandbox.configure(delay=3600)
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    assert settle(desk, batch_id) == "in_progress"
    sandbox.configure(retrieve_faults="404")
    right = desk.desk.gateway
    for gateway in (right, Gateway(api_key="ws:other:key", base_url=sandbox.url)):
        desk.desk.gateway = gateway
        desk.hurry()
        desk.perform("poll", batch_id)
        assert desk.batch(batch_id).state == "in_progress"
        assert desk.batch(batch_id).held
    desk.desk.gateway = right
    sandbox.advance(4000)
    desk.hurry()
    desk.perform("poll", batch_id)
    desk.work_until_over(run_id, hurry=True)
    assert len(sandbox.bill()["batches"]) == 1
    audit(desk, sandbox)


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
        verbs.cancel_run(tx, run_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.status(run_id).state == "cancelled"
    assert {row.status for row in desk.outputs(run_id)} == {ends}
    audit(desk, sandbox)


def test_a_batch_that_is_searched_again_is_no_longer_shown_as_held(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(unknown_grace=900)
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    theirs = [slow_stranger(sandbox), slow_stranger(sandbox)]
    settle(desk, batch_id)
    assert desk.status(run_id).held
    sandbox.advance(4000)
    for api_id in theirs:
        sandbox.call("DELETE", f"/v1/messages/batches/{api_id}")
    assert settle(desk, batch_id) == "submit_unknown"
    assert not desk.status(run_id).held
