"""Connections that drop in the middle of a POST: as many batches at the API as there are shards, none of them twice."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.installation import until
from support.sandbox import Sandbox
from support.unknown import settle, slow_stranger, stranger, unknown

from webapp.batches import submission
from webapp.sandbox.app import SandboxApp

SHARDS = 10


def ten_shards(desk: DeskDriver, size: int = 60) -> int:
    """A run in ten batches, planned; its id."""
    desk.change(batch_max_requests=3)
    run_id = desk.start(documents(SHARDS // 2 * (3 + 2), size))
    desk.perform("plan", run_id)
    assert desk.scalar("SELECT count(*) FROM batches") == SHARDS
    return run_id


def connections(sandbox: Sandbox) -> list[Any]:
    """Those of this process to the sandbox that have not been reset."""
    port = urlsplit(sandbox.url).port
    return [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port]


def ten_batches_none_twice(desk: DeskDriver, sandbox: Sandbox, run_id: int) -> None:
    accepted = sandbox.accepted()
    assert len({line["batch_id"] for line in accepted}) == SHARDS
    assert len(accepted) == len({line["custom_id"] for line in accepted}) == desk.summary(run_id).succeeded
    audit(desk, sandbox)


@pytest.mark.parametrize("delay", [0, 3600], ids=["ended at once", "at work"])
def test_dropped_after_acceptance_on_the_first_create_of_each_of_ten_shards(
    desk: DeskDriver, sandbox: Sandbox, delay: int
) -> None:
    """Ten batches at the API, none twice, no operator needed."""
    desk.change(unknown_grace=900)
    run_id = ten_shards(desk)
    sandbox.configure(create_faults=f"drop_after*{SHARDS}", delay=delay)
    while {"planned", "submitting", "submit_unknown"} & set(desk.states()):
        desk.hurry()
        desk.perform_due()
    assert not desk.status(run_id).held
    assert set(desk.states()) <= {"in_progress", "ingesting", "done"}
    sandbox.advance(4000)
    assert not desk.work_until_over(run_id, hurry=True).held
    assert desk.rows("SELECT DISTINCT outcome FROM submissions") == [("created",)]
    assert desk.scalar("SELECT count(*) FROM events WHERE to_state = 'submit_unknown'") == SHARDS
    ten_batches_none_twice(desk, sandbox, run_id)


def test_dropped_before_acceptance_on_the_first_create_of_each_of_ten_shards(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    """Ten batches, none twice, and no grace time spent: what breaks off before it is armed is certainly not created.

    The bodies are longer than what the sockets of both ends hold, so that the break is met while they are sent.
    """
    desk.change(unknown_grace=900)
    run_id = ten_shards(desk, size=1_500_000)
    sandbox.configure(create_faults=f"drop_early*{SHARDS}")
    begun = time.monotonic()
    assert desk.work_until_over(run_id).state == "finished"
    assert time.monotonic() - begun < 300  # of the 900 that an unknown one would wait
    assert desk.scalar("SELECT count(*) FROM events WHERE to_state = 'submit_unknown'") == 0
    broken = "SELECT outcome, armed_at IS NOT NULL, count(*) FROM submissions GROUP BY 1, 2 ORDER BY 1"
    assert desk.rows(broken) == [("created", True, SHARDS), ("not_created", False, SHARDS)]
    ten_batches_none_twice(desk, sandbox, run_id)


def test_a_connection_that_breaks_on_the_very_last_bytes_has_created_nothing(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Armed, and the bytes that were held back could not be written: no whole body has gone out."""
    desk.change(unknown_grace=900)
    run_id = desk.start(documents(4))
    desk.perform("plan", run_id)
    arm, fail = submission._arm, SandboxApp._fail_before
    armed = threading.Event()

    def slowly(*arguments: Any) -> None:
        monkeypatch.setattr(submission, "_arm", arm)
        arm(*arguments)
        armed.set()
        until(lambda: not connections(sandbox), "the other end has hung up")

    def once_armed(*arguments: Any) -> None:
        armed.wait()
        fail(*arguments)

    monkeypatch.setattr(submission, "_arm", slowly)
    monkeypatch.setattr(SandboxApp, "_fail_before", once_armed)
    sandbox.configure(create_faults="drop_early")
    desk.perform("submit", desk.scalar("SELECT id FROM batches"))
    assert desk.rows("SELECT outcome, armed_at IS NOT NULL FROM submissions") == [("not_created", True)]
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 4
    audit(desk, sandbox)


