"""`batchdesk run`: the main job. Imports the input, starts a run, waits for it, writes its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import click

from webapp import PLUGINS
from webapp.batches.desk import Desk
from webapp.cli.environment import has_database, opened, through
from webapp.cli.starting import Wanted, read_cap, read_pairs, start
from webapp.cli.waiting import deadline_of, interruptible, patiently, see_out
from webapp.hooks import Registry, load_plugins
from webapp.records.exporting import check_out_path, rejected_path
from webapp.settings import load


def _registry(task: str) -> Registry:
    """The plugins of the environment; where these have no such task, and there is a database, the installed ones too.

    The task is known before anything is started: what can be refused is refused at once.
    """
    settings = load()
    registry = load_plugins(folder=PLUGINS, safe_mode=settings.safe_mode)
    if task in registry.tasks or not has_database(settings):
        return registry
    with opened(working=False) as app:
        desk: Desk = app.extensions["batchdesk"]
        return desk.registry


@click.command()
@click.argument("plugin")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--set", "pairs", multiple=True, callback=read_pairs, metavar="NAME=VALUE", help="A setting of the task.")
@click.option("--key-field", default="key", show_default=True, help="The field that holds each record's key.")
@click.option("--text-field", default="text", show_default=True, help="The field that holds each record's text.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the outputs go: a .jsonl or .csv file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last on stdout.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting after so long.")
@click.option("--skip-bad", is_flag=True, help="Set bad records aside in a file and go on with the rest.")
@click.option("--cap", callback=read_cap, metavar="USD", help="The most that it may cost, all attempts together.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.pass_context
def run(
    context: click.Context,
    plugin: str,
    source: Path,
    pairs: Mapping[str, str],
    key_field: str,
    text_field: str,
    out: Path | None,
    as_json: bool,
    timeout: float | None,
    skip_bad: bool,
    cap: Decimal | None,
    dry_run: bool,
) -> None:
    """Run a task over records: INPUT is a .jsonl or .csv file, or a folder of text files or images.

    Exit status: 0 all succeeded, 3 finished with failures, 4 stopped waiting, 2 bad usage or input.
    """
    registry = _registry(plugin)
    task, settings = registry.task(plugin), registry.parse_settings(plugin, pairs)
    if out is not None:
        check_out_path(out)
    rejected = rejected_path(out, source) if skip_bad else None
    wanted = Wanted(task, settings, source, key_field, text_field, rejected, registry.version_of(task), cap)
    if dry_run:
        from webapp.cli.dry_run import rehearse

        found = wanted.records()
        context.exit(
            rehearse(registry, task, settings, found, text_field=text_field, skip_bad=skip_bad, as_json=as_json)
        )
    wanted.records()  # an input that is unusable as a whole is told before anything starts
    until = deadline_of(timeout)
    started: list[int] = []

    def work() -> int:
        if not started:
            started.append(patiently(lambda: start(wanted)))
        return see_out(started[0], until=until, out=out, as_json=as_json)

    with interruptible():
        context.exit(through(work, working=True))
