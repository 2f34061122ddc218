"""`batchdesk plugins install`, `upgrade`, `rollback`, `enable`, `disable` and `remove`: what is there in which version.
What is to be installed is shown first, and nothing of it runs before that was confirmed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from flask import current_app

from webapp import db, wishes
from webapp.cli.app import STOPPED_WAITING
from webapp.cli.environment import opened
from webapp.cli.starting import OWNER
from webapp.errors import InputError
from webapp.installed import installing, overview
from webapp.installed.overview import Agreement
from webapp.installed.versions import runs_named
from webapp.packages import fetching
from webapp.packages.wheels import Wheel
from webapp.settings import PluginInstall

TAKEN_UP_PATIENCE = 30.0  # seconds for the processes that are up to take a changed set up
LOOK_SECONDS = 0.25

_YES = click.option("--yes", is_flag=True, help="Do not ask before it is installed.")


@click.command()
@click.argument("what")
@_YES
@click.pass_context
def install(context: click.Context, what: str, yes: bool) -> None:
    """Install a plugin for all web and worker processes: WHAT is a wheel, a folder with a project, or a package that
    pip knows, like NAME or NAME==VERSION. Its name, hash, needs and hooks are shown first.
    """
    context.exit(_put(what, yes=yes, upgrade=False))


@click.command()
@click.argument("what")
@_YES
@click.pass_context
def upgrade(context: click.Context, what: str, yes: bool) -> None:
    """Bring another version of an installed plugin into use; WHAT as for install. Runs in flight keep theirs."""
    context.exit(_put(what, yes=yes, upgrade=True))


@click.command()
@click.argument("name")
def rollback(name: str) -> None:
    """Bring the version of a plugin that was in use before into use again."""
    with opened(working=False):
        version = wishes.ask_plugin_rollback(name, actor=OWNER, gate=PluginInstall.CLI)
        click.echo(f"Plugin '{name}' is at version {version} again; the next rollback goes back.", err=True)
        _see_taken_up()


@click.command()
@click.argument("name")
def enable(name: str) -> None:
    """Load a plugin for new runs again, installed or not."""
    with opened(working=False):
        wishes.ask_plugin_enabled(name, True, actor=OWNER, gate=PluginInstall.CLI)
        click.echo(f"Plugin '{name}' is enabled.", err=True)
        _see_taken_up()


@click.command()
@click.argument("name")
def disable(name: str) -> None:
    """Load a plugin for no new run, installed or not. Runs in flight finish: `batchdesk pause` stops them."""
    with opened(working=False):
        wishes.ask_plugin_enabled(name, False, actor=OWNER, gate=PluginInstall.CLI)
        click.echo(f"Plugin '{name}' is disabled. Runs of it that are in flight finish.", err=True)
        _see_taken_up()


@click.command()
@click.argument("name")
def remove(name: str) -> None:
    """Take an installed plugin away. Runs in flight finish with the version they have."""
    with opened(working=False):
        needing = wishes.ask_plugin_remove(name, actor=OWNER, gate=PluginInstall.CLI)
        click.echo(f"Plugin '{name}' is removed.", err=True)
        if needing:
            click.echo(f"Its wheel is kept for {runs_named(needing)} until they are over.", err=True)
        _see_taken_up()


COMMANDS = (install, upgrade, rollback, enable, disable, remove)


def _put(what: str, *, yes: bool, upgrade: bool) -> int:
    with opened(working=False):
        wishes.check_gate(PluginInstall.CLI)
        desk = current_app.extensions["batchdesk"]
        wheel = _wheel(what)
        installing.check(desk, wheel)
        for line in shown(wheel):
            click.echo(line, err=True)
        if not yes and not _confirmed():
            click.echo("Nothing was installed.", err=True)
            return STOPPED_WAITING
        brings = installing.tried(desk, wheel)
        wishes.ask_plugin_put(wheel, brings, actor=OWNER, upgrade=upgrade)
        tasks = ", ".join(task["name"] for one in brings for task in one["tasks"])
        click.echo(
            f"Plugin '{wheel.about.name}' {wheel.about.version} is installed"
            + (f"; it brings the tasks: {tasks}." if tasks else "."),
            err=True,
        )
        _see_taken_up()
    return 0


def _wheel(what: str) -> Wheel:
    path = Path(what)
    if path.is_dir():
        click.echo(f"Building a wheel of {path} …", err=True)
        return fetching.from_folder(path)
    if path.is_file() or what.endswith(".whl") or os.sep in what:
        return fetching.from_file(path)
    wanted = fetching.requirement(what)
    click.echo(f"Getting {wanted} …", err=True)
    return fetching.from_index(wanted)


def shown(wheel: Wheel) -> Iterator[str]:
    """What a person is told of a wheel before it is installed."""
    about = wheel.about
    yield f"{about.name} {about.version}  {about.summary}".rstrip()
    yield f"  file: {wheel.file_name}, {len(wheel.content):,} bytes"
    yield f"  sha256: {wheel.sha256}"
    yield f"  needs: {', '.join(about.requires) or 'nothing'}; all of it is here"
    yield f"  brings: the modules {', '.join(about.modules)}; the hooks {', '.join(about.hooks) or 'none'}"
    yield "  A plugin is code that runs as Batchdesk does: install it only if you trust whoever wrote it."


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise InputError("Nothing was installed: nobody can be asked here. Add --yes to install it all the same.")
    return click.confirm("Install it?", err=True)


def _see_taken_up() -> None:
    """Wait a little until the processes that are up have taken the change up, and say so."""
    deadline = time.monotonic() + TAKEN_UP_PATIENCE
    while (now := _agreement()).behind and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    for line in agreement_told(now):
        click.echo(line, err=True)


def _agreement() -> Agreement:
    with db.transaction() as tx:
        return overview.agreement(tx)


def agreement_told(now: Agreement) -> Iterator[str]:
    """Whether the processes agree, in sentences; none where no process is up."""
    if now.behind:
        yield f"Not taken up yet by: {', '.join(now.behind)}. See whether they are up, and their logs."
    elif now.taken_up and not now.asleep:
        count = len(now.taken_up)
        yield f"Taken up by {'the one process that is' if count == 1 else f'all {count} processes that are'} up."
    elif now.taken_up:
        yield f"Taken up by: {', '.join(now.taken_up)}."
    if now.asleep:
        yield f"Before the next page that anybody asks for, also by: {', '.join(now.asleep)}."
    for one in now.processes:
        for problem in one.plugin_problems or ():
            yield f"{one.name}: {problem['error']}"
