"""Waiting ends early: Ctrl-C, SIGTERM, a timeout, a paused run, a cancelled one. The run stays, and can be taken up."""

from __future__ import annotations

import signal
import urllib.request

import pytest
from support.audit import audit
from support.desk import DeskDriver, documents
from support.installation import Installation, until
from support.sandbox import SandboxProcess

pytestmark = pytest.mark.journey

RECORDS = 500
LONG = 600.0  # seconds of the API's time: nothing ends until a test lets them pass


def test_an_interrupted_run_says_how_to_come_back_and_nothing_is_left_running(
    installation: Installation, api: SandboxProcess
) -> None:
    """I19: Ctrl-C left a batch billing unseen, or cancelled it without a word."""
    api.configure(delay=LONG)
    run = installation.start(*installation.classifying(installation.write("docs.jsonl", documents(RECORDS))))
    until(lambda: len(api.accepted()) == RECORDS, "the API has everything")
    run.signal(signal.SIGINT)
    done = run.ended(30)

    assert done.status == 4
    assert "interrupted" in done.err and "batchdesk status 1" in done.err and "batchdesk resubmit 1" in done.err
    assert done.summary["requests"] == RECORDS and done.summary["succeeded"] == 0
    assert not (installation.folder / "out.jsonl").exists()
    assert not installation.left_running()

    api.advance(LONG)
    out = installation.folder / "out.jsonl"
    again = installation.run("resubmit", "1", "--json", "--out", out)
    assert (again.status, again.summary["succeeded"]) == (0, RECORDS), again.err
    assert {line["attempts"] for line in installation.outputs()} == {1}
    with installation.desk() as desk:
        audit(desk, api)


def test_an_interrupt_before_the_run_has_started_leaves_nothing(installation: Installation) -> None:
    run = installation.start(*installation.classifying(installation.write("docs.jsonl", documents(RECORDS))))
    until(lambda: (installation.home / "owner.lock").exists(), "services are being started")
    run.signal(signal.SIGINT)
    done = run.ended(30)
    assert (done.status, done.out) == (4, ""), done.err
    assert "Traceback" not in done.err
    assert not installation.left_running()


class TestWhileEverythingIsUp:
    """The desk's books are compared with the API's after each."""

    def test_sigterm_ends_the_waiting_like_an_interrupt(
        self, shared: Installation, shared_api: SandboxProcess, desk: DeskDriver
    ) -> None:
        shared_api.configure(delay=LONG)
        run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(20))))
        run.says("started.")
        run.signal(signal.SIGTERM)
        done = run.ended(30)
        assert done.status == 4 and "interrupted" in done.err and "nothing is cancelled" in done.err
        status = shared.run("status", str(done.summary["run"]), "--json")
        assert (status.status, status.summary["requests"]) == (0, 20), status.err
        until(lambda: desk.scalar("SELECT count(*) FROM batches WHERE state = 'in_progress'"), "the workers went on")
        shared_api.advance(LONG)
        again = shared.run("resubmit", str(done.summary["run"]), "--json")
        assert (again.status, again.summary["succeeded"]) == (0, 20), again.err

    def test_a_timeout_ends_the_waiting_and_the_workers_go_on(
        self, shared: Installation, shared_api: SandboxProcess, desk: DeskDriver
    ) -> None:
        shared_api.configure(delay=LONG)
        done = shared.classify(shared.write("docs.jsonl", documents(20)), "--timeout", "0.5")
        assert done.status == 4 and "the time is over" in done.err
        run = str(done.summary["run"])
        pending = shared.run("export", run, "--out", shared.folder / "now.jsonl")
        assert pending.status == 0, pending.err
        assert {line["status"] for line in shared.outputs("now.jsonl")} == {"pending"}
        until(lambda: desk.scalar("SELECT count(*) FROM batches WHERE state = 'in_progress'"), "the workers go on")
        shared_api.advance(LONG)
        again = shared.run("resubmit", run, "--json")
        assert (again.status, again.summary["succeeded"]) == (0, 20), again.err

    def test_a_run_without_credit_is_paused_with_the_reason_and_resubmit_takes_it_up(
        self, shared: Installation, shared_api: SandboxProcess, desk: DeskDriver
    ) -> None:
        shared_api.configure(create_faults="credit*")
        done = shared.classify(shared.write("docs.jsonl", documents(20)))
        assert done.status == 4 and "paused" in done.err and "credit balance" in done.err, done.err
        run = str(done.summary["run"])
        status = shared.run("status", run)
        assert status.status == 0 and "paused" in status.out and "credit balance" in status.out
        doctor = shared.run("doctor")
        assert doctor.status == 1 and f"Run {run} is paused" in doctor.out

        shared_api.configure(create_faults="")
        again = shared.run("resubmit", run, "--json", "--out", shared.folder / "out.jsonl")
        assert (again.status, again.summary["succeeded"]) == (0, 20), again.err
        assert {line["attempts"] for line in shared.outputs()} == {1}

    def test_a_cancelled_run_keeps_and_pays_what_was_answered(
        self, shared: Installation, shared_api: SandboxProcess, desk: DeskDriver
    ) -> None:
        shared_api.configure(delay=LONG)
        accepted = len(shared_api.accepted())
        run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(RECORDS))))
        until(lambda: len(shared_api.accepted()) == accepted + RECORDS, "the API has everything")
        number = run.err.split()[1]
        cancelled = shared.run("cancel", number)
        assert cancelled.status == 0 and "being cancelled" in cancelled.err, cancelled.err

        done = run.ended()
        assert done.status == 3, done.err
        summary = done.summary
        assert summary["succeeded"] and summary["canceled"]
        assert summary["succeeded"] + summary["canceled"] == RECORDS
        assert summary["cost_usd"] > 0
        statuses = [line["status"] for line in shared.outputs()]
        assert statuses.count("canceled") == summary["canceled"]
        again = shared.run("cancel", number)
        assert again.status == 2 and "cancelled already" in again.err

    def test_what_was_not_sent_yet_is_stopped_by_a_cancellation(
        self, shared: Installation, shared_api: SandboxProcess, desk: DeskDriver
    ) -> None:
        shared_api.configure(create_faults="529*")
        run = shared.start(*shared.classifying(shared.write("docs.jsonl", documents(20))))
        run.says("started.")
        assert shared.run("cancel", run.err.split()[1]).status == 0
        shared_api.configure(create_faults="")
        done = run.ended()
        assert (done.status, done.summary["stopped"]) == (3, 20), done.err
        assert all(line["status"] == "stopped" and line["error"] for line in shared.outputs())

    def test_the_dashboard_answers_health_without_sign_in(self, shared: Installation, desk: DeskDriver) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{shared.port}/readyz", timeout=10) as answer:
            assert answer.status == 200 and b'"degraded"' in answer.read()
