"""`batchdesk demo`: real examples through the whole road, on a fresh machine, against the sandbox.
`make demo` calls it; the dashboard stays up unless it is asked to run once.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import sysconfig
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import click

from webapp import create_app, db, jobs
from webapp.batches import queries
from webapp.batches.queries import Summary
from webapp.cli.app import FAILURES
from webapp.cli.serving import bring_up
from webapp.cli.waiting import INTERRUPTED, Ending, interruptible, wait_for
from webapp.datasets.importing import Sieve, import_records
from webapp.errors import Refused
from webapp.local import Supervisor
from webapp.records.reading import read_records
from webapp.runs import verbs
from webapp.settings import load

LABELS = "network,files,text,numbers,time,processes,testing,language"
FIELDS = """\
purpose: needed text, what the module is for
audience: one of beginners|everyone|experts, whom it is written for
has_example: boolean, whether it shows an example of use
names: list, the functions and classes that it names
"""
IMAGE_PACKAGES = ("flask-admin", "werkzeug")
IMAGES = 12
LONGEST_TEXT = 4000


@click.command()
@click.option("--once", is_flag=True, help="Leave when the runs are done.")
@click.option("--live", is_flag=True, help="Use the API key of the environment: this costs money, and asks first.")
@click.pass_context
def demo(context: click.Context, once: bool, live: bool) -> None:
    """Run `classify` and `extract` over the docstrings of Python's own modules, `alt_text` over images of packages."""
    if not live:
        for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
            del os.environ[name]
    os.environ.setdefault("BATCHDESK_POLL_SCHEDULE", "*:1")
    settings = load()
    material = settings.home / "demo"
    documents, images = write_documents(material / "docstrings.jsonl"), copy_images(material / "images")
    if live:
        _confirm(documents)
    with interruptible(), Supervisor(settings.home, log=lambda message: click.echo(message, err=True)) as supervisor:
        try:
            bring_up(supervisor, settings, workers=2)
            app = create_app(settings)
            with app.app_context():
                endings = [
                    _run("classify", documents, labels=LABELS),
                    # Without evidence: the sandbox makes its quotes up.
                    _run("extract", documents, fields=FIELDS, evidence="none"),
                    _run("alt_text", images),
                ]
                click.echo(table([ending.summary for ending in endings]))
            if once:
                context.exit(max(ending.status for ending in endings))
            click.echo("The dashboard stays up; Ctrl-C ends it.", err=True)
            supervisor.watch()
        except KeyboardInterrupt:
            click.echo("Stopping.", err=True)
            if once:
                context.exit(FAILURES)


def _confirm(documents: Path) -> None:
    text = documents.read_bytes()
    size = 2 * len(text)  # each document is sent with two tasks
    # Input at 0.05 USD a million tokens; prompts and answers come to about 0.0001 USD a document; the images to 0.02.
    cost = size / 3 * 0.05 / 1e6 + text.count(b"\n") * 0.0001 + 0.02
    click.echo(
        f"This sends about {size:,} bytes of text and {IMAGES} images to the API with your key. With claude-haiku-5-5 "
        f"it costs about {cost:.2f} USD.",
        err=True,
    )
    if not click.confirm("Go on?", err=True):
        raise Refused("Nothing was sent.")


def write_documents(path: Path) -> Path:
    """The docstrings of the standard library's modules as records: real text that is on any machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for name, text in _docstrings(Path(sysconfig.get_paths()["stdlib"])):
            file.write(json.dumps({"key": name, "text": text[:LONGEST_TEXT]}) + "\n")
    return path


def _docstrings(folder: Path) -> Iterator[tuple[str, str]]:
    for source in sorted(folder.glob("*.py")):
        try:
            text = ast.get_docstring(ast.parse(source.read_text("utf-8")))
        except (SyntaxError, UnicodeDecodeError):
            continue
        if text and text.strip():
            yield source.stem, text


def copy_images(folder: Path) -> Path:
    """The largest images that installed packages bring along."""
    folder.mkdir(parents=True, exist_ok=True)
    icons = Path(sysconfig.get_paths()["stdlib"]) / "idlelib" / "Icons"
    found = {path.name: path for path in icons.glob("*.png")}
    for package in IMAGE_PACKAGES:
        for file in distribution(package).files or []:
            if file.suffix in (".png", ".gif", ".jpg"):
                found.setdefault(file.name, Path(str(file.locate())))
    largest = sorted(found.items(), key=lambda named: (-named[1].stat().st_size, named[0]))
    for name, path in largest[:IMAGES]:
        shutil.copyfile(path, folder / name)
    return folder


def _run(task_name: str, source: Path, **raw: str) -> Ending:
    from flask import current_app

    registry = current_app.extensions["batchdesk"].registry
    task = registry.task(task_name)
    with db.transaction() as tx:
        records = Sieve(None).records(read_records(source))
        dataset, kind = import_records(tx, records, name=source.name, source=source, text_field="text", owner="demo")
        verbs.check_kind(task, kind)
        settings = registry.parse_settings(task, raw)
        run_id = verbs.start_run(tx, dataset_id=dataset, task=task, settings=settings, owner="demo")
    jobs.nudge()
    click.echo(f"Run {run_id}: {task_name} over {source.name}", err=True)
    ending = wait_for(run_id)
    if ending.stopped == INTERRUPTED:
        raise KeyboardInterrupt
    return ending


def table(summaries: list[Summary]) -> str:
    """The runs as a small table for the terminal."""
    with db.transaction() as tx:
        tasks = [queries.run_status(tx, summary.run).task for summary in summaries]
    lines = [f"{'run':>4}  {'task':<10} {'requests':>9} {'succeeded':>9} {'failed':>7} {'batches':>7} {'cost USD':>10}"]
    for task, one in zip(tasks, summaries, strict=True):
        cost = "unpriced" if one.cost_usd is None else f"{one.cost_usd:.6f}"
        lines.append(
            f"{one.run:>4}  {task:<10} {one.requests:>9,} {one.succeeded:>9,} {one.failures:>7,} "
            f"{one.batches:>7,} {cost:>10}"
        )
    return "\n".join(lines)
