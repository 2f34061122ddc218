"""Two installations on one key, one a restored backup of the other: neither stores an answer of the other's.

What was sent before the backup is the past of both, and both read it; what each sends after it is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from support.audit import audit
from support.desk import DeskDriver, documents, make_settings
from support.sandbox import Sandbox
from support.services import create_database, drop_database
from support.unknown import settle, unknown

from webapp import create_app, db
from webapp.batches import (
    encoding,
    naming,
    settling,
    submission,
)
from webapp.batches.body import body_pieces
from webapp.local import Services

GRACE = 900
LATER = 1000  # seconds: longer than the grace time
RECORDS = 9  # in batches of 5 and of 4


@contextmanager
def copied(app: Flask, services: Services, sandbox: Sandbox) -> Iterator[DeskDriver]:
    """A copy of the application's database, as it stands, with an application of its own."""
    with app.app_context():
        name: str = db.db.engine.url.database or ""
        db.db.engine.dispose()
    url = create_database(services, f"{name}_copy", name)
    other = create_app(make_settings(url, services, sandbox_url=sandbox.url))
    try:
        yield DeskDriver(other)
    finally:
        with other.app_context():
            db.db.engine.dispose()
        drop_database(services, f"{name}_copy")


class Two:
    """The original and its copy, who take turns; what each of them has sent since."""

    def __init__(self, sandbox: Sandbox, original: DeskDriver, copy: DeskDriver) -> None:
        self.sandbox, self.original, self.copy = sandbox, original, copy
        self.sent: dict[str, set[str]] = {"original": set(), "copy": set()}
        self.before = self.at_api()

    def at_api(self) -> set[str]:
        return {line["batch_id"] for line in self.sandbox.accepted()}

    def turn(self, name: str, times: int = 3) -> None:
        desk, before = getattr(self, name), self.at_api()
        with desk.app.app_context():
            desk.change(unknown_grace=GRACE)
            for _ in range(times):
                desk.lapse()
                desk.hurry()
                desk.perform_due()
        self.sent[name] |= self.at_api() - before

    def let_time_pass(self) -> None:
        self.sandbox.advance(LATER)
        for desk in (self.original, self.copy):
            with desk.app.app_context():
                desk.execute(
                    "UPDATE submissions SET intent_at = intent_at - make_interval(secs => :later), "
                    "ended_at = ended_at - make_interval(secs => :later)",
                    later=LATER,
                )

    def see_out(self, run_id: int, order: tuple[str, str]) -> None:
        for _ in range(20):
            for name in order:
                self.turn(name)
            if all(self.over(desk, run_id) for desk in (self.original, self.copy)):
                return
            self.let_time_pass()
        raise AssertionError("the two do not come to an end")

    def over(self, desk: DeskDriver, run_id: int) -> bool:
        with desk.app.app_context():
            return desk.status(run_id).over

    def check(self, run_id: int) -> None:
        """Each has an answer to every record, and none that came of what the other has sent."""
        accepted = self.sandbox.accepted()
        for name, other in (("original", "copy"), ("copy", "original")):
            desk, theirs = getattr(self, name), self.sent[other]
            with desk.app.app_context():
                assert desk.summary(run_id).succeeded == RECORDS
                read = {api_id for (api_id,) in desk.rows("SELECT DISTINCT api_batch_id FROM ledger_lines")}
                held = {api_id for (api_id,) in desk.rows("SELECT api_id FROM batches WHERE api_id IS NOT NULL")}
                assert not (read | held) & theirs, f"the {name} has taken the {other}'s batch"
                stored = {
                    custom_id
                    for (custom_id,) in desk.rows(
                        "SELECT r.custom_id FROM results s JOIN requests r ON r.id = s.request_id"
                    )
                }
                others = {line["custom_id"] for line in accepted if line["batch_id"] in theirs}
                assert not stored & others, f"the {name} has stored an answer to what the {other} has sent"
                audit(desk, self.sandbox, strangers=theirs)


def reach(desk: DeskDriver, sandbox: Sandbox, moment: str) -> None:
    """Bring a run to a moment."""
    if moment == "planned":
        desk.perform_due()
    elif moment.startswith("unknown"):
        sandbox.configure(create_faults="drop_after" if moment == "unknown, accepted" else "drop_before")
        desk.perform_until("submit_unknown")
        sandbox.configure(create_faults="")
    elif moment != "before planning":
        desk.perform_until(moment)


MOMENTS = ("before planning", "planned", "unknown, accepted", "unknown, not accepted", "in_progress", "ingesting")


