"""Starts a run over an input file or folder once, however often it is asked to. `batchdesk run` calls it.
The run's token, drawn before the first try, tells a repeat that the first has come through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from flask import current_app
from pydantic import BaseModel

from webapp import db
from webapp.batches.desk import Desk
from webapp.batches.naming import new_token
from webapp.cli.app import tell
from webapp.datasets.importing import Sieve, import_records
from webapp.delivery import destinations
from webapp.errors import InputError
from webapp.hooks import Task
from webapp.money import caps
from webapp.records.exporting import setting_aside
from webapp.records.reading import Problem, Record, problems_report, read_records
from webapp.runs import verbs
from webapp.runs.verbs import PLAIN, Manner

OWNER = "command line"
SKIP_HINT = "Nothing was sent. Mend them, or add --skip-bad to set them aside and go on with the rest."


def read_pairs(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """`name=value …`, as of --set, as a mapping."""
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"'{pair}' is not NAME=VALUE.")
        if name in settings:
            raise click.BadParameter(f"'{name}' is set twice.")
        settings[name] = value
    return settings


def read_cap(context: click.Context, parameter: click.Parameter, text: str | None) -> Decimal | None:
    """An amount of US dollars, as of --cap."""
    try:
        return None if text is None else caps.amount(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that somebody wants.

    :param rejected: the file for records that cannot be used; None: the first one ends it.
    :param plugin_version_id: the installed version that brings the task.
    :param manner: how careful it is to be.
    :param to: the names of the destinations that its outputs go to.
    """

    task: Task[Any]
    settings: BaseModel
    source: Path
    key_field: str
    text_field: str
    rejected: Path | None
    plugin_version_id: int | None = None
    manner: Manner = PLAIN
    to: tuple[str, ...] = ()
    token: str = field(default_factory=new_token)

    def records(self) -> Iterator[Record | Problem]:
        """The input from its beginning.

        :raises InputError: at once when the input as a whole is unusable.
        """
        return read_records(self.source, key_field=self.key_field, text_field=self.text_field)


def start(wanted: Wanted) -> int:
    """Import the input and start the run; its id. May be repeated: the same run is started once.

    :raises InputError: the input or some of its records are unusable; nothing was started.
    """
    with ExitStack() as stack:
        sieve = Sieve(None if wanted.rejected is None else stack.enter_context(setting_aside(wanted.rejected)))
        try:
            run_id = _start(wanted, sieve)
        except InputError as error:
            if not sieve.count:
                raise
            raise InputError(f"{error}\n{SKIP_HINT}") from None
    tell(f"Run {run_id} of {wanted.task.name} started.")
    if sieve.count:
        tell(problems_report(sieve.first, sieve.count))
        tell(f"They are set aside in {wanted.rejected}; the rest goes on.")
    return run_id


def _start(wanted: Wanted, sieve: Sieve) -> int:
    """Import and start in one transaction: a fault leaves nothing behind."""
    desk: Desk = current_app.extensions["batchdesk"]
    desk.registry.task(wanted.task.name)  # its plugin may be disabled
    records = sieve.records(wanted.records())
    with db.transaction() as tx:
        found = verbs.find_run(tx, wanted.token)
        if found is not None:
            deque(records, maxlen=0)  # a commit whose answer was lost: what it could not set aside is set aside now
            return found
        destination_ids = destinations.check(tx, wanted.to)
        dataset_id, kind = import_records(
            tx, records, name=wanted.source.name, source=wanted.source, text_field=wanted.text_field, owner=OWNER
        )
        verbs.check_kind(wanted.task, kind)
        return verbs.start_run(
            tx,
            dataset_id=dataset_id,
            task=wanted.task,
            settings=wanted.settings,
            owner=OWNER,
            token=wanted.token,
            plugin_version_id=wanted.plugin_version_id,
            manner=wanted.manner,
            destination_ids=destination_ids,
        )
