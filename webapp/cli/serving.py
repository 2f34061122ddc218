"""`batchdesk up`, `sandbox` and `migrate`: the processes of an installation, and its database."""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import click

from webapp import create_app, local, services
from webapp.cli.environment import migrate as migrate_database
from webapp.cli.environment import start_work, web_child
from webapp.cli.waiting import interruptible
from webapp.errors import LocalServicesError, Refused
from webapp.local import Supervisor
from webapp.settings import Settings, load

WEB_PATIENCE = 60.0


@click.command()
@click.option("--workers", type=click.IntRange(min=1, max=64), default=2, show_default=True, help="Worker processes.")
def up(workers: int) -> None:
    """Start everything and keep it up: services (embedded unless given), dashboard, workers, clock, sandbox."""
    settings = load()
    with interruptible(), Supervisor(settings.home, log=_tell) as supervisor:
        try:
            bring_up(supervisor, settings, workers=workers)
            click.echo("Ctrl-C ends it; nothing at the API is cancelled by that.", err=True)
            supervisor.watch()
        except KeyboardInterrupt:
            click.echo("Stopping.", err=True)


def bring_up(supervisor: Supervisor, settings: Settings, *, workers: int) -> None:
    """Start all processes of an installation under a supervisor, and say where the dashboard is."""
    if settings.embedded:
        if local.running(settings.home) is not None:
            raise Refused(f"Batchdesk is up already for {settings.home}.")
        supervisor.start_services()
    app = create_app(settings)
    with app.app_context():
        password = migrate_database()
    start_work(supervisor, settings, workers=workers)
    supervisor.add(web_child(settings))
    url = f"http://{settings.host}:{settings.port}"
    _wait_for_web(url)
    click.echo(f"The dashboard is at {url}", err=True)
    if password is not None:
        click.echo(f"Sign in as {settings.admin_email} with the password {password} (shown only now).", err=True)


def _wait_for_web(url: str) -> None:
    # The address is this machine's own: a proxy of the environment would look for it elsewhere.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + WEB_PATIENCE
    while time.monotonic() < deadline:
        try:
            with opener.open(f"{url}/healthz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise LocalServicesError(
        f"The dashboard does not answer at {url}: see log/web.log in the home, or choose another BATCHDESK_PORT."
    )


def _tell(message: str) -> None:
    click.echo(f"batchdesk: {message}", err=True)


@click.command()
def migrate() -> None:
    """Bring the database up to date and make the first admin; once per release, before the processes start."""
    app = create_app()
    with app.app_context():
        password = migrate_database()
        email = app.extensions["batchdesk"].settings.admin_email
    click.echo("The database is up to date.", err=True)
    if password is not None:
        click.echo(f"Sign in as {email} with the password {password} (shown only now).", err=True)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any free one.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where it keeps its batches. Default: in the home.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="How it behaves: see docs/sandbox.md.")
def sandbox(port: int, folder: Path | None, pairs: tuple[str, ...]) -> None:
    """Serve the local Message Batches API alone; its URL is printed. No key, no money."""
    settings = load()
    chosen = folder or services.sandbox_folder(settings)
    chosen.mkdir(parents=True, exist_ok=True)
    arguments = ["--folder", str(chosen), "--port", str(port)]
    arguments += ["--address-file", str(services.sandbox_address(settings) if folder is None else chosen / "address")]
    for pair in pairs:
        arguments += ["--set", pair]
    os.execv(sys.executable, [sys.executable, "-m", "webapp.sandbox", *arguments])  # noqa: S606 - becomes the server