@pytest.mark.parametrize("fault", ["500", "409", "529"])
def test_an_unclear_answer_before_the_last_bytes_is_unclear_all_the_same(
    desk: DeskDriver, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """It was given without reading the body, and the connection closed: the last bytes find nobody."""
    desk.start(documents(4))
    desk.perform_due()
    arm = submission._arm

    def slowly(*arguments: Any) -> None:
        arm(*arguments)
        time.sleep(0.5)

    monkeypatch.setattr(submission, "_arm", slowly)
    sandbox.configure(create_faults=fault)
    desk.perform("submit", desk.scalar("SELECT id FROM batches"))
    assert desk.rows("SELECT outcome FROM submissions") == [("unknown",)]


def test_a_connection_that_breaks_off_again_and_again_is_not_tried_without_a_pause(
    desk: DeskDriver, sandbox: Sandbox
) -> None:
    sandbox.configure(create_faults="drop_early*3")
    run_id = desk.start(documents(4, 1_500_000))
    desk.perform("plan", run_id)
    batch_id = desk.scalar("SELECT id FROM batches")
    waits = []
    for _ in range(3):
        desk.hurry()
        desk.perform("submit", batch_id)
        waits.append(round(desk.scalar("SELECT extract(epoch FROM due_at - now()) FROM steps WHERE step = 'submit'")))
    assert waits == [0, 30, 30]
    desk.work_until_over(run_id, hurry=True)
    audit(desk, sandbox)


@pytest.mark.parametrize("faults", ["drop_before,drop_after", "drop_after,drop_before"])
def test_two_runs_of_equal_shards_on_two_workers_with_a_drop_before_and_one_after(
    desk: DeskDriver, sandbox: Sandbox, faults: str
) -> None:
    """Two batches, no custom_id accepted twice."""
    sandbox.configure(create_faults=faults)
    runs = [desk.start(documents(6)) for _ in range(2)]
    for run_id in runs:
        desk.perform("plan", run_id)
    start = threading.Barrier(2)
    failed: list[BaseException] = []

    def worker() -> None:
        try:
            with desk.app.app_context():
                start.wait(10)
                for _ in range(60):
                    desk.hurry()
                    desk.perform_due()
                    if all(desk.status(run_id).over for run_id in runs):
                        return
                    time.sleep(0.05)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the test tells it
            failed.append(error)

    workers = [threading.Thread(target=worker) for _ in range(2)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(60)
    assert failed == []
    assert [desk.summary(run_id).succeeded for run_id in runs] == [6, 6]
    accepted = sandbox.accepted()
    assert len({line["batch_id"] for line in accepted}) == 2
    assert len(accepted) == len({line["custom_id"] for line in accepted}) == 12
    audit(desk, sandbox)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
@pytest.mark.parametrize("ended", [False, True], ids=["at work", "ended"])
def test_a_strangers_batch_of_the_same_total_on_the_same_key(
    desk: DeskDriver, sandbox: Sandbox, fault: str, ended: bool
) -> None:
    """Adopted at worst until its first line; nothing of ours lost or stored wrongly, nothing paid twice."""
    desk.change(unknown_grace=900)
    run_id, batch_id = unknown(desk, sandbox, fault)
    theirs = stranger(sandbox) if ended else slow_stranger(sandbox)
    settle(desk, batch_id)
    sandbox.advance(4000)
    for _ in range(6):
        desk.hurry()
        desk.perform_due()
    assert desk.batch(batch_id).api_id != theirs
    if fault == "drop_before":
        desk.execute(
            "UPDATE submissions SET ended_at = ended_at - interval '901 s', intent_at = intent_at - interval '901 s'"
        )
    assert not desk.work_until_over(run_id, hurry=True).held
    assert desk.summary(run_id).succeeded == 5
    assert len({line["batch_id"] for line in sandbox.accepted()} - {theirs}) == 1
    assert desk.scalar("SELECT count(*) FROM ledger_lines") == 5
    audit(desk, sandbox, strangers=[theirs])
