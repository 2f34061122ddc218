"""Proxies in the environment are for the world outside: nothing of this machine is looked for through them."""

from __future__ import annotations

import pytest
from support.desk import documents
from support.installation import Installation

pytestmark = pytest.mark.journey

NOWHERE = "http://127.0.0.1:9"
PROXIES = {
    name: NOWHERE for one in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (one, one.lower())
}  # nobody listens there


def test_the_dashboard_and_the_sandbox_are_reached_without_the_proxy_of_the_environment() -> None:
    with Installation.made(None) as installation:
        installation.env = {name: value for name, value in installation.env.items() if name.upper() != "NO_PROXY"}
        installation.env |= PROXIES
        with installation.up():
            done = installation.classify(installation.write("docs.jsonl", documents(3)))
        assert (done.status, done.summary["succeeded"]) == (0, 3), done.err
