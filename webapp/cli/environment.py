"""Opens the installation for a command: the services that are up, or embedded ones of its own for as long as it takes.
Every command that needs the database enters `opened`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from flask import Flask

from webapp import ROOT, create_app, local, services
from webapp.errors import LocalServicesError
from webapp.local import Child, Supervisor
from webapp.settings import Settings, load

# Higher layers end first: a worker's POST is finished before the sandbox goes.
SANDBOX_LAYER, WORK_LAYER = 5, 10


@contextmanager
def opened(*, working: bool) -> Iterator[Flask]:
    """The application in its context, with its services up.

    With embedded services that nobody keeps up, this command is their owner until it leaves.

    :param working: True when the command waits for work: then a worker, a clock and (without a key) the sandbox are
        started with the services.
    """
    settings = load()
    if not settings.embedded or local.running(settings.home) is not None:
        with _app() as app:
            _check_schema(app)
            yield app
        return
    with Supervisor(settings.home, log=_tell) as supervisor:
        supervisor.start_services()
        with _app() as app:
            migrate()
            if working:
                start_work(supervisor, settings, workers=1)
            yield app


@contextmanager
def _app() -> Iterator[Flask]:
    app = create_app()
    with app.app_context():
        yield app


def _tell(message: str) -> None:
    click.echo(f"batchdesk: {message}", err=True)


def migrate() -> str | None:
    """Bring the database of the current application up to date, with its first admin.

    :returns: the admin's password when one was made just now, to be shown once.
    """
    import logging

    from flask import current_app
    from flask_migrate import upgrade

    from webapp.admin.people import ensure_roles_and_admin

    for name in ("alembic", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)
    upgrade()
    password: str | None = ensure_roles_and_admin(current_app.extensions["batchdesk"].settings)
    return password


def _check_schema(app: Flask) -> None:
    """Pass when the database has the tables of this version."""
    current, head = schema_versions(app)
    if current != head:
        have = f"at version {current}" if current else "empty"
        raise LocalServicesError(
            f"The database is {have}, this version of Batchdesk needs {head}: run `batchdesk migrate` first."
        )


def schema_versions(app: Flask) -> tuple[str | None, str | None]:
    """(version of the database, version of the code)."""
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from webapp import MIGRATIONS
    from webapp.db import db

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with db.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(config).get_current_head()


def start_work(supervisor: Supervisor, settings: Settings, *, workers: int) -> None:
    """Start what moves batches: the sandbox where no key is set, workers, the clock."""
    if settings.sandbox:
        supervisor.start(sandbox_child(settings))
    for number in range(1, workers + 1):
        supervisor.add(_python(settings, f"worker-{number}", str(ROOT / "worker.py"), "work"))
    supervisor.add(_python(settings, "clock", str(ROOT / "worker.py"), "clock"))


def sandbox_child(settings: Settings) -> Child:
    """The sandbox over this home's own batches; ready when its address is written."""
    folder, address = services.sandbox_folder(settings), services.sandbox_address(settings)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ("-m", "webapp.sandbox", "--folder", str(folder), "--address-file", str(address))
    return _python(settings, "sandbox", *arguments, address=address)


def web_child(settings: Settings) -> Child:
    """The dashboard, served by gunicorn."""
    return _python(
        settings,
        "web",
        *("-m", "gunicorn", "--no-control-socket", "--worker-class", "gthread", "--threads", "8"),
        *("--bind", f"{settings.host}:{settings.port}", "--access-logfile", os.devnull, "webapp:create_app()"),
    )


def _python(settings: Settings, name: str, *arguments: str, address: Path | None = None) -> Child:
    def forget_address() -> None:
        if address is not None:
            address.unlink(missing_ok=True)

    return Child(
        name=name,
        argv=(sys.executable, *arguments),
        env={**os.environ, "BATCHDESK_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
        prepare=forget_address,
        ready=address.exists if address is not None else None,
        layer=SANDBOX_LAYER if address is not None else WORK_LAYER,
    )
