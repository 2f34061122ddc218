"""`batchdesk plugins`: which plugins there are; writing and checking them is in `kit`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from webapp import PLUGINS, db, wishes
from webapp.cli import kit
from webapp.cli.environment import has_database, opened
from webapp.cli.installing import COMMANDS, agreement_told
from webapp.cli.starting import OWNER, read_pairs
from webapp.errors import LocalServicesError
from webapp.hooks import Registry
from webapp.hooks.configured import Configured
from webapp.hooks.loading import Loader
from webapp.installed import configuring, overview, pluginset
from webapp.settings import load


@click.group()
def plugins() -> None:
    """Plugins: list them, write one, check, install, upgrade, enable, disable and remove them."""


for _command in (kit.new, kit.check, *COMMANDS):
    plugins.add_command(_command)


def _registry() -> Registry:
    return pluginset.load_without_database(Loader(PLUGINS, safe_mode=load().safe_mode))


@plugins.command("list")
def list_plugins() -> None:
    """The plugins, their tasks and settings; those that were left out, with the reason; and of those that are
    installed the version in use, who installed it, and whether all processes have it.
    """
    if not has_database(load()):
        _list(_registry())
        return
    try:
        _list_all()
    except (LocalServicesError, DBAPIError) as error:
        _list(_registry())
        words = db.trouble(error) if isinstance(error, DBAPIError) else None
        raise LocalServicesError(f"Those that are installed cannot be shown: {words or error}") from None


def _list_all() -> None:
    with opened(working=False) as app:
        registry = app.extensions["batchdesk"].registry
        with db.transaction() as tx:
            installed = overview.installed(tx)
            disabled = overview.disabled(tx)
            now = overview.agreement(tx)
        _list(registry)
        for one in installed:
            _list_installed(one)
        for one in disabled:
            click.echo(f"{one.name} is disabled, by {one.changed_by}, {one.changed_at:%Y-%m-%d %H:%M} UTC")
        for line in agreement_told(now):
            click.echo(line)


def _list_installed(one: Any) -> None:
    """A line about an installed plugin."""
    click.echo(
        f"{one.name} {one.version} is installed{'' if one.enabled else ', and disabled'}: by {one.changed_by}, "
        f"{one.changed_at:%Y-%m-%d %H:%M} UTC, from {one.file_name}, sha256 {one.sha256}"
        + (f"; rollback goes to {one.former}" if one.former else "")
        + (f"; {one.runs:,} runs that are not over name it" if one.runs else "")
    )


def _list(registry: Registry) -> None:
    for plugin in registry.plugins:
        click.echo(f"{plugin.name} {plugin.version}  ({plugin.source})  hooks: {', '.join(plugin.hooks)}")
        if plugin.settings is not None:
            _list_settings(plugin.settings, "  ")
        for name in plugin.tasks:
            task = registry.tasks[name]
            click.echo(f"  {name}: {task.title}; takes {', '.join(sorted(task.subject_kinds))}")
            _list_settings(task, "    ")
        for name in plugin.sources:
            click.echo(f"  {name}: {registry.sources[name].title}; a source")
            _list_settings(registry.sources[name], "    ")
        for name in plugin.sinks:
            click.echo(f"  {name}: {registry.sinks[name].title}; a sink")
            _list_settings(registry.sinks[name], "    ")
    for problem in registry.problems:
        click.echo(f"{problem.plugin} was left out ({problem.source}): {problem.error}", err=True)
    if not registry.plugins:
        click.echo("No plugin is loaded." + (" Safe mode is on." if load().safe_mode else ""), err=True)


def _list_settings(owner: Configured[Any], indent: str) -> None:
    for field, info in owner.Settings.model_fields.items():
        needed = "needed" if info.is_required() else f"default {info.get_default(call_default_factory=True)}"
        click.echo(f"{indent}{field} ({needed}): {info.description or ''}")


@plugins.command("set")
@click.argument("name")
@click.argument("pairs", nargs=-1, callback=read_pairs, metavar="[KEY=VALUE]…")
def set_plugin(name: str, pairs: Mapping[str, str]) -> None:
    """Change settings of a plugin's own; without any, show what they are. Those not named stay as they are.

    Secrets are written as env:NAME, an environment variable where the workers run.
    """
    with opened(working=False) as app:
        registry = app.extensions["batchdesk"].registry
        info = configuring.plugin_named(registry, name)
        if pairs:
            changed = wishes.ask_configure(name, pairs, actor=OWNER)
            click.echo("Changed." if changed else "Nothing changed: they are so already.", err=True)
        with db.transaction() as tx:
            found = configuring.settings_of(tx, registry, info).model_dump(mode="json")
    for key, value in found.items():
        click.echo(f"{key}={'' if value is None else value if isinstance(value, str) else json.dumps(value)}")
    if not found:
        click.echo(f"Plugin '{name}' has no settings of its own.", err=True)
