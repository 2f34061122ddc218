"""Fixtures: a sandbox of one's own, one that all tests share, and the real SDK's client for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from support.sandbox import Sandbox, SandboxThread


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox of the test's own, whose batches end at the next look."""
    with SandboxThread(tmp_path / "sandbox", delay=0, cancel_delay=0) as process:
        yield process


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One sandbox for the tests that neither configure it nor move its time."""
    with SandboxThread(tmp_path_factory.mktemp("shared"), delay=0, cancel_delay=0) as process:
        yield process


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="key", base_url=sandbox.url, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def shared_client(shared: Sandbox, request: pytest.FixtureRequest) -> Iterator[anthropic.Anthropic]:
    """A client of the shared sandbox, in a workspace of the test's own."""
    workspace = re.sub(r"[^a-z0-9]+", "-", request.node.nodeid.lower())
    with anthropic.Anthropic(api_key=f"ws:{workspace}:key", base_url=shared.url, max_retries=0, timeout=30) as client:
        yield client
