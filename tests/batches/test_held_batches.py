"""What people decide about a batch whose POST is unknown: adopted, sent again, given up; and who comes second."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox
from support.unknown import settle, slow_stranger, stranger, unknown

from webapp import db, wishes
from webapp.batches import (
    holding,
    settling,
    strays,
    submission,
)
from webapp.batches.states import FailureClass
from webapp.errors import NotFound, Refused
from webapp.runs import verbs


def candidates(desk: DeskDriver, batch_id: int) -> list[str]:
    with db.transaction() as tx:
        return [one.api_id for one in holding.candidates(tx, desk.desk.settings, batch_id)]


def held(desk: DeskDriver, sandbox: Sandbox) -> tuple[int, int, str, str]:
    """A batch with two candidates, neither of which has ended: (run, batch, ours, theirs)."""
    sandbox.configure(delay=3600)
    run_id, batch_id = unknown(desk, sandbox, "drop_after")
    theirs = stranger(sandbox)
    assert settle(desk, batch_id) == "submit_unknown"
    assert desk.batch(batch_id).held
    (ours,) = {line["batch_id"] for line in sandbox.accepted()} - {theirs}
    assert sorted(candidates(desk, batch_id)) == sorted([ours, theirs])
    return run_id, batch_id, ours, theirs


VERBS: dict[str, Callable[[int, str], None]] = {
    "adopt": lambda batch_id, api_id: wishes.ask_adopt(batch_id, api_id, actor="tester"),
    "resend": lambda batch_id, _: wishes.ask_resend(batch_id, actor="tester"),
    "abandon": lambda batch_id, _: wishes.ask_abandon(batch_id, actor="tester"),
}


def test_the_right_one_is_adopted_as_a_guess_and_proved_by_its_lines(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    wishes.ask_adopt(batch_id, ours, actor="tester")
    batch = desk.batch(batch_id)
    assert (batch.state, batch.api_id, batch.proved, batch.held) == ("in_progress", ours, False, False)
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    assert desk.batch(batch_id).proved
    assert desk.summary(run_id).succeeded == 5
    assert desk.scalar("SELECT count(*) FROM events WHERE actor = 'tester' AND kind = 'wish' AND reason LIKE 'Taken%'")
    audit(desk, sandbox, strangers=[theirs])


def test_the_wrong_one_is_disproved_and_the_right_one_found(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    wishes.ask_adopt(batch_id, theirs, actor="tester")
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    assert desk.batch(batch_id).api_id == ours
    assert desk.summary(run_id).succeeded == 5
    assert {batch["total"]["requests"] for batch in sandbox.bill()["batches"]} == {5}
    audit(desk, sandbox, strangers=[theirs])


def test_a_guess_is_taken_back_beside_another_unknown_post_of_its_total(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(unknown_grace=900)
    first, batch_id = unknown(desk, sandbox, "drop_before")
    theirs = slow_stranger(sandbox)
    assert settle(desk, batch_id) == "in_progress"
    second, other_id = unknown(desk, sandbox, "drop_before")
    sandbox.advance(4000)
    desk.hurry()
    desk.perform("poll", batch_id)
    desk.perform("ingest", batch_id)
    assert [desk.batch(one).state for one in (batch_id, other_id)] == ["submit_unknown", "submit_unknown"]
    assert desk.scalar("SELECT count(*) FROM steps WHERE error IS NOT NULL") == 0
    desk.execute("UPDATE submissions SET ended_at = now() - interval '901 seconds'")
    for run_id in (first, second):
        desk.work_until_over(run_id, hurry=True)
        assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox, strangers=[theirs])


def test_what_another_batch_holds_by_a_guess_is_not_taken_for_absent(desk: DeskDriver, sandbox: Sandbox) -> None:
    """The first one's real batch is taken for the second's; it must not be sent again before that is disproved."""
    sandbox.configure(delay=7200)
    first, batch_id = unknown(desk, sandbox, "drop_after")
    theirs = slow_stranger(sandbox)
    assert settle(desk, batch_id) == "submit_unknown"
    ours = next(line["batch_id"] for line in sandbox.accepted() if line["batch_id"] != theirs)
    wishes.ask_adopt(batch_id, theirs, actor="tester")
    desk.change(unknown_grace=900)
    second, other_id = unknown(desk, sandbox, "drop_before")
    assert settle(desk, other_id) == "in_progress"
    assert desk.batch(other_id).api_id == ours
    sandbox.advance(4000)
    desk.hurry()
    desk.perform("poll", batch_id)
    desk.perform("ingest", batch_id)
    later = "{0} = {0} - interval '901 seconds'"
    desk.execute(f"UPDATE submissions SET {later.format('intent_at')}, {later.format('ended_at')}")
    assert settle(desk, batch_id) == "submit_unknown"
    assert desk.batch(batch_id).reason == (
        f"The API's list shows no other that it may be than the one that batch {other_id} was taken for. It waits "
        "until the results of that one tell whose it is."
    )
    sandbox.advance(4000)
    for run_id in (first, second):
        desk.work_until_over(run_id, hurry=True)
        assert desk.summary(run_id).succeeded == 5
    assert desk.batch(batch_id).api_id == ours
    audit(desk, sandbox, strangers=[theirs])


def test_what_is_no_candidate_cannot_be_adopted(desk: DeskDriver, sandbox: Sandbox) -> None:
    _, batch_id, _, _ = held(desk, sandbox)
    other = slow_stranger(sandbox, 4)
    for api_id in (other, "msgbatch_nowhere", ""):
        with pytest.raises(Refused, match="among the batches of the API"):
            wishes.ask_adopt(batch_id, api_id, actor="tester")
    assert desk.batch(batch_id).state == "submit_unknown"


def test_sent_again_it_goes_out_once_more_and_frees_its_total(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    desk.change(unknown_grace=900)
    other_run = desk.start(documents(5))
    desk.perform("plan", other_run)
    wishes.ask_resend(batch_id, actor="tester")
    assert desk.batch(batch_id).state == "planned"
    assert desk.rows("SELECT 1 FROM submissions WHERE outcome IS NULL OR outcome = 'unknown'") == []
    for one in (run_id, other_run):
        desk.work_until_over(one, hurry=True)
        assert desk.summary(one).succeeded == 5
    audit(desk, sandbox)


def test_sent_again_though_it_was_there_pays_twice_and_stores_once(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    sandbox.configure(delay=0)
    wishes.ask_resend(batch_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.batch(batch_id).api_id not in (ours, theirs)
    assert desk.scalar("SELECT count(*) FROM results") == 5
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 5
    audit(desk, sandbox, strangers=[ours, theirs])


def test_given_up_its_requests_end_and_can_be_sent_again_by_hand(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    sandbox.configure(delay=0)
    wishes.ask_abandon(batch_id, actor="tester")
    assert desk.status(run_id).state == "finished"
    assert desk.batch(batch_id).state == "failed"
    assert desk.rows("SELECT DISTINCT state, failure_class FROM requests") == [("errored", "stopped")]
    assert "Given up by tester" in (desk.outputs(run_id)[0].error or "")
    wishes.ask_resubmit(run_id, [FailureClass.STOPPED], actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox, strangers=[ours, theirs])


@pytest.mark.parametrize("first", VERBS)
@pytest.mark.parametrize("second", VERBS)
def test_a_second_click_changes_nothing(desk: DeskDriver, sandbox: Sandbox, first: str, second: str) -> None:
    _, batch_id, ours, _ = held(desk, sandbox)
    VERBS[first](batch_id, ours)
    stands, posts = desk.batch(batch_id), desk.rows("SELECT * FROM submissions")
    with pytest.raises(Refused, match="waits for no decision any more"):
        VERBS[second](batch_id, ours)
    assert (desk.batch(batch_id), desk.rows("SELECT * FROM submissions")) == (stands, posts)


@pytest.mark.parametrize("verb", VERBS)
def test_what_waits_for_no_decision_gets_none(desk: DeskDriver, sandbox: Sandbox, verb: str) -> None:
    run_id = desk.run(documents(3))
    with pytest.raises(Refused):
        VERBS[verb](desk.scalar("SELECT id FROM batches WHERE run_id = :id", id=run_id), "msgbatch_x")
    with pytest.raises(NotFound):
        VERBS[verb](999, "msgbatch_x")


@pytest.mark.parametrize("verb", VERBS)
def test_a_decision_before_the_search_has_ended_its_look_stands(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The search has read the list, and a person decides before it adopts."""
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    sandbox.advance(4000)  # the search will find ours proved
    look_into = settling.look_into

    def decided(*arguments: object) -> object:
        monkeypatch.setattr(settling, "look_into", look_into)
        VERBS[verb](batch_id, ours)
        return look_into(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(settling, "look_into", decided)
    desk.hurry()
    desk.perform("submit", batch_id)
    expected = {"adopt": "in_progress", "resend": "planned", "abandon": "failed"}[verb]
    assert desk.batch(batch_id).state == expected
    sandbox.configure(delay=0)
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox, strangers=[theirs] if verb == "adopt" else [ours, theirs])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("sent_again", [False, True])
def test_a_late_answer_of_the_first_post_loses_and_doubles_nothing(
    desk: DeskDriver, sandbox: Sandbox, verb: str, sent_again: bool
) -> None:
    """The worker was taken for dead and comes with the API's id after a person has decided."""
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    batch = desk.batch(batch_id)
    first = desk.scalar("SELECT id FROM submissions")
    created = desk.desk.gateway.retrieve(ours)
    VERBS[verb](batch_id, theirs)
    if sent_again:
        desk.hurry()
        desk.perform("submit", batch_id)
    post = submission.Sending(batch_id, run_id, batch.account_id, first, 5, batch.body_bytes, armed=True)
    submission._record(desk.desk, post, created)
    (kept,) = desk.rows("SELECT outcome, api_id FROM submissions WHERE id = :id", id=first)
    assert kept == ("created", ours), "an id in hand is always recorded"
    taken = verb == "adopt" or (verb == "resend" and not sent_again)
    at_api = sandbox.call("GET", f"/v1/messages/batches/{ours}")
    assert (at_api["processing_status"] == "in_progress") == taken, "what nobody waits for is cancelled"
    assert (desk.batch(batch_id).api_id == ours) == taken
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == (0 if verb == "abandon" else 5)
    told = "SELECT count(*) FROM events WHERE reason LIKE 'The API also created batch%'"
    assert desk.scalar(told) == (0 if taken else 1)
    audit(desk, sandbox, strangers=[theirs] if taken else [ours, theirs])


