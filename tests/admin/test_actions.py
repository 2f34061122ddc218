"""What people do with runs and batches: asked first, done once, said afterwards, and by whom."""

from __future__ import annotations

import re
from html import unescape

import pytest
from support.desk import DeskDriver, documents
from support.sandbox import SandboxProcess
from support.visitor import Visitor

from webapp import db
from webapp.admin.runs import resubmittable
from webapp.batches import runs
from webapp.batches.states import FailureClass, RunState, move_run


@pytest.fixture
def under_way(desk: DeskDriver, sandbox: SandboxProcess) -> int:
    """A run of three documents whose batch is at the API and stays there."""
    sandbox.configure(delay=3600)
    run_id = desk.start(documents(3))
    for _ in range(3):
        desk.perform_due()
    assert [row.state for row in desk.rows("SELECT state FROM batches")] == ["in_progress"]
    return run_id


@pytest.fixture
def failed_run(desk: DeskDriver, sandbox: SandboxProcess) -> int:
    """A run of which some failed for good, by a fault of theirs."""
    sandbox.configure(invalid_share=0.5)
    run_id = desk.run(documents(40))
    sandbox.configure(invalid_share=0)
    return run_id


def test_cancelling_a_run_says_what_it_means_and_then_does_it(
    operator: Visitor, desk: DeskDriver, under_way: int
) -> None:
    page = operator.get(f"/runs/{under_way}/cancel")
    assert "1 batch with 3 requests" in page and "billed, comes in, and is kept" in page
    assert desk.scalar("SELECT cancel_wanted_at FROM runs") is None

    page = operator.post(f"/runs/{under_way}/cancel")
    assert f"Run {under_way} is being cancelled." in page
    assert desk.scalar("SELECT cancel_wanted_at FROM runs") is not None
    assert desk.work_until_over(under_way).state == RunState.CANCELLED
    actor = desk.scalar("SELECT actor FROM events WHERE reason = 'Cancel asked for.'")
    assert actor == "operator@desk.example"


def test_cancelling_a_batch_leaves_the_run(operator: Visitor, desk: DeskDriver, under_way: int) -> None:
    batch_id = desk.scalar("SELECT id FROM batches")
    assert "3 requests" in operator.get(f"/batches/{batch_id}/cancel")

    assert f"Batch {batch_id} is being cancelled." in operator.post(f"/batches/{batch_id}/cancel")
    desk.work_until_over(under_way)
    assert desk.scalar("SELECT cancel_wanted_at FROM runs") is None
    assert desk.scalar("SELECT state FROM batches WHERE id = :id", id=batch_id) == "done"


def test_cancelling_an_unproved_batch_warns_that_it_may_be_a_strangers(
    operator: Visitor, desk: DeskDriver, under_way: int
) -> None:
    with db.transaction() as tx:
        db.run(tx, "UPDATE batches SET proved = false")

    batch_id = desk.scalar("SELECT id FROM batches")
    for path in (f"/runs/{under_way}/cancel", f"/batches/{batch_id}/cancel"):
        assert "somebody else" in operator.get(path)


def test_poll_now_makes_the_step_due(operator: Visitor, desk: DeskDriver, under_way: int) -> None:
    batch_id = desk.scalar("SELECT id FROM batches")
    with db.transaction() as tx:
        db.run(tx, "UPDATE steps SET due_at = now() + interval '1 hour' WHERE step = 'poll'")

    assert "is being looked at now" in operator.post(f"/batches/{batch_id}/poll")
    assert desk.scalar("SELECT due_at <= now() FROM steps WHERE step = 'poll'")


