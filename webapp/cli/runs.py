"""`batchdesk status`, `resubmit`, `cancel` and `export`: what one asks of runs that exist."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from webapp import db, jobs
from webapp.batches import queries
from webapp.batches.exporting import check_out_path, write_outputs
from webapp.batches.queries import Summary
from webapp.batches.states import FailureClass
from webapp.cli.environment import opened
from webapp.cli.run import OWNER
from webapp.cli.waiting import Ending, describe, finish, interruptible, wait_for

CANCEL_PATIENCE = 60.0  # seconds in which the API is to be told

CLASSES = [*(failure.value for failure in FailureClass), "all"]


@click.command()
@click.argument("run_id", metavar="[RUN]", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or a list of them without RUN.")
def status(run_id: int | None, as_json: bool) -> None:
    """Where a run stands; without RUN, the latest runs."""
    with opened(working=False), db.transaction() as tx:
        if run_id is not None:
            found = queries.summary(tx, run_id)
            click.echo(json.dumps(found.as_json()) if as_json else _line(queries.run_status(tx, run_id), found))
            return
        runs = queries.recent_runs(tx)
        if as_json:
            click.echo(json.dumps([queries.summary(tx, one).as_json() for one in runs]))
            return
        for one in runs:
            click.echo(_line(queries.run_status(tx, one), queries.summary(tx, one)))
        if not runs:
            click.echo("No run yet. Start one: batchdesk run classify records.jsonl --set labels=a,b --out out.jsonl")


def _line(where: queries.RunStatus, summary: Summary) -> str:
    reason = f" ({where.reason})" if where.reason else ""
    return f"{where.task}, {where.state}{reason}. {describe(summary)}"


@click.command()
@click.argument("run_id", metavar="RUN", type=int)
@click.option(
    "--class", "failure_class", type=click.Choice(CLASSES), default="all", show_default=True,
    help="Which failures are sent again.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Where the outputs go: a .jsonl or .csv file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last on stdout.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting after so long.")
@click.option("--no-wait", is_flag=True, help="Leave at once; the workers go on.")
@click.pass_context
def resubmit(
    context: click.Context,
    run_id: int,
    failure_class: str,
    out: Path | None,
    as_json: bool,
    timeout: float | None,
    no_wait: bool,
) -> None:
    """Send a run's failures again, and wait for it like `run` does."""
    if out is not None:
        check_out_path(out)
    classes = list(FailureClass) if failure_class == "all" else [FailureClass(failure_class)]
    with interruptible(), opened(working=not no_wait):
        count = jobs.ask_resubmit(run_id, classes, actor=OWNER)
        click.echo(f"{count:,} subjects are sent again." if count else "There is nothing to send again.", err=True)
        with db.transaction() as tx:
            present = Ending(queries.summary(tx, run_id), None)
        ending = wait_for(run_id, timeout=timeout) if count and not no_wait else present
        if no_wait and count:
            out = None
        context.exit(finish(ending, out=out, as_json=as_json))


@click.command()
@click.argument("run_id", metavar="RUN", type=int)
def cancel(run_id: int) -> None:
    """Stop a run: what is unsent is discarded, what is at the API is cancelled there. What was paid for is kept."""
    with interruptible(), opened(working=True):
        jobs.ask_cancel_run(run_id, actor=OWNER)
        deadline = time.monotonic() + CANCEL_PATIENCE
        while _untold(run_id) and time.monotonic() < deadline:
            time.sleep(0.2)
        left = _untold(run_id)
        click.echo(
            f"Run {run_id}: {left} batches are still to be told; the workers do it." if left else
            f"Run {run_id} is being cancelled; the API ends what it is working on.",
            err=True,
        )  # fmt: skip


def _untold(run_id: int) -> int:
    """Batches of a cancelled run that the API does not know to be cancelled yet."""
    with db.transaction() as tx:
        count: int = db.scalar(
            tx,
            "SELECT count(*) FROM batches WHERE run_id = :run AND state IN ('planned', 'submitting', 'in_progress')",
            run=run_id,
        )
    return count


@click.command()
@click.argument("run_id", metavar="RUN", type=int)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .jsonl or .csv file.")
def export(run_id: int, out: Path) -> None:
    """Write a run's outputs, one line per subject, in input order; unfinished ones are `pending`."""
    check_out_path(out)
    with opened(working=False), db.transaction() as tx:
        queries.run_status(tx, run_id)
        count = write_outputs(queries.outputs(tx, run_id), out)
    click.echo(f"{count:,} outputs written to {out}.", err=True)