def test_a_late_answer_never_takes_the_place_of_a_batch_whose_results_come_in(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    sandbox.configure(delay=0)
    first = desk.scalar("SELECT id FROM submissions")
    wishes.ask_resend(batch_id, actor="tester")
    desk.perform_until("ingesting")
    second = desk.batch(batch_id).api_id
    with db.transaction() as tx:
        kept = settling.record_created(tx, batch_id, first, desk.desk.gateway.retrieve(ours), actor="submit")
    assert not kept
    assert (desk.batch(batch_id).state, desk.batch(batch_id).api_id) == ("ingesting", second)
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox, strangers=[ours, theirs])


def test_a_guess_that_gives_way_while_its_lines_are_read_is_not_disproved_for_its_successor(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The late answer of its own POST comes between the stranger's last line and the verdict on it."""
    from webapp.batches import ingestion

    run_id, batch_id, ours, theirs = held(desk, sandbox)
    first = desk.scalar("SELECT id FROM submissions")
    wishes.ask_adopt(batch_id, theirs, actor="tester")
    created = desk.desk.gateway.retrieve(ours)
    sandbox.advance(4000)
    close = ingestion._close

    def late(*arguments: object) -> object:
        monkeypatch.setattr(ingestion, "_close", close)
        with db.transaction() as tx:
            assert settling.record_created(tx, batch_id, first, created, actor="submit")
        return close(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ingestion, "_close", late)
    desk.hurry()
    desk.perform("poll", batch_id)
    desk.perform("ingest", batch_id)
    assert (desk.batch(batch_id).state, desk.batch(batch_id).api_id) == ("in_progress", ours)
    assert desk.rows("SELECT outcome, api_id, ruled_out FROM submissions") == [("created", ours, [])]
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox, strangers=[theirs])


