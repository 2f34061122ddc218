"""`batchdesk status`, `resubmit`, `pause`, `resume`, `cancel` and `export`: what one asks of runs that exist."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import click

from webapp import db, wishes
from webapp.batches import queries
from webapp.batches.queries import Summary
from webapp.batches.states import FailureClass, RunState
from webapp.cli.app import OK
from webapp.cli.environment import opened, through
from webapp.cli.starting import OWNER, read_cap
from webapp.cli.waiting import deadline_of, describe, finish, interruptible, present, see_out
from webapp.money.caps import Scope
from webapp.records.exporting import check_out_path, write_outputs

CANCEL_PATIENCE = 60.0  # seconds in which the API is to be told

RUN = click.IntRange(1, 2**63 - 1)  # PostgreSQL's bigint
CLASSES = [*(failure.value for failure in FailureClass), "all"]


@click.command()
@click.argument("run_id", metavar="[RUN]", type=RUN, required=False)
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
    return f"{where.task}, {where.state}{reason}. {describe(summary, where.counts)}"


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
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
    """Send a run's failures again, and wait for it like `run` does. A pause of the run ends with it.

    With nothing to send again, a run that is under way is waited for, and one that is over shows its present status.
    """
    if out is not None:
        check_out_path(out)
    classes = list(FailureClass) if failure_class == "all" else [FailureClass(failure_class)]
    until = deadline_of(timeout)
    asked: list[bool] = []

    def work() -> int:
        if not asked:
            asked.append(_send_again(run_id, classes))
        if no_wait and asked[0]:
            finish(present(run_id), out=None, as_json=as_json)
            return OK
        if no_wait:
            return finish(present(run_id), out=out, as_json=as_json)
        return see_out(run_id, until=until, out=out, as_json=as_json)

    with interruptible():
        context.exit(through(work, working=not no_wait))


def _send_again(run_id: int, classes: Sequence[FailureClass]) -> bool:
    """Ask for new attempts, or at least for the end of a pause; whether anything goes on by that."""
    with db.transaction() as tx:
        state = queries.run_status(tx, run_id).state
    count = 0 if state == RunState.PLANNING else wishes.ask_resubmit(run_id, classes, actor=OWNER)
    if count:
        click.echo(f"{count:,} subjects are sent again.", err=True)
    elif state == RunState.PAUSED:
        wishes.ask_resume(run_id, actor=OWNER)
        click.echo(f"Run {run_id} is resumed.", err=True)
    else:
        click.echo("There is nothing to send again.", err=True)
    return bool(count) or state == RunState.PAUSED


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
def cancel(run_id: int) -> None:
    """Stop a run: what is unsent is discarded, what is at the API is cancelled there. What was paid for is kept."""

    def work() -> int:
        wishes.ask_cancel_run(run_id, actor=OWNER)
        deadline = time.monotonic() + CANCEL_PATIENCE
        while _untold(run_id) and time.monotonic() < deadline:
            time.sleep(0.2)
        return _untold(run_id)

    with interruptible():
        left = through(work, working=True)
    click.echo(
        f"Run {run_id}: {left} batches are still to be told; the workers do it." if left else
        f"Run {run_id} is being cancelled; the API ends what it is working on.",
        err=True,
    )  # fmt: skip


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
def pause(run_id: int) -> None:
    """Send nothing more of a run until it is resumed. What is at the API goes on, comes in and is kept."""
    with opened(working=False):
        wishes.ask_pause(run_id, actor=OWNER)
    click.echo(f"Run {run_id} is paused; `batchdesk resume {run_id}` sends what waits.", err=True)


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@click.option("--cap", callback=read_cap, metavar="USD", help="The most that it may cost from now on, all in all.")
def resume(run_id: int, cap: Decimal | None) -> None:
    """End a run's pause: what waits is sent by the workers that are up."""
    with opened(working=False):
        if cap is not None:
            wishes.ask_cap(Scope.RUN, str(run_id), cap, actor=OWNER)
        wishes.ask_resume(run_id, actor=OWNER)
    click.echo(f"Run {run_id} goes on; `batchdesk resubmit {run_id}` waits for it, `batchdesk up` works on.", err=True)


def _untold(run_id: int) -> int:
    """Batches of a cancelled run that the API does not know to be cancelled yet."""
    with db.transaction() as tx:
        count: int = db.scalar(
            tx,
            "SELECT count(*) FROM batches WHERE run_id = :run AND state IN ('planned', 'submitting', 'in_progress') "
            "AND proved",  # the others wait for their proof, for as long as the API works on them
            run=run_id,
        )
    return count


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .jsonl or .csv file.")
def export(run_id: int, out: Path) -> None:
    """Write a run's outputs, one line per subject, in input order; unfinished ones are `pending`."""
    check_out_path(out)
    with opened(working=False), db.transaction(by_key=True) as tx:
        queries.run_status(tx, run_id)
        count = write_outputs(queries.outputs(tx, run_id), out)
    click.echo(f"{count:,} outputs written to {out}.", err=True)
