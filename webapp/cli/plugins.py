"""`batchdesk plugins`: which task plugins there are, and whether each keeps the contract."""

from __future__ import annotations

import click

from webapp import PLUGINS
from webapp.cli.app import BAD_USAGE, OK
from webapp.errors import InputError
from webapp.hooks import Registry, calls, load_plugins
from webapp.settings import load


@click.group()
def plugins() -> None:
    """Task plugins: list them, check them."""


def _registry() -> Registry:
    return load_plugins(folder=PLUGINS, safe_mode=load().safe_mode)


@plugins.command("list")
def list_plugins() -> None:
    """The plugins, their tasks and settings; and those that were left out, with the reason."""
    registry = _registry()
    for plugin in registry.plugins:
        click.echo(f"{plugin.name} {plugin.version}  ({plugin.source})  hooks: {', '.join(plugin.hooks)}")
        for name in plugin.tasks:
            task = registry.tasks[name]
            click.echo(f"  {name}: {task.title}; takes {', '.join(sorted(task.subject_kinds))}")
            for field, info in task.Settings.model_fields.items():
                needed = "needed" if info.is_required() else f"default {info.get_default(call_default_factory=True)}"
                click.echo(f"    {field} ({needed}): {info.description or ''}")
    for problem in registry.problems:
        click.echo(f"{problem.plugin} was left out ({problem.source}): {problem.error}", err=True)
    if not registry.plugins:
        click.echo("No plugin is loaded." + (" Safe mode is on." if load().safe_mode else ""), err=True)


@plugins.command("check")
@click.argument("name", required=False)
@click.pass_context
def check(context: click.Context, name: str | None) -> None:
    """Check that plugins keep the contract: all of them, or the one that is named."""
    registry = _registry()
    problems = [problem for problem in registry.problems if name in (None, problem.plugin)]
    known = [plugin for plugin in registry.plugins if name in (None, plugin.name)]
    if name is not None and not problems and not known:
        raise InputError(f"There is no plugin '{name}'. `batchdesk plugins list` shows what there is.")
    for problem in problems:
        click.echo(f"{problem.plugin}: {problem.error}\n{problem.traceback}".rstrip(), err=True)
    for plugin in known:
        for task_name in plugin.tasks:
            click.echo(f"{plugin.name}: task {task_name}: {_check_defaults(registry, task_name)}")
    context.exit(BAD_USAGE if problems else OK)


def _check_defaults(registry: Registry, task_name: str) -> str:
    """Whether the shared part can be built from the default settings alone."""
    task = registry.tasks[task_name]
    if any(field.is_required() for field in task.Settings.model_fields.values()):
        return "ok (it has settings without a default; its requests are checked when a run is planned)"
    calls.shared_params(task, registry.parse_settings(task, {}))
    return "ok"
