"""Installations that people ask for from the dashboard: what is wanted, the wheel it came to, and where it stands.
The step `install` gets the wheel and, once a person has confirmed it, tries it; see `webapp.installed.installing`.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from webapp import db
from webapp.batches.books import note
from webapp.batches.states import InstallState, move_install
from webapp.batches.steps import StepName, due
from webapp.errors import InputError, NotFound, Refused
from webapp.packages.fetching import requirement
from webapp.packages.wheels import MOST_BYTES, Wheel
from webapp.records.escapes import one_line, storable

TARGET = "install"  # of events
WAITING_DAYS = 7  # after which one that nobody confirms is dropped
LEFT_ALONE = f"Nobody confirmed it for {WAITING_DAYS} days."


def ask(tx: Connection, wanted: str, content: bytes | None, *, actor: str) -> int:
    """Ask that a plugin's wheel is got and looked into; the installation's id. Nothing of it runs before `confirm`.

    :param wanted: a package as pip names it, with a version or without, or the file name of a wheel.
    :param content: the wheel, where it was uploaded.
    :raises InputError: it is no name of a package, or no wheel, or a wheel that is too large.
    """
    if content is None:
        wanted = requirement(wanted)
    elif not wanted.endswith(".whl"):
        raise InputError("Choose a wheel: a file whose name ends in .whl.")
    elif len(content) > MOST_BYTES:
        raise InputError(f"The wheel has {len(content):,} bytes; a plugin has {MOST_BYTES:,} at most.")
    _drop_old(tx)
    install_id: int = db.scalar(
        tx,
        "INSERT INTO plugin_installs (wanted, file_name, wheel, created_by) "
        "VALUES (:wanted, :file_name, :wheel, :actor) RETURNING id",
        wanted=storable(one_line(wanted)),
        file_name=None if content is None else storable(wanted),
        wheel=content,
        actor=actor,
    )
    target = (TARGET, str(install_id))
    note(tx, run_id=None, target=target, actor=actor, reason=f"Plugin wanted: {one_line(wanted)}.", kind="wish")
    due(tx, StepName.INSTALL, install_id)
    return install_id


def confirm(tx: Connection, install_id: int, *, actor: str) -> None:
    """Say that a plugin that was looked into is installed.

    :raises Refused: it does not wait for that.
    """
    due(tx, StepName.INSTALL, install_id)
    install = found(tx, install_id)
    if not move_install(tx, install_id, InstallState.INSTALLING, actor=actor, confirmed_by=actor):
        raise Refused(f"Installation {install_id} is {install.state}: there is nothing to confirm.")


def drop(tx: Connection, install_id: int, *, actor: str) -> None:
    """Give an installation up.

    :raises Refused: it is being installed, or over.
    """
    install = found(tx, install_id)
    if not move_install(tx, install_id, InstallState.DROPPED, actor=actor, wheel=None):
        raise Refused(f"Installation {install_id} is {install.state}: it cannot be dropped.")


def found(tx: Connection, install_id: int) -> Any:
    """An installation's row, without its wheel.

    :raises NotFound: there is none.
    """
    row = db.row(
        tx,
        "SELECT id, wanted, file_name, state, created_by, confirmed_by FROM plugin_installs WHERE id = :id",
        id=install_id,
    )
    if row is None:
        raise NotFound(f"There is no installation {install_id}.")
    return row


def wheel_of(tx: Connection, install_id: int) -> bytes | None:
    """The bytes of its wheel; None: it is still to be got."""
    content = db.scalar(tx, "SELECT wheel FROM plugin_installs WHERE id = :id", id=install_id)
    return None if content is None else bytes(content)


def looked_into(tx: Connection, install_id: int, wheel: Wheel, *, actor: str) -> bool:
    """Let a person confirm what a wheel was found to be; False: it is not wanted any more."""
    about = wheel.about
    return move_install(
        tx,
        install_id,
        InstallState.WAITING,
        actor=actor,
        wheel=wheel.content,
        file_name=wheel.file_name,
        name=about.name,
        version=about.version,
        sha256=wheel.sha256,
        about=json.dumps(about.as_json()),
    )


def refuse(tx: Connection, install_id: int, reason: str, *, actor: str, traceback: str = "") -> None:
    """Say why a plugin cannot be installed."""
    trace = storable(traceback) if traceback else None
    move_install(tx, install_id, InstallState.REFUSED, actor=actor, reason=reason, wheel=None, traceback=trace)


def _drop_old(tx: Connection) -> None:
    """Drop those that nobody confirmed. May be repeated; there is hardly ever one."""
    left = db.rows(
        tx,
        "SELECT id FROM plugin_installs WHERE state = 'waiting' "
        "AND state_since < now() - make_interval(days => :days) FOR UPDATE SKIP LOCKED",
        days=WAITING_DAYS,
    )
    for (install_id,) in left:
        move_install(tx, install_id, InstallState.DROPPED, actor="batchdesk", reason=LEFT_ALONE, wheel=None)
