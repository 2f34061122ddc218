"""`batchdesk plugins new` and `plugins check`: for those who write plugins. The group of `plugins` adds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from webapp import PLUGINS
from webapp.cli.app import BAD_USAGE, OK
from webapp.cli.environment import has_database, opened
from webapp.cli.starting import read_pairs
from webapp.errors import InputError
from webapp.hooks import load_plugins
from webapp.installed import pluginset
from webapp.settings import load

if TYPE_CHECKING:
    from webapp.kit import targets as kit_targets


@click.command("new")
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where to write it: a folder that does not exist or is empty. Default: batchdesk-NAME, here.",
)
def new(name: str, folder: Path | None) -> None:
    """Write a package with a task of that name, its tests, and what builds a wheel of it."""
    from webapp.kit import scaffold

    registry = load_plugins(folder=PLUGINS, safe_mode=load().safe_mode)
    place = folder or Path(scaffold.distribution(name))
    for file in scaffold.write_package(name, place, registry):
        click.echo(str(file))
    click.echo(f"Next, in {place}: `python -m pytest`, then `batchdesk plugins check .`", err=True)


@click.command("check")
@click.argument("what", metavar="[PATH|NAME]", required=False)
@click.option(
    "--set", "pairs", multiple=True, callback=read_pairs, metavar="NAME=VALUE", help="A setting of its tasks."
)
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    help="A .jsonl or .csv file, or a folder of texts: records to try its tasks with instead of the samples.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(context: click.Context, what: str | None, pairs: dict[str, str], records: Path | None, as_json: bool) -> None:
    """Prove plugins against the contract, and say for each point what was seen.

    A PATH is a .py file, the folder of a package, or its wheel; a NAME is that of a plugin that is installed here;
    without either all of those are checked.
    """
    from webapp.kit import checking
    from webapp.kit.findings import Level

    own = checking.own_records(records) if records else {}
    counts = dict.fromkeys(Level, 0)
    told = []
    with TemporaryDirectory() as unpacked:
        for target in _targets(what, Path(unpacked)):
            for finding in checking.check(target, pairs, own=own):
                counts[finding.level] += 1
                told.append({"plugin": target.name, **asdict(finding)})
                if not as_json:
                    words = finding.words.replace("\n", "\n    ")
                    click.echo(f"{finding.level:8} {finding.about}: {words}")
    problems, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    if as_json:
        click.echo(json.dumps({"problems": problems, "warnings": warnings, "findings": told}))
    click.echo(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}.", err=True)
    context.exit(BAD_USAGE if problems else OK)


def _targets(what: str | None, unpacked: Path) -> Iterator[kit_targets.Target]:
    from webapp.kit import targets

    registry = load_plugins(folder=PLUGINS, safe_mode=load().safe_mode)
    names = dict.fromkeys(
        [*(plugin.name for plugin in registry.plugins), *(problem.plugin for problem in registry.problems)]
    )
    if what is None:
        yield from (targets.Target(name, "") for name in names)
        yield from _installed()  # last: where the database does not answer, the others have been checked
    elif what in names:
        yield targets.Target(what, "")
    elif Path(what).exists():
        yield from targets.find(Path(what), unpacked)
    else:
        found = [target for target in _installed() if what in (target.name, target.source.partition(" ")[0])]
        if not found:
            raise InputError(
                f"There is no plugin '{what}', and no such path. `batchdesk plugins list` shows what there is."
            )
        yield from found


def _installed() -> list[kit_targets.Target]:
    """The plugins that are installed, each in the version in use."""
    from webapp.kit import targets

    settings = load()
    if not has_database(settings):
        return []
    with opened(working=False):
        versions = pluginset.in_use(settings)
    return [
        targets.Target(name, f"{one.name} {one.version}", one.version, value, str(one.folder))
        for one in versions
        for name, value in one.entry_points
    ]


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
