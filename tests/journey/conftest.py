"""Installations and the API they send to, for tests that drive real processes along the whole road."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.audit import audit
from support.desk import DeskDriver
from support.installation import Command, Installation
from support.sandbox import SandboxProcess

BATCH = "250"


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


@pytest.fixture(scope="module")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """One server for the tests of a module; each sets it as it needs it."""
    with SandboxProcess(tmp_path_factory.mktemp("api"), delay=0.3, cancel_delay=0.3) as process:
        yield process


@pytest.fixture(scope="module")
def shared(shared_api: SandboxProcess) -> Iterator[Installation]:
    """One installation for the tests of a module."""
    with Installation.made(shared_api, batch_max_requests=BATCH) as made:
        yield made


@pytest.fixture(scope="module")
def upped(shared: Installation) -> Iterator[Command]:
    """The module's installation is kept up."""
    with shared.up() as command:
        yield command


@pytest.fixture
def desk(shared: Installation, shared_api: SandboxProcess, upped: Command) -> Iterator[DeskDriver]:
    """Looks into the module's installation; its books must agree when the test is over."""
    with shared.desk() as desk:
        yield desk
        audit(desk, shared_api)
