"""Batches whose POST is unknown, adoptions that nothing has proved, strays and pauses, as people meet them."""

from __future__ import annotations

import re
from html import unescape

import pytest
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox
from support.unknown import settle, slow_stranger, stranger, unknown
from support.visitor import Visitor


@pytest.fixture
def held(desk: DeskDriver, sandbox: Sandbox) -> int:
    """A batch that two batches of the API may be, neither of which has ended; its id."""
    sandbox.configure(delay=3600)
    _, batch_id = unknown(desk, sandbox, "drop_after")
    stranger(sandbox)
    assert settle(desk, batch_id) == "submit_unknown"
    return batch_id


@pytest.fixture
def guessed(desk: DeskDriver, sandbox: Sandbox) -> tuple[int, int, str]:
    """A batch of a stranger's, adopted as a guess: (run, batch, its id at the API)."""
    run_id, batch_id = unknown(desk, sandbox, "drop_before")
    theirs = slow_stranger(sandbox)
    assert settle(desk, batch_id) == "in_progress"
    assert not desk.batch(batch_id).proved
    return run_id, batch_id, theirs


def api_ids(sandbox: Sandbox) -> set[str]:
    return {line["batch_id"] for line in sandbox.accepted()}


def words(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def poll(desk: DeskDriver, batch_id: int) -> None:
    desk.hurry()
    desk.perform("poll", batch_id)


def test_the_page_offers_what_the_last_list_showed_without_asking_the_api(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox, held: int
) -> None:
    sandbox.configure(list_faults="500*", retrieve_faults="500*")
    page = operator.get(f"/batches/{held}/")
    for api_id in api_ids(sandbox):
        assert f"/batches/{held}/adopt?api_id={api_id}" in page
    assert f"/batches/{held}/resend" in page and f"/batches/{held}/abandon" in page


def test_each_decision_says_first_what_it_may_cost(operator: Visitor, desk: DeskDriver, held: int) -> None:
    chosen = re.search(r"adopt\?api_id=(\w+)", operator.get(f"/batches/{held}/"))
    assert chosen
    adopt = words(operator.get(f"/batches/{held}/adopt?api_id={chosen[1]}"))
    assert chosen[1] in adopt and "as a guess" in adopt and "costs nothing" in adopt
    resend = words(operator.get(f"/batches/{held}/resend"))
    assert "up to 5 requests are paid twice" in resend and "2 batches there may be this one" in resend
    abandon = words(operator.get(f"/batches/{held}/abandon"))
    assert "errored, class stopped" in abandon and "paid for and not read" in abandon
    assert "still being looked for" not in resend + abandon
    assert desk.batch(held).state == "submit_unknown"


def test_what_is_still_searched_for_is_decided_with_the_stronger_warning(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox
) -> None:
    desk.change(unknown_grace=900)
    _, batch_id = unknown(desk, sandbox, "drop_before")
    for verb in ("resend", "abandon"):
        assert "It is still being looked for" in words(operator.get(f"/batches/{batch_id}/{verb}"))
    assert "is sent again" in operator.post(f"/batches/{batch_id}/resend")
    assert desk.batch(batch_id).state == "planned"


@pytest.mark.parametrize(("verb", "state"), [("adopt", "in_progress"), ("resend", "planned"), ("abandon", "failed")])
def test_a_decision_is_carried_out_once_and_bears_the_name_of_whoever_made_it(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox, held: int, verb: str, state: str
) -> None:
    api_id = sorted(api_ids(sandbox))[0]
    operator.post(f"/batches/{held}/{verb}", api_id=api_id)
    assert desk.batch(held).state == state
    moved = "SELECT actor FROM events WHERE kind = 'move' AND to_state = :state ORDER BY id DESC LIMIT 1"
    assert desk.scalar(moved, state=state) == "operator@desk.example"
    assert "waits for no decision any more" in unescape(operator.post(f"/batches/{held}/{verb}", api_id=api_id))


def test_nothing_foreign_can_be_adopted_by_its_name(operator: Visitor, desk: DeskDriver, held: int) -> None:
    page = operator.get(f"/batches/{held}/adopt?api_id=<script>alert(1)</script>")
    assert "<script>alert" not in page and "no longer" in page
    assert "among the batches of the API" in operator.post(f"/batches/{held}/adopt", api_id="<b>")
    assert desk.batch(held).state == "submit_unknown"


def test_cancelling_a_guess_waits_for_its_proof_and_says_so(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox, guessed: tuple[int, int, str]
) -> None:
    run_id, batch_id, theirs = guessed
    for path in (f"/runs/{run_id}/cancel", f"/batches/{batch_id}/cancel"):
        page = operator.get(path)
        assert "somebody else" in page and 'name="unproved"' in page, path
    operator.post(f"/runs/{run_id}/cancel")
    poll(desk, batch_id)
    assert sandbox.call("GET", f"/v1/messages/batches/{theirs}")["processing_status"] == "in_progress"
    for path in (f"/runs/{run_id}/", f"/batches/{batch_id}/"):
        page = operator.get(path)
        assert "stop somebody else" in unescape(page) and "Cancel all the same" in page, path
    assert "not proved to be ours" in desk.batch(batch_id).reason
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    assert desk.status(run_id).state == "cancelled"
    assert desk.summary(run_id).stopped == 5
    assert sandbox.call("GET", f"/v1/messages/batches/{theirs}")["request_counts"]["succeeded"] == 5


@pytest.mark.parametrize("of", ["runs", "batches"])
@pytest.mark.parametrize("asked_before", [False, True])
def test_a_guess_is_cancelled_all_the_same_when_that_is_confirmed(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox, guessed: tuple[int, int, str], of: str, asked_before: bool
) -> None:
    run_id, batch_id, theirs = guessed
    path = f"/{of}/{run_id if of == 'runs' else batch_id}/cancel"
    if asked_before:
        operator.post(path)
        poll(desk, batch_id)
    operator.post(path, unproved="1")
    poll(desk, batch_id)
    assert sandbox.call("GET", f"/v1/messages/batches/{theirs}")["processing_status"] != "in_progress"
    assert desk.scalar("SELECT count(*) FROM events WHERE reason LIKE 'Cancel asked for. Also where it is not proved%'")
    assert "Cancel all the same" not in operator.get(f"/batches/{batch_id}/")


def test_a_proved_batch_asks_for_no_tick(operator: Visitor, desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(delay=3600)
    run_id = desk.start(documents(3))
    batch_id = desk.perform_until("in_progress")
    for path in (f"/runs/{run_id}/cancel", f"/batches/{batch_id}/cancel"):
        assert 'name="unproved"' not in operator.get(path)


def test_strays_are_listed_with_what_they_are_and_home_names_their_count(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox, held: int
) -> None:
    other_program = stranger(sandbox, 7)
    sandbox.advance(4000)
    assert "2 batches at the API" in words(operator.get("/"))  # what the search has seen
    page = operator.post("/strays/look")
    assert "is being looked through now" in page
    desk.perform("look", desk.scalar("SELECT id FROM accounts"))
    page = operator.get("/strays/")
    assert all(api_id in page for api_id in api_ids(sandbox))
    assert f"May be batch {held}, which is being looked for." in page
    assert page.count("nothing was sent from here at that time") == 1 and other_program in page
    settle(desk, held)
    page = operator.get("/strays/")
    assert desk.batch(held).api_id not in page
    sandbox.call("DELETE", f"/v1/messages/batches/{other_program}")
    operator.post("/strays/look")
    desk.perform("look", desk.scalar("SELECT id FROM accounts"))
    assert other_program not in operator.get("/strays/")


def test_a_stray_that_was_read_tells_whose_it_is(operator: Visitor, desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(unknown_grace=900)
    _, batch_id = unknown(desk, sandbox, "drop_before")
    stranger(sandbox)
    theirs = {
        "requests": [
            {
                "custom_id": f"{n}-abcdefghijklmnop-1",
                "params": {
                    "model": "claude-haiku-4-5",
                    "max_tokens": 9,
                    "messages": [{"role": "user", "content": "?"}],
                },
            }
            for n in range(5)
        ]
    }
    sandbox.call("POST", "/v1/messages/batches", theirs)
    settle(desk, batch_id)
    page = operator.get("/strays/")
    assert "its results carry ids such as theirs-" in page
    assert "Another installation&#39;s of Batchdesk" in page


def test_one_that_was_given_up_is_a_stray_of_ours(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox, held: int
) -> None:
    operator.post(f"/batches/{held}/abandon")
    assert operator.get("/strays/").count(f"of a POST of batch {held}.") == 2


def test_looking_where_nothing_was_ever_sent_says_so(operator: Visitor) -> None:
    assert "No strays" in operator.get("/strays/")
    assert "there is no account" in operator.post("/strays/look")


def test_a_run_is_paused_and_resumed_by_a_person(operator: Visitor, desk: DeskDriver, sandbox: Sandbox) -> None:
    desk.change(batch_max_requests=5)
    sandbox.configure(delay=3600)
    run_id = desk.start(documents(9))
    desk.perform("plan", run_id)
    first, second = (row.id for row in desk.rows("SELECT id FROM batches ORDER BY id"))
    desk.perform("submit", first)
    page = words(operator.get(f"/runs/{run_id}/pause"))
    assert "1 batch with 4 requests not yet sent" in page and "1 batch with 5 requests at the API: they go on" in page
    assert desk.status(run_id).state == "running"

    page = operator.post(f"/runs/{run_id}/pause")
    assert "Paused by operator@desk.example." in page and "/pause" not in page
    assert "is paused already" in operator.post(f"/runs/{run_id}/pause")
    sandbox.advance(4000)
    for _ in range(4):
        desk.hurry()
        desk.perform_due()
    assert [desk.batch(one).state for one in (first, second)] == ["done", "planned"]

    page = operator.get(f"/runs/{run_id}/")
    assert f'action="/runs/{run_id}/resume"' in page, "resuming asks nothing more"
    assert f"Run {run_id} goes on." in operator.post(f"/runs/{run_id}/resume")
    sandbox.configure(delay=0)
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 9