def test_results_are_fetched_again_by_a_button_that_says_what_it_does(
    operator: Visitor, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    sandbox.configure(results_faults="missing:2*2")
    run_id = desk.run(documents(5))
    assert desk.summary(run_id).missing == 2
    assert "/batches/1/refetch" in operator.get("/batches/1/")
    page = operator.get("/batches/1/refetch")
    assert "Nothing is sent, and nothing is paid for it" in page and "2 answers" in page
    assert desk.batch(1).state == "done"

    assert "The results of batch 1 are fetched once more." in operator.post("/batches/1/refetch")
    assert "/batches/1/refetch" not in operator.get("/batches/1/")
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 5
    assert "Fetched again: 2 results that had not been stored." in operator.get("/batches/1/")
    assert "operator@desk.example" in operator.get("/batches/1/")


def test_resubmitting_sends_the_ticked_classes_again(operator: Visitor, desk: DeskDriver, failed_run: int) -> None:
    failed = desk.summary(failed_run).errored
    assert failed
    page = operator.get(f"/runs/{failed_run}/resubmit")
    assert f"{failed} failure" in page and 'value="fix"' in page

    page = operator.post(f"/runs/{failed_run}/resubmit", **{"class": ["fix"]})
    assert re.search(rf"{failed} failures? of run {failed_run} goe?s? out again", page)
    desk.work_until_over(failed_run)
    assert desk.summary(failed_run).succeeded == 40
    assert "operator@desk.example" in operator.get(f"/runs/{failed_run}/")


def test_resubmitting_nothing_says_so(operator: Visitor, desk: DeskDriver, failed_run: int) -> None:
    events = desk.scalar("SELECT count(*) FROM events")

    assert "nothing was sent again" in operator.post(f"/runs/{failed_run}/resubmit")
    assert "no failure of these classes" in operator.post(f"/runs/{failed_run}/resubmit", **{"class": ["account"]})
    assert "nothing was sent again" in operator.post(f"/runs/{failed_run}/resubmit", **{"class": ["no such class"]})
    assert desk.scalar("SELECT count(*) FROM events") == events


def test_the_page_counts_what_the_domain_would_send(desk: DeskDriver, failed_run: int) -> None:
    with db.transaction() as tx:
        counts = resubmittable(tx, failed_run)
        for failure in FailureClass:
            assert counts.get(failure.value, 0) == runs.resubmittable(tx, failed_run, [failure])
    assert counts


def test_resuming_a_paused_run_tells_why_it_was_paused(operator: Visitor, desk: DeskDriver, under_way: int) -> None:
    with db.transaction() as tx:
        move_run(tx, under_way, RunState.PAUSED, actor="submit", reason="The credit is used up.")
    assert "The credit is used up." in operator.get(f"/runs/{under_way}/resume")

    assert f"Run {under_way} goes on." in operator.post(f"/runs/{under_way}/resume")
    assert desk.status(under_way).state == RunState.RUNNING


def test_what_is_not_possible_any_more_is_said_in_a_sentence(
    operator: Visitor, desk: DeskDriver, failed_run: int
) -> None:
    assert "there is nothing to cancel" in operator.post(f"/runs/{failed_run}/cancel")
    assert "not paused" in operator.post(f"/runs/{failed_run}/resume")
    assert "there is nothing to cancel" in operator.post("/batches/1/cancel")
    assert "there is nothing to ask the API" in operator.post("/batches/1/poll")
    desk.execute("UPDATE batches SET state = 'failed'")
    assert "nothing to fetch once more" in operator.get("/batches/1/refetch")
    assert "nothing to fetch once more" in operator.post("/batches/1/refetch")


def test_after_an_action_the_filters_are_still_there(operator: Visitor, desk: DeskDriver, under_way: int) -> None:
    listed = operator.get("/batches/?state=in_progress&run=1")
    back = unescape(re.search(r'name="back" value="([^"]+)"', listed)[1])  # type: ignore[index]
    assert back == "/batches/?state=in_progress&run=1"

    response = operator.send("/batches/1/poll", back=back)
    assert response.headers["Location"] == back


def test_an_action_never_leads_elsewhere(operator: Visitor, desk: DeskDriver, under_way: int) -> None:
    for back in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "/a\r\nb: c"):
        response = operator.send("/batches/1/poll", back=back)
        assert response.headers["Location"] == "/batches/1/", back


def test_an_action_on_what_does_not_exist_is_not_found(operator: Visitor) -> None:
    response = operator.send("/runs/999/cancel")
    assert response.status_code == 404
    assert "There is no run 999." in response.text
