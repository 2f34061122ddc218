"""Cancel and pause meet a batch in each state: nothing is lost, nothing paid twice, nothing new is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox
from support.unknown import settle, slow_stranger, stranger, unknown

from webapp import db
from webapp.batches import submission
from webapp.errors import Refused
from webapp.runs import verbs

HOUR = 3600

Wish = Callable[[DeskDriver, int], None]


def cancel_run(desk: DeskDriver, run_id: int) -> None:
    with db.transaction() as tx:
        verbs.cancel_run(tx, run_id, actor="tester")


def cancel_batch(desk: DeskDriver, run_id: int) -> None:
    batch_id = desk.scalar("SELECT id FROM batches WHERE run_id = :id", id=run_id)
    with db.transaction() as tx:
        verbs.cancel_batch(tx, batch_id, actor="tester")


def pause(desk: DeskDriver, run_id: int) -> None:
    with db.transaction() as tx:
        verbs.pause(tx, run_id, actor="tester")


WISHES: dict[str, Wish] = {"cancel run": cancel_run, "cancel batch": cancel_batch, "pause": pause}


class Scene:
    """One batch of five requests, brought to a moment; the wish comes then, or in the middle of a POST."""

    def __init__(self, desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, wish: Wish) -> None:
        self.desk, self.sandbox, self.monkeypatch, self.wish = desk, sandbox, monkeypatch, wish
        self.strangers: list[str] = []
        self.run_id = 0

    @property
    def batch(self) -> Any:
        (found,) = self.desk.rows("SELECT * FROM batches WHERE run_id = :id", id=self.run_id)
        return found

    def planned(self) -> None:
        self.run_id = self.desk.start(documents(5))
        self.desk.perform("plan", self.run_id)
        self.wish(self.desk, self.run_id)

    def _in_the_post(self, *, armed: bool) -> None:
        self.run_id = self.desk.start(documents(5))
        self.desk.perform("plan", self.run_id)
        arm = submission._arm

        def wished(*arguments: Any) -> None:
            self.monkeypatch.setattr(submission, "_arm", arm)
            if armed:
                arm(*arguments)
            self.wish(self.desk, self.run_id)
            if not armed:
                arm(*arguments)

        self.monkeypatch.setattr(submission, "_arm", wished)
        self.sandbox.configure(delay=HOUR, canceled_share=0.5)
        self.desk.perform("submit", self.batch.id)
        assert self.batch.state == ("in_progress" if armed else "planned")

    def submitting(self) -> None:
        self._in_the_post(armed=False)

    def armed(self) -> None:
        self._in_the_post(armed=True)

    def unknown_without_a_candidate(self) -> None:
        self.run_id, _ = unknown(self.desk, self.sandbox, "drop_before")
        self.wish(self.desk, self.run_id)

    def unknown_with_one_candidate(self) -> None:
        self.sandbox.configure(delay=HOUR)
        self.run_id, _ = unknown(self.desk, self.sandbox, "drop_after")
        self.wish(self.desk, self.run_id)

    def unknown_with_several_candidates(self) -> None:
        self.sandbox.configure(delay=HOUR)
        self.run_id, batch_id = unknown(self.desk, self.sandbox, "drop_after")
        self.strangers += [stranger(self.sandbox), stranger(self.sandbox)]
        assert settle(self.desk, batch_id) == "submit_unknown"
        assert self.batch.held
        self.wish(self.desk, self.run_id)

    def in_progress(self) -> None:
        self.sandbox.configure(delay=HOUR, canceled_share=0.5)
        self.run_id = self.desk.start(documents(5))
        self.desk.perform_until("in_progress")
        self.wish(self.desk, self.run_id)

    def unproved(self) -> None:
        self.sandbox.configure(delay=HOUR)
        self.run_id, batch_id = unknown(self.desk, self.sandbox, "drop_after")
        assert settle(self.desk, batch_id) == "in_progress"
        assert not self.batch.proved
        self.wish(self.desk, self.run_id)

    def a_strangers(self) -> None:
        self.run_id, batch_id = unknown(self.desk, self.sandbox, "drop_before")
        self.strangers.append(slow_stranger(self.sandbox))
        assert settle(self.desk, batch_id) == "in_progress"
        self.wish(self.desk, self.run_id)

    def canceling(self) -> None:
        self.sandbox.configure(delay=HOUR, cancel_delay=HOUR, canceled_share=0.5)
        self.run_id = self.desk.start(documents(5))
        batch_id = self.desk.perform_until("in_progress")
        cancel_batch(self.desk, self.run_id)
        self.desk.hurry()
        self.desk.perform("poll", batch_id)
        assert self.batch.state == "canceling"
        self.wish(self.desk, self.run_id)

    def ingesting(self) -> None:
        self.run_id = self.desk.start(documents(5))
        self.desk.perform_until("ingesting")
        self.wish(self.desk, self.run_id)

    def go_on(self, turns: int = 12) -> None:
        for _ in range(turns):
            self.desk.hurry()
            self.desk.perform_due()

    def statuses(self) -> set[str]:
        return {row.status for row in self.desk.outputs(self.run_id)}


# Moment: what a cancel leaves of the requests (None: there is nothing to cancel for a batch any more).
MOMENTS: dict[str, set[str]] = {
    "planned": {"stopped"},
    "submitting": {"stopped"},
    "armed": {"succeeded", "canceled"},
    "unknown_without_a_candidate": {"stopped"},
    "unknown_with_one_candidate": {"succeeded"},  # not proved before it ends
    "unknown_with_several_candidates": {"succeeded"},
    "in_progress": {"succeeded", "canceled"},
    "unproved": {"succeeded"},
    "a_strangers": {"stopped"},
    "canceling": {"succeeded", "canceled"},
    "ingesting": {"succeeded"},
}


@pytest.mark.parametrize("wish", ["cancel run", "cancel batch"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_cancel_in_each_state_keeps_what_is_paid_for_and_sends_nothing(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, moment: str, wish: str
) -> None:
    scene = Scene(desk, sandbox, monkeypatch, WISHES[wish])
    if wish == "cancel batch" and moment in ("canceling", "ingesting"):
        with pytest.raises(Refused, match="nothing to cancel"):
            getattr(scene, moment)()
    else:
        getattr(scene, moment)()
    accepted = sandbox.accepted()
    scene.go_on(4)
    sandbox.advance(2 * HOUR)
    scene.go_on()
    assert sandbox.accepted() == accepted, "nothing is sent any more"
    assert desk.status(scene.run_id).state == ("cancelled" if wish == "cancel run" else "finished")
    assert scene.statuses() <= MOMENTS[moment]
    for theirs in scene.strangers:
        at_api = sandbox.call("GET", f"/v1/messages/batches/{theirs}")
        assert at_api["cancel_initiated_at"] is None, "nobody else's work is stopped"
    audit(desk, sandbox, strangers=scene.strangers)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_pause_in_each_state_sends_nothing_new_and_stores_what_is_at_the_api(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    scene = Scene(desk, sandbox, monkeypatch, pause)
    getattr(scene, moment)()
    accepted = sandbox.accepted()
    scene.go_on(4)
    sandbox.advance(2 * HOUR)
    scene.go_on()
    assert sandbox.accepted() == accepted, "nothing is sent while it is paused"
    status = desk.status(scene.run_id)
    assert (status.state, status.reason) == ("paused", "Paused by tester.")
    sent = moment not in ("planned", "submitting", "unknown_without_a_candidate", "a_strangers")
    assert scene.batch.state == ("done" if sent else "planned")
    assert (desk.scalar("SELECT count(*) FROM results") == 5) == sent
    audit(desk, sandbox, over=False, strangers=scene.strangers)

    with db.transaction() as tx:
        verbs.resume_run(tx, scene.run_id, actor="tester")
    sandbox.configure(delay=0)
    scene.go_on()
    assert desk.status(scene.run_id).state == "finished"
    assert scene.statuses() <= {"succeeded", "canceled"}
    assert desk.summary(scene.run_id).succeeded == 5 or moment == "canceling"
    audit(desk, sandbox, strangers=scene.strangers)


@pytest.mark.parametrize("times", [1, 2], ids=["before its planning", "after"])
def test_a_run_paused_while_it_is_planned_waits_and_goes_on(desk: DeskDriver, sandbox: Sandbox, times: int) -> None:
    run_id = desk.start(documents(5))
    if times == 1:
        pause(desk, run_id)
    desk.perform("plan", run_id)
    if times == 2:
        pause(desk, run_id)
    for _ in range(3):
        desk.hurry()
        desk.perform_due()
    assert sandbox.accepted() == []
    assert desk.status(run_id).state == "paused"
    with pytest.raises(Refused, match="paused already"):
        pause(desk, run_id)
    with db.transaction() as tx:
        verbs.resume_run(tx, run_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)


def test_what_is_over_or_being_cancelled_cannot_be_paused(desk: DeskDriver, sandbox: Sandbox) -> None:
    over = desk.run(documents(2))
    with pytest.raises(Refused, match="nothing to pause"):
        pause(desk, over)
    sandbox.configure(delay=HOUR)
    run_id = desk.start(documents(2))
    desk.perform_until("in_progress")
    cancel_run(desk, run_id)
    with pytest.raises(Refused, match="being cancelled"):
        pause(desk, run_id)


def test_failures_wait_while_a_run_is_paused_and_go_again_once_it_is_resumed(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    sandbox.configure(overloaded_share=1, delay=HOUR)
    run_id = desk.start(documents(5))
    desk.perform_until("in_progress")
    pause(desk, run_id)
    sandbox.advance(2 * HOUR)
    sandbox.configure(overloaded_share=0, delay=0)
    for _ in range(6):
        desk.hurry()
        desk.perform_due()
    assert len(sandbox.bill()["batches"]) == 1
    with db.transaction() as tx:
        verbs.resume_run(tx, run_id, actor="tester")
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 5
    audit(desk, sandbox)
