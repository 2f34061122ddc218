"""Opens the installation for a command: the services that are up, or embedded ones of its own for as long as it takes.
Every command that needs the database enters `opened`.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click
from flask import Flask
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from webapp import (
    ROOT,
    create_app,
    local,
    services,
)
from webapp.errors import LocalServicesError
from webapp.local import Child, Supervisor
from webapp.settings import Settings, load

T = TypeVar("T")

OTHER_PATIENCE = 30.0  # seconds that another command may take to start the services, or to stop them
LEAVING_PATIENCE = 3.0  # seconds for an owner that was killed to be gone
LOOK_SECONDS = 0.2
POST_PATIENCE = 30.0  # seconds for a worker to end: its steps stop within five, a POST under way takes longer
# Higher layers end first: a worker's POST is finished before the sandbox goes.
SANDBOX_LAYER, WORK_LAYER = 5, 10


@contextmanager
def opened(*, working: bool) -> Iterator[Flask]:
    """The application in its context, with its services up.

    With embedded services that nobody keeps up, this command is their owner until it leaves. Another command may be
    about to start or to stop them: that is waited for.

    :param working: True when the command waits for work: then a worker, a clock and (without a key) the sandbox are
        started with the services.
    """
    settings = load()
    with ExitStack() as stack:
        yield _open(stack, settings, working)


def has_database(settings: Settings) -> bool:
    """Whether there is a database: one that is given, or an embedded one that was made before."""
    return settings.database_url is not None or (settings.home / "postgres").is_dir()


def through(work: Callable[[], T], *, working: bool) -> T:
    """Do some work in the opened installation and return what it returns.

    When the command that kept the services up leaves meanwhile, the work is done once more, with services of our own
    or of another: it must be such that it may be.
    """
    while True:
        with opened(working=working):
            try:
                return work()
            except DBAPIError as error:
                if not (connection_lost(error) and _owner_leaves()):
                    raise


def connection_lost(error: DBAPIError) -> bool:
    """Whether the database went away, rather than refused something."""
    return isinstance(error, OperationalError | InterfaceError)


def owner_left() -> bool:
    """Whether the embedded services that the current application uses are gone with whoever kept them up."""
    from flask import current_app

    from webapp.db import normal_url

    settings = current_app.extensions["batchdesk"].settings
    if not settings.embedded:
        return False
    if local.running(settings.home) is None:
        return True
    database_url, _ = services.urls(settings)
    return bool(normal_url(database_url) != current_app.config["SQLALCHEMY_DATABASE_URI"])


def _owner_leaves() -> bool:
    """Whether the owner has left, or does in a moment: its services are gone a little before it is."""
    deadline = time.monotonic() + LEAVING_PATIENCE
    while not owner_left():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _open(stack: ExitStack, settings: Settings, working: bool) -> Flask:
    deadline = time.monotonic() + OTHER_PATIENCE
    while True:
        guest = not settings.embedded or local.running(settings.home) is not None
        try:
            with ExitStack() as attempt:
                app = _as_guest(attempt) if guest else _as_owner(attempt, settings, working)
                stack.enter_context(attempt.pop_all())
                return app
        except (LocalServicesError, OperationalError, InterfaceError):
            passing = settings.embedded and (guest or local.held(settings.home))
            if not passing or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)


def _as_guest(stack: ExitStack) -> Flask:
    app = stack.enter_context(_app())
    _check_schema(app)
    return app


def _as_owner(stack: ExitStack, settings: Settings, working: bool) -> Flask:
    supervisor = stack.enter_context(Supervisor(settings.home, log=_tell))
    supervisor.start_services()
    app = stack.enter_context(_app())
    migrate()
    if working:
        start_work(supervisor, settings, workers=1)
    return app


@contextmanager
def _app() -> Iterator[Flask]:
    from webapp.db import db

    app = create_app()
    with app.app_context():
        try:
            yield app
        finally:
            db.engine.dispose()


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
        worker = _python(settings, f"worker-{number}", str(ROOT / "worker.py"), "work")
        supervisor.add(replace(worker, stop_seconds=POST_PATIENCE))
    supervisor.add(_python(settings, "clock", str(ROOT / "worker.py"), "clock"))


def sandbox_child(settings: Settings) -> Child:
    """The sandbox over this home's own batches; ready when its address is written."""
    folder, address = services.sandbox_folder(settings), services.sandbox_address(settings)
    folder.mkdir(parents=True, exist_ok=True)
    # One port for as long as the supervisor lives: started again, it must be where everybody has found it.
    with socket.create_server((services.SANDBOX_HOST, 0)) as free:
        port = str(free.getsockname()[1])
    arguments = ("-m", "webapp.sandbox", "--folder", str(folder), "--port", port, "--address-file", str(address))
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
