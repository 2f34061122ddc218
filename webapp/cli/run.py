"""`batchdesk run`: the main job. Imports the input, starts a run, waits for it, writes its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from webapp import PLUGINS, db
from webapp.batches import runs
from webapp.batches.exporting import check_out_path, rejected_path, setting_aside
from webapp.batches.importing import Sieve, import_records
from webapp.batches.records import Problem, Record, problems_report, read_records
from webapp.cli.environment import through
from webapp.cli.waiting import deadline_of, interruptible, see_out
from webapp.errors import InputError
from webapp.hooks import Task, load_plugins
from webapp.settings import load

OWNER = "command line"
SKIP_HINT = "Nothing was sent. Mend them, or add --skip-bad to set them aside and go on with the rest."


def parse_pairs(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """`--set name=value …` as a mapping."""
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"'{pair}' is not NAME=VALUE.")
        if name in settings:
            raise click.BadParameter(f"'{name}' is set twice.")
        settings[name] = value
    return settings


@click.command()
@click.argument("plugin")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "--set", "pairs", multiple=True, callback=parse_pairs, metavar="NAME=VALUE", help="A setting of the task."
)
@click.option("--key-field", default="key", show_default=True, help="The field that holds each record's key.")
@click.option("--text-field", default="text", show_default=True, help="The field that holds each record's text.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the outputs go: a .jsonl or .csv file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last on stdout.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting after so long.")
@click.option("--skip-bad", is_flag=True, help="Set bad records aside in a file and go on with the rest.")
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
    dry_run: bool,
) -> None:
    """Run a task over records: INPUT is a .jsonl or .csv file, or a folder of text files or images.

    Exit status: 0 all succeeded, 3 finished with failures, 4 stopped waiting, 2 bad usage or input.
    """
    registry = load_plugins(folder=PLUGINS, safe_mode=load().safe_mode)
    task, settings = registry.task(plugin), registry.parse_settings(plugin, pairs)
    if out is not None:
        check_out_path(out)
    found = read_records(source, key_field=key_field, text_field=text_field)
    if dry_run:
        from webapp.cli.dry_run import rehearse

        context.exit(rehearse(registry, task, settings, found, text_field=text_field, as_json=as_json))
    until = deadline_of(timeout)
    rejected = rejected_path(out, source)
    started: list[int] = []

    def work() -> int:
        if not started:
            with ExitStack() as stack:
                put = stack.enter_context(setting_aside(rejected)) if skip_bad else None
                sieve = Sieve(put)
                started.append(_start(task, settings, sieve, found, source, text_field))
            _tell_rejected(sieve, rejected)
        return see_out(started[0], until=until, out=out, as_json=as_json)

    with interruptible():
        context.exit(through(work, working=True))


def _start(
    task: Task[Any], settings: BaseModel, sieve: Sieve, found: Iterable[Record | Problem], source: Path, text_field: str
) -> int:
    """Import and start in one transaction: a fault leaves nothing behind."""
    try:
        with db.transaction() as tx:
            dataset_id, kind = import_records(
                tx, sieve.records(found), name=source.name, source=source, text_field=text_field, owner=OWNER
            )
            runs.check_kind(task, kind)
            run_id = runs.start_run(tx, dataset_id=dataset_id, task=task, settings=settings, owner=OWNER)
    except InputError as error:
        if not sieve.count:
            raise
        raise InputError(f"{error}\n{SKIP_HINT}") from None
    click.echo(f"Run {run_id} of {task.name} started.", err=True)
    return run_id


def _tell_rejected(sieve: Sieve, path: Path) -> None:
    if sieve.count:
        click.echo(problems_report(sieve.first, sieve.count), err=True)
        click.echo(f"They are set aside in {path}; the rest goes on.", err=True)
