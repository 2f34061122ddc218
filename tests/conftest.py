"""Real parts for every test: one PostgreSQL and one Valkey per session, a fresh database per test, a sandbox server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from support.browser import chromium, page  # noqa: F401 - fixtures, of which a process can have but one
from support.desk import DeskDriver, make_settings
from support.people import QUICK_PASSWORDS
from support.sandbox import Sandbox, SandboxThread
from support.services import create_database, drop_database, quick_folder, start_services

from webapp import create_app
from webapp.admin import people
from webapp.local import Services

# How long an example takes is the machine's affair. Where CI is set, Hypothesis' own profile says so.
if "CI" not in os.environ:
    settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy machine")


# What takes longest begins first, or one core waits at the end for the other's last file. Within a folder the order
# stays; `--no-loadscope-reorder` keeps xdist from its own, which begins with the files of the most tests.
LONGEST = ("browser/test_every_page", "browser/test_every_stop", "journey/", "chaos/", "browser/", "admin/", "batches/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""

    def rank(item: pytest.Item) -> int:
        found = (n for n, start in enumerate(LONGEST) if item.nodeid.startswith(f"tests/{start}"))
        return next(found, len(LONGEST))

    items.sort(key=rank)


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> None:
    """Argon2 is slow on purpose; nobody attacks the passwords of tests (`test_passwords.py` sees how slow it is)."""
    people.CONFIG["SECURITY_PASSWORD_HASH_PASSLIB_OPTIONS"] = QUICK_PASSWORDS


@pytest.fixture(scope="session", autouse=True)
def no_live_api() -> None:
    """No test may reach the real API, whatever is in the environment."""
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "BATCHDESK_"))]:
        del os.environ[name]
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Children that tests interrupt must hear it, also when a shell has started pytest in its background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Embedded PostgreSQL and Valkey."""
    with quick_folder(tmp_path_factory.mktemp("services")) as folder:
        supervisor, services = start_services(folder)
        yield services
        supervisor.stop()


@pytest.fixture(scope="session")
def template(services: Services) -> str:
    """The name of a migrated database that each test's own is copied from."""
    from flask_migrate import upgrade

    name = "template_batchdesk"
    app = create_app(make_settings(create_database(services, name), services, sandbox_url=None))
    with app.app_context():
        upgrade()
        from webapp.db import db

        db.engine.dispose()
    return name


@pytest.fixture
def database_url(services: Services, template: str) -> Iterator[str]:
    """A migrated, empty database."""
    name = f"test_{uuid4().hex[:12]}"
    yield create_database(services, name, template)
    drop_database(services, name)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox server of the test's own, whose batches end at once."""
    with SandboxThread(tmp_path / "sandbox", delay=0, cancel_delay=0) as server:
        yield server


@pytest.fixture
def app(database_url: str, services: Services, sandbox: Sandbox) -> Iterator[Flask]:
    """The application over a fresh database, its API the test's sandbox."""
    app = create_app(make_settings(database_url, services, sandbox_url=sandbox.url))
    # Jobs that other tests have left would fill the queue they share.
    app.extensions["batchdesk.redis"].flushdb()
    with app.app_context():
        yield app
        from webapp.db import db

        db.engine.dispose()


@pytest.fixture
def desk(app: Flask) -> DeskDriver:
    """Drives the steps in this process, one after the other, as the workers would."""
    return DeskDriver(app)
