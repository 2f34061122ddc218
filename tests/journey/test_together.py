"""Several commands in one home at once: who came first stops its services, and the others still finish."""

from __future__ import annotations

import pytest
from support.audit import audit
from support.desk import documents
from support.installation import Command, Installation, until
from support.sandbox import SandboxProcess

pytestmark = pytest.mark.journey


def test_of_two_runs_started_at_once_both_complete(installation: Installation, api: SandboxProcess) -> None:
    short = installation.write("short.jsonl", documents(10))
    long = installation.write("long.jsonl", documents(100))
    first = installation.start("run", "classify", short, "--set", "labels=alpha,beta", "--json")
    second = installation.start(*installation.classifying(long))
    done = first.ended()
    assert (done.status, done.summary["succeeded"]) == (0, 10), done.err
    other = second.ended()
    assert (other.status, other.summary["succeeded"]) == (0, 100), other.err
    assert not installation.left_running()
    with installation.desk() as desk:
        audit(desk, api)


def test_a_run_whose_services_stop_takes_them_over(installation: Installation, api: SandboxProcess) -> None:
    api.configure(delay=100)
    short = installation.write("short.jsonl", documents(10))
    first = installation.start("run", "classify", short, "--set", "labels=alpha,beta", "--json")
    until(lambda: len(api.accepted()) == 10, "the first run is at the API")
    api.configure(delay=600)
    second = installation.start(*installation.classifying(installation.write("long.jsonl", documents(300))))
    until(lambda: len(api.accepted()) == 310, "the second run is at the API too, by the worker of the first")
    api.advance(100)
    assert first.ended().status == 0
    api.advance(500)
    done = second.ended()
    assert (done.status, done.summary["succeeded"]) == (0, 300), done.err
    assert not installation.left_running()


def test_up_twice_in_one_home_is_refused_in_words(shared: Installation, upped: Command) -> None:
    again = shared.run("up")
    assert again.status == 2 and "up already" in again.err
