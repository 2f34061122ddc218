"""Installations and the API they send to, for tests that drive real processes along the whole road."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.audit import audit
from support.desk import DeskDriver
from support.installation import Command, Installation
from support.sandbox import SandboxProcess

BATCH = "250"
SHARES = ("errored_share", "invalid_share", "expired_share", "missing_share")


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A server that speaks the API."""
    with SandboxProcess(tmp_path_factory.mktemp("api"), delay=0.3, cancel_delay=0.3) as process:
        yield process


@pytest.fixture
def installation(api: SandboxProcess) -> Iterator[Installation]:
    """An empty home that sends to the test's API in small batches."""
    with Installation.made(api, batch_max_requests=BATCH) as made:
        yield made


@pytest.fixture(scope="package")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """One server for all tests here that can share it; each sets it as it needs it."""
    with SandboxProcess(tmp_path_factory.mktemp("api")) as process:
        yield process


@pytest.fixture(scope="package")
def shared(shared_api: SandboxProcess) -> Iterator[Installation]:
    """One installation for all tests here that can share it: a start from nothing takes seconds."""
    with Installation.made(shared_api, batch_max_requests=BATCH) as made:
        yield made


@pytest.fixture(scope="package")
def upped(shared: Installation) -> Iterator[Command]:
    """The shared installation is kept up."""
    with shared.up() as command:
        yield command


@pytest.fixture
def desk(shared: Installation, shared_api: SandboxProcess, upped: Command) -> Iterator[DeskDriver]:
    """Looks into the shared installation, which is up; its books must agree when the test is over."""
    quiet = dict.fromkeys(("create_faults", "results_faults"), "") | dict.fromkeys(SHARES, 0.0)
    shared_api.configure(delay=0.3, cancel_delay=0.3, **quiet)
    with shared.desk() as desk:
        yield desk
        audit(desk, shared_api)
