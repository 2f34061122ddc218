"""`batchdesk run`: the main job. Imports the input, starts a run, waits for it, writes its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import click
from click.core import ParameterSource

from webapp import PLUGINS
from webapp.batches.desk import Desk
from webapp.cli.app import STOPPED_WAITING
from webapp.cli.environment import has_database, opened, through
from webapp.cli.starting import Wanted, read_cap, read_pairs, start
from webapp.cli.taking import Taking, take
from webapp.cli.waiting import deadline_of, interruptible, patiently, see_out
from webapp.datasets.derived import run_named
from webapp.hooks import Registry, calls
from webapp.hooks.loading import Loader
from webapp.installed import pluginset
from webapp.money.priming import Prime
from webapp.records.exporting import check_out_path, rejected_path
from webapp.records.reading import Problem, Record
from webapp.runs import pilots
from webapp.runs.verbs import Manner
from webapp.settings import load


def _registry(task: str, source: str | None) -> Registry:
    """The plugins of the environment; where these have no such task or source, and there is a database, the installed
    ones too.

    The task is known before anything is started: what can be refused is refused at once.
    """
    settings = load()
    registry = pluginset.load_without_database(Loader(PLUGINS, safe_mode=settings.safe_mode))
    there = task in registry.tasks and (source is None or source in registry.sources)
    if there or not has_database(settings):
        return registry
    with opened(working=False) as app:
        desk: Desk = app.extensions["batchdesk"]
        return desk.registry


@click.command()
@click.argument("plugin")
@click.argument("source", metavar="[INPUT]", type=click.Path(path_type=Path), required=False)
@click.option("--set", "pairs", multiple=True, callback=read_pairs, metavar="NAME=VALUE", help="A setting of the task.")
@click.option("--key-field", default="key", show_default=True, help="The field that holds each record's key.")
@click.option("--text-field", default="text", show_default=True, help="The field that holds each record's text.")
@click.option("--source", "origin", metavar="NAME", help="Take the records from a plugin's source, in place of INPUT.")
@click.option(
    "--source-set", "origin_pairs", multiple=True, callback=read_pairs, metavar="NAME=VALUE",
    help="A setting of the source.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Where the outputs go: a .jsonl or .csv file.")
@click.option("--to", multiple=True, metavar="NAME", help="A destination that the outputs go to; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last on stdout.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting after so long.")
@click.option("--skip-bad", is_flag=True, help="Set bad records aside in a file and go on with the rest.")
@click.option("--cap", callback=read_cap, metavar="USD", help="The most that it may cost, all attempts together.")
@click.option(
    "--pilot", type=click.IntRange(1, pilots.MOST), metavar="N",
    help="Send the first N subjects ahead; the rest waits until you have looked at them and resume the run.",
)  # fmt: skip
@click.option(
    "--prime", type=click.Choice([one.value for one in Prime]), default=Prime.AUTO.value, show_default=True,
    help="Send one request ahead, which writes the shared part to the cache; auto: when it pays.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.pass_context
def run(
    context: click.Context,
    plugin: str,
    source: Path | None,
    pairs: Mapping[str, str],
    key_field: str,
    text_field: str,
    origin: str | None,
    origin_pairs: Mapping[str, str],
    out: Path | None,
    to: tuple[str, ...],
    as_json: bool,
    timeout: float | None,
    skip_bad: bool,
    cap: Decimal | None,
    pilot: int | None,
    prime: str,
    dry_run: bool,
) -> None:
    """Run a task over records: INPUT is a .jsonl or .csv file, a folder of text files or images, or run:ID, for the
    outputs of a run. Or the records come from a source.

    Exit status: 0 all succeeded, 3 finished with failures, 4 stopped waiting, 2 bad usage or input.
    """
    registry = _registry(plugin, origin)
    taken = _taken(context, source, origin, origin_pairs)
    task, settings = registry.task(plugin), registry.parse_settings(plugin, pairs)
    if out is not None:
        check_out_path(out)
    manner = Manner(cap, pilot, Prime(prime))
    how = _How(out, as_json, deadline_of(timeout), skip_bad)
    if isinstance(taken, Path):
        rejected = rejected_path(out, taken) if skip_bad else None
        wanted = Wanted(task, settings, taken, key_field, text_field, rejected, registry.version_of(task), manner, to)
        if dry_run:
            context.exit(_rehearse(registry, wanted, wanted.records(), how))
        wanted.records()  # an input that is unusable as a whole is told before anything starts
        context.exit(_seen_out(lambda: patiently(lambda: start(wanted)), how))
    if isinstance(taken, str):
        chosen = registry.source(taken)
        parsed = registry.parse_settings(chosen, origin_pairs)
        text_field = calls.text_field(chosen, parsed)
    if dry_run:
        if isinstance(taken, int):
            raise click.UsageError("--dry-run reads files and sources; the outputs of a run are in the database.")
        wanted = Wanted(task, settings, Path(taken), key_field, text_field, None, None)
        context.exit(_rehearse(registry, wanted, calls.records(chosen, parsed), how))
    taking = Taking(plugin, pairs, taken, origin_pairs, skip_bad, manner, to)
    context.exit(_seen_out(lambda: take(taking, until=how.until), how))


class _How(NamedTuple):
    """How the command goes on and ends."""

    out: Path | None
    as_json: bool
    until: float | None
    skip_bad: bool


def _taken(
    context: click.Context, source: Path | None, origin: str | None, origin_pairs: Mapping[str, str]
) -> Path | str | int:
    """What the run is to be over: a file or folder, the source of that name, or the outputs of a run."""
    if origin is None and origin_pairs:
        raise click.UsageError("--source-set goes with --source.")
    if origin is not None:
        if source is not None:
            raise click.UsageError("Give INPUT or --source, not both.")
        for name in ("key_field", "text_field"):
            if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
                option = name.replace("_", "-")
                raise click.UsageError(f"--{option} is for files: with --source, its settings say it (--source-set).")
        return origin
    if source is None:
        raise click.MissingParameter(ctx=context, param_hint="'INPUT'", param_type="argument")
    return (None if source.exists() else run_named(str(source))) or source


def _rehearse(registry: Registry, wanted: Wanted, found: Iterable[Record | Problem], how: _How) -> int:
    from webapp.cli.dry_run import rehearse

    return rehearse(
        registry, wanted.task, wanted.settings, found,
        text_field=wanted.text_field, skip_bad=how.skip_bad, as_json=how.as_json,
    )  # fmt: skip


def _seen_out(begin: Callable[[], int | None], how: _How) -> int:
    """Start the run and see it to its end; the exit status."""
    started: list[int] = []

    def work() -> int:
        if not started:
            run_id = begin()
            if run_id is None:
                return STOPPED_WAITING
            started.append(run_id)
        return see_out(started[0], until=how.until, out=how.out, as_json=how.as_json)

    with interruptible():
        return through(work, working=True)