@pytest.mark.parametrize("order", [("original", "copy"), ("copy", "original")], ids=["original first", "copy first"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_two_installations_of_one_database_store_no_answer_of_each_other(
    desk: DeskDriver, sandbox: Sandbox, services: Services, moment: str, order: tuple[str, str]
) -> None:
    desk.change(batch_max_requests=5, unknown_grace=GRACE)
    sandbox.configure(delay=100 if moment != "ingesting" else 0)
    run_id = desk.start(documents(RECORDS))
    reach(desk, sandbox, moment)
    with copied(desk.app, services, sandbox) as copy:
        with copy.app.app_context():
            copy.change(batch_max_requests=5)
        two = Two(sandbox, desk, copy)
        # Whatever they send now has to be looked for, among what the other has sent of the same total.
        sandbox.configure(create_faults="drop_after,drop_before,drop_after", delay=100)
        two.see_out(run_id, order)
        two.check(run_id)


@pytest.mark.parametrize("armed", [False, True], ids=["not armed", "armed"])
def test_a_copy_made_in_the_middle_of_a_post_stores_no_answer_of_the_other(
    desk: DeskDriver, sandbox: Sandbox, services: Services, monkeypatch: pytest.MonkeyPatch, armed: bool
) -> None:
    desk.change(unknown_grace=GRACE)
    run_id = desk.start(documents(RECORDS))
    desk.perform_due()
    arm, copies = submission._arm, []
    sandbox.configure(delay=100)

    def copying(*arguments: Any) -> None:
        monkeypatch.setattr(submission, "_arm", arm)
        if armed:
            arm(*arguments)
        copies.append(copied(desk.app, services, sandbox))
        two.append(Two(sandbox, desk, copies[0].__enter__()))
        if not armed:
            arm(*arguments)

    two: list[Two] = []
    monkeypatch.setattr(submission, "_arm", copying)
    desk.perform("submit", desk.scalar("SELECT id FROM batches"))
    try:
        # What was armed before the copy is the past of both; what was not is the original's alone.
        if armed:
            two[0].before = two[0].at_api()
        else:
            two[0].sent["original"] = two[0].at_api()
        two[0].see_out(run_id, ("copy", "original"))
        two[0].check(run_id)
        assert len(two[0].at_api()) == (1 if armed else 2)
    finally:
        copies[0].__exit__(None, None, None)


def test_later_attempts_of_the_two_have_ids_of_their_own(
    desk: DeskDriver, sandbox: Sandbox, services: Services
) -> None:
    sandbox.configure(overloaded_share=1, delay=100)
    run_id = desk.start(documents(RECORDS))
    desk.perform_until("in_progress")
    sandbox.configure(overloaded_share=0)
    with copied(desk.app, services, sandbox) as copy:
        two = Two(sandbox, desk, copy)
        two.see_out(run_id, ("original", "copy"))
        two.check(run_id)
        assert two.sent["original"] and two.sent["copy"]
        accepted = [line["custom_id"] for line in sandbox.accepted()]
        assert len(accepted) == len(set(accepted)) == 3 * RECORDS


def test_a_guess_stores_no_answer_to_requests_of_another_batch(desk: DeskDriver, sandbox: Sandbox) -> None:
    """Its lines carry ids of a batch that is still planned here: what the original of this copy has sent of it."""
    desk.change(unknown_grace=GRACE)
    _, batch_id = unknown(desk, sandbox, "drop_before")
    other_run = desk.start(documents(5))
    desk.perform("plan", other_run)
    other = desk.scalar("SELECT id FROM batches WHERE run_id = :id", id=other_run)
    sandbox.configure(delay=100)
    theirs = desk.desk.gateway.create(iter([body_of(desk, other)]), desk.batch(other).body_bytes)
    assert settle(desk, batch_id) == "in_progress"
    sandbox.advance(200)
    desk.hurry()
    desk.perform("poll", batch_id)
    desk.perform("ingest", batch_id)
    assert desk.scalar("SELECT count(*) FROM results") == desk.scalar("SELECT count(*) FROM ledger_lines") == 0
    assert desk.batch(batch_id).state == "submit_unknown"
    assert desk.rows("SELECT DISTINCT state FROM requests") == [("pending",)]
    assert desk.scalar("SELECT ruled_out FROM submissions") == [theirs.id]


def body_of(desk: DeskDriver, batch_id: int) -> bytes:
    """What a POST of a batch would send."""
    batch = desk.batch(batch_id)
    return b"".join(body_pieces(batch.run_id, batch_id)) + encoding.TAIL


# -- where ids are drawn -----------------------------------------------------------------------------------------


def ids(desk: DeskDriver) -> set[str]:
    return {custom_id for (custom_id,) in desk.rows("SELECT custom_id FROM requests")}


def elsewhere(desk: DeskDriver) -> None:
    """As if the database were a copy: its ids were drawn in another."""
    desk.execute("UPDATE batches SET place = 'another'")
    desk.execute("UPDATE submissions SET place = 'another'")


@pytest.mark.parametrize("change", [lambda desk: None, elsewhere], ids=["here", "elsewhere"])
def test_ids_are_drawn_anew_before_a_post_unless_they_were_drawn_here(
    desk: DeskDriver, sandbox: Sandbox, change: Callable[[DeskDriver], None]
) -> None:
    run_id = desk.start(documents(4))
    desk.perform("plan", run_id)
    before = ids(desk)
    change(desk)
    desk.work_until_over(run_id)
    assert (ids(desk) == before) == (change is not elsewhere)
    assert {line["custom_id"] for line in sandbox.accepted()} == ids(desk)
    assert len(desk.outputs(run_id)[0].custom_id or "") <= encoding.MAX_ID
    audit(desk, sandbox)


def test_batches_of_an_older_version_are_drawn_anew(desk: DeskDriver, sandbox: Sandbox) -> None:
    run_id = desk.start(documents(4))
    desk.perform("plan", run_id)
    desk.execute("UPDATE batches SET place = NULL")
    before = ids(desk)
    desk.work_until_over(run_id)
    assert not ids(desk) & before
    audit(desk, sandbox)


def test_halves_of_a_batch_keep_the_place_of_their_ids(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="413")
    run_id = desk.start(documents(8))
    desk.work_until_over(run_id, hurry=True)
    assert desk.scalar("SELECT count(DISTINCT place) FROM batches") == 1
    assert desk.scalar("SELECT count(*) FROM batches WHERE place IS NULL") == 0


def test_a_server_that_was_started_again_in_the_middle_costs_nothing(desk: DeskDriver, sandbox: Sandbox) -> None:
    """An unknown POST of before is adopted all the same: its ids are still those of its batch."""
    sandbox.configure(create_faults="drop_after")
    run_id = desk.start(documents(4))
    desk.perform_until("submit_unknown")
    elsewhere(desk)
    desk.work_until_over(run_id, hurry=True)
    assert len(sandbox.bill()["batches"]) == 1
    audit(desk, sandbox)


def test_a_late_answer_to_ids_that_were_drawn_anew_since_is_not_taken(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the batch is sent again with other ids: its lines would answer nothing here."""
    sandbox.configure(create_faults="drop_before", delay=3600)
    run_id = desk.start(documents(4))
    batch_id = desk.perform_until("submit_unknown")
    first = desk.scalar("SELECT id FROM submissions")
    batch, body = desk.batch(batch_id), body_of(desk, batch_id)
    elsewhere(desk)
    desk.hurry()
    desk.perform("submit", batch_id)  # absent
    arm, late = submission._arm, []

    def answered(*arguments: Any) -> None:
        monkeypatch.setattr(submission, "_arm", arm)
        late.append(desk.desk.gateway.create(iter([body]), len(body)))
        post = submission.Sending(batch_id, run_id, batch.account_id, first, 4, len(body), armed=True)
        submission._record(desk.desk, post, late[0])
        arm(*arguments)

    monkeypatch.setattr(submission, "_arm", answered)
    desk.hurry()
    desk.perform("submit", batch_id)
    assert desk.batch(batch_id).state == "in_progress"
    assert desk.batch(batch_id).api_id != late[0].id
    assert desk.desk.gateway.retrieve(late[0].id).processing_status != "in_progress"
    assert desk.rows("SELECT api_id FROM submissions WHERE id = :id", id=first) == [(late[0].id,)]
    sandbox.advance(4000)
    desk.work_until_over(run_id, hurry=True)
    assert desk.summary(run_id).succeeded == 4
    audit(desk, sandbox, strangers=[late[0].id])


def test_a_place_is_one_database_of_one_start_of_its_server(desk: DeskDriver) -> None:
    here = desk.scalar(f"SELECT {naming.PLACE}")
    assert here == desk.scalar(f"SELECT {naming.PLACE}")
    oid, _, started = here.partition("@")
    assert oid.isdigit() and float(started) > 0
    assert settling.CLOCK_MARGIN.total_seconds() < GRACE
