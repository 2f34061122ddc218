"""`batchdesk destinations` and `deliver`: where outputs go, and what `run` waits for once a run is over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from webapp import db, wishes
from webapp.batches.states import DeliveryState
from webapp.cli.app import FAILURES, OK, tell
from webapp.cli.environment import opened, through
from webapp.cli.starting import OWNER, read_pairs
from webapp.delivery import deliveries
from webapp.delivery import destinations as saved
from webapp.records.escapes import one_line

LOOK_SECONDS = 0.2
PATIENCE = 150.0  # seconds in which a delivery must get on: a sink may take two minutes for a part

RUN = click.IntRange(1, 2**63 - 1)  # PostgreSQL's bigint


@click.group()
def destinations() -> None:
    """Named places where outputs go: list them, add one."""


@destinations.command("list")
def list_destinations() -> None:
    """The destinations that are saved, with their sinks and settings; and the sinks there are."""
    with opened(working=False) as app:
        registry = app.extensions["batchdesk"].registry
        with db.transaction() as tx:
            found = saved.all_of_them(tx)
    for one in found:
        state = "" if one.enabled else "  (disabled)"
        click.echo(f"{one.name}: {one.sink}{state}  {one_line(one.settings, 1_000)}")
    if not found:
        click.echo("No destination is saved yet. Add one: batchdesk destinations add NAME SINK --set SETTING=VALUE")
    for name, sink in sorted(registry.sinks.items()):
        click.echo(f"sink {name}: {sink.title}; settings {', '.join(sink.Settings.model_fields)}")


@destinations.command("add")
@click.argument("name")
@click.argument("sink")
@click.option("--set", "pairs", multiple=True, callback=read_pairs, metavar="NAME=VALUE", help="A setting of the sink.")
def add(name: str, sink: str, pairs: Mapping[str, str]) -> None:
    """Save a destination: a sink with its settings. Secrets are written as env:NAME, variables of the workers."""
    with opened(working=False):
        wishes.ask_make_destination(name, sink, pairs, actor=OWNER)
    tell(f"Destination {name} is saved: `batchdesk run … --to {name}` sends outputs there.")


@click.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@click.option("--to", multiple=True, metavar="NAME", help="A destination; may be repeated.")
@click.option("--no-wait", is_flag=True, help="Leave at once; the workers go on.")
@click.pass_context
def deliver(context: click.Context, run_id: int, to: Sequence[str], no_wait: bool) -> None:
    """Deliver a run's outputs to destinations, whole; without --to, try again what could not be delivered.

    Exit status: 0 all was delivered, 3 something could not be.
    """
    asked: list[bool] = []

    def work() -> int:
        if not asked:
            asked.append(_ask(run_id, to))
        if no_wait or not asked[0]:
            return OK
        return OK if see_delivered(run_id, deadline=None) else FAILURES

    context.exit(through(work, working=not no_wait))


def _ask(run_id: int, to: Sequence[str]) -> bool:
    """Whether anything is to be waited for."""
    if to:
        began = wishes.ask_deliver(run_id, to, actor=OWNER)
        if not began:
            tell(f"Run {run_id} is not over: its outputs are delivered when it is.")
        return bool(began)
    with db.transaction() as tx:
        failed = deliveries.failed_of(tx, run_id)
    for delivery_id in failed:
        wishes.ask_deliver_again(delivery_id, actor=OWNER)
    tell(f"Deliveries that are tried again: {len(failed)}." if failed else "No delivery of it has failed.")
    return bool(failed)


def see_delivered(run_id: int, *, deadline: float | None) -> bool:
    """Wait until each delivery of a run that is over was tried, say what came of it, and whether all came through.

    :param deadline: until when at most (monotonic seconds).
    """
    moved, before = time.monotonic(), None
    while True:
        with db.transaction() as tx:
            found = deliveries.standing(tx, run_id)
        if found != before:
            moved, before = time.monotonic(), found
        late = time.monotonic() - moved > PATIENCE or (deadline is not None and time.monotonic() >= deadline)
        if late or not any(one.under_way for one in found):
            break
        time.sleep(LOOK_SECONDS)
    for one in found:
        if words := _told(one):
            tell(words)
    return all(one.state == DeliveryState.DELIVERED for one in found)


def _told(one: Any) -> str | None:
    """What has become of a delivery; of plugins only what has not come through."""
    if one.state == DeliveryState.DELIVERED:
        return f"{one.outputs:,} outputs were delivered to {one.name}." if one.kind == deliveries.Kind.SINK else None
    end = " `batchdesk deliver RUN` tries again." if one.state == DeliveryState.FAILED else " It is tried again."
    return f"{deliveries.whither(one)} has not come through: {one.reason or 'it is under way.'}{end}"