def test_a_guess_that_was_cancelled_and_gives_way_has_its_successor_cancelled(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    first = desk.scalar("SELECT id FROM submissions")
    wishes.ask_adopt(batch_id, theirs, actor="tester")
    with db.transaction() as tx:
        verbs.cancel_batch(tx, batch_id, actor="tester", unproved=True)
    sandbox.configure(cancel_delay=3600)
    desk.hurry()
    desk.perform("poll", batch_id)
    assert desk.batch(batch_id).state == "in_progress" or desk.batch(batch_id).state == "canceling"
    with db.transaction() as tx:
        settling.record_created(tx, batch_id, first, desk.desk.gateway.retrieve(ours), actor="submit")
    desk.hurry()
    desk.perform("poll", batch_id)
    assert sandbox.call("GET", f"/v1/messages/batches/{ours}")["processing_status"] != "in_progress"
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox, strangers=[theirs])


# -- strays ----------------------------------------------------------------------------------------------------


def shown(desk: DeskDriver) -> list[str]:
    return [row.api_id for row in desk.rows(f"SELECT t.api_id FROM strays t WHERE {strays.IS_STRAY} ORDER BY 1")]


def look(desk: DeskDriver) -> None:
    wishes.ask_look(actor="tester")
    desk.perform("look", desk.scalar("SELECT id FROM accounts"))


