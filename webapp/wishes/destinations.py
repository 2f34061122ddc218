"""What people ask of destinations and deliveries: the part of `wishes` that is about where outputs go, in the same way.
The dashboard and the command line act through these verbs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import current_app

from webapp import db
from webapp.batches.desk import Desk
from webapp.delivery import deliveries, destinations
from webapp.hooks import Registry
from webapp.jobs import nudge


def ask_make_destination(name: str, sink_name: str, settings: Mapping[str, Any], *, actor: str) -> int:
    """Save a destination; its id. See `destinations.create`.

    :param settings: as people write them.
    :raises InputError: the sink cannot work with these settings, or the name is taken.
    """
    sink = _registry().sink(sink_name)
    parsed = _registry().parse_settings(sink, settings)
    with db.transaction() as tx:
        return destinations.create(tx, name, sink, parsed, actor=actor)


def ask_edit_destination(destination_id: int, settings: Mapping[str, Any], *, actor: str) -> None:
    """Change a destination's settings; see `destinations.edit`."""
    with db.transaction() as tx:
        sink_name = destinations.find(tx, destination_id).sink
    parsed = _registry().parse_settings(_registry().sink(sink_name), settings)
    with db.transaction() as tx:
        destinations.edit(tx, destination_id, parsed, actor=actor)


def ask_switch_destination(destination_id: int, *, on: bool, actor: str) -> None:
    """Enable or disable a destination; see `destinations.switch`."""
    with db.transaction() as tx:
        destinations.switch(tx, destination_id, on=on, actor=actor)
    nudge()


def ask_delete_destination(destination_id: int, *, actor: str) -> None:
    """Take a destination away; see `destinations.delete`. Nothing is nudged: nothing becomes due."""
    with db.transaction() as tx:
        destinations.delete(tx, destination_id, actor=actor)


def ask_deliver(run_id: int, to: Sequence[str], *, actor: str) -> int:
    """Let the outputs of a run go to some destinations by name; see `deliveries.deliver_run`. How many rounds began."""
    with db.transaction() as tx:
        made = deliveries.deliver_run(tx, run_id, destinations.check(tx, to), actor=actor)
    nudge()
    return made


def ask_deliver_again(delivery_id: int, *, actor: str) -> int:
    """Try a delivery again that has failed; see `deliveries.try_again`. The id of its run."""
    with db.transaction() as tx:
        run_id = deliveries.try_again(tx, delivery_id, actor=actor)
    nudge()
    return run_id


def _registry() -> Registry:
    desk: Desk = current_app.extensions["batchdesk"]
    return desk.registry
