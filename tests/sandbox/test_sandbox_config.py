"""The sandbox's settings: what they take, and what they say when they cannot."""

from __future__ import annotations

import dataclasses
import urllib.error

import pytest
from support.sandbox import Sandbox

from webapp.sandbox import SandboxConfig, SandboxConfigError
from webapp.sandbox.faults import Fault, FaultQueue


def test_settings_are_read_from_text() -> None:
    config = SandboxConfig.parse(["delay=0", "live_counts=yes", "create_faults=429:5,500", "rpm=50"])
    assert (config.delay, config.live_counts, config.create_faults, config.rpm) == (0.0, True, "429:5,500", 50)


def test_settings_do_not_change_under_those_who_hold_them() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SandboxConfig().delay = 5.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("colour=red", "colour"),
        ("delay=soon", "delay"),
        ("delay=-1", "delay"),
        ("rpm=1.5", "rpm"),
        ("live_counts=maybe", "live_counts"),
        ("errored_share=2", "errored_share"),
        ("cache_hit_rate=1.1", "cache_hit_rate"),
        ("create_faults=explode", "create_faults"),
        ("create_faults=truncate:5", "create_faults"),
        ("results_faults=duplicate:many", "results_faults"),
        ("should_retry=perhaps", "should_retry"),
        ("delay", "name=value"),
    ],
)
def test_a_bad_setting_is_named(assignment: str, named: str) -> None:
    with pytest.raises(SandboxConfigError, match=named):
        SandboxConfig.parse([assignment])


def test_shares_must_not_add_up_to_more_than_everything() -> None:
    with pytest.raises(SandboxConfigError, match="add up"):
        SandboxConfig(errored_share=0.6, expired_share=0.6)


def test_a_running_sandbox_refuses_a_bad_setting_and_keeps_the_rest(sandbox: Sandbox) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        sandbox.configure(delay=5, colour="red")
    assert caught.value.code == 400
    caught.value.close()
    assert sandbox.call("GET", "/sandbox/config")["delay"] == 0
    assert sandbox.configure(delay=5)["delay"] == 5


def test_a_queue_of_faults_gives_them_one_call_at_a_time() -> None:
    queue = FaultQueue("ok, 429:2.5, 500*2, blank+crlf", stream=True)
    taken = [queue.take() for _ in range(6)]
    assert taken == [
        [],
        [Fault("429", 2.5)],
        [Fault("500")],
        [Fault("500")],
        [Fault("blank"), Fault("crlf")],
        [],
    ]