def test_batches_of_the_api_that_no_row_knows_are_strays(desk: DeskDriver, sandbox: Sandbox) -> None:
    with pytest.raises(Refused, match="Nothing has been sent"):
        wishes.ask_look(actor="tester")
    desk.run(documents(3))
    theirs = [stranger(sandbox, 2), stranger(sandbox, 7)]
    assert shown(desk) == []
    look(desk)
    assert shown(desk) == sorted(theirs)
    (row,) = desk.rows("SELECT * FROM strays WHERE api_id = :id", id=theirs[0])
    assert (row.total, row.processing_status, row.api_counts["succeeded"]) == (2, "ended", 2)
    sandbox.call("DELETE", f"/v1/messages/batches/{theirs[0]}")
    look(desk)
    assert desk.scalar("SELECT array_agg(api_id) FROM strays") == theirs[1:]
    sandbox.advance(31 * 86_400)
    look(desk)
    assert shown(desk) == []


def test_a_stray_that_becomes_ours_is_none_any_more(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id, batch_id, ours, theirs = held(desk, sandbox)
    assert shown(desk) == sorted([ours, theirs])
    wishes.ask_adopt(batch_id, ours, actor="tester")
    assert shown(desk) == [theirs]
    look(desk)
    assert desk.scalar("SELECT array_agg(api_id) FROM strays") == [theirs]
    wishes.ask_cancel_run(run_id, actor="tester")


def test_a_list_that_breaks_off_takes_no_stray_away(desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.run(documents(3))
    theirs = stranger(sandbox)
    look(desk)
    sandbox.configure(list_faults="ok,500")
    look(desk)
    assert shown(desk) == [theirs]
    assert desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = 'look'") <= 60


def test_polling_looks_for_strays_once_an_hour(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    desk.start(documents(3))
    batch_id = desk.perform_until("in_progress")
    theirs = stranger(sandbox)

    def poll() -> int:
        desk.hurry()
        desk.perform("poll", batch_id)
        return int(desk.scalar("SELECT count(*) FROM steps WHERE step = 'look'"))

    assert poll() == 0
    desk.execute("UPDATE accounts SET looked_at = now() - interval '61 minutes'")
    assert poll() == 1
    desk.perform("look", desk.scalar("SELECT id FROM accounts"))
    assert shown(desk) == [theirs]
    assert poll() == 0


def test_the_key_of_another_account_takes_no_stray_away(desk: DeskDriver, sandbox: Sandbox) -> None:
    from webapp.gateway import Gateway

    desk.run(documents(3))
    theirs = stranger(sandbox)
    look(desk)
    account = desk.scalar("SELECT id FROM accounts")
    desk.desk.gateway = Gateway(api_key="ws:other:key", base_url=sandbox.url)
    wishes.ask_look(actor="tester")
    desk.perform("look", account)
    assert shown(desk) == [theirs]
