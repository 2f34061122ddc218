"""What people ask of plugins: install, upgrade, roll back, enable, disable, remove. Like `webapp.wishes`, each is one
short transaction and a nudge; whether the installation lets it be asked from here is checked in each.
"""

from __future__ import annotations

from typing import Any

from flask import current_app

from webapp import db
from webapp.batches.desk import Desk
from webapp.errors import Refused
from webapp.installed import installs, versions
from webapp.jobs import nudge
from webapp.packages.wheels import Wheel
from webapp.settings import PluginInstall

OFF = (
    "Installing plugins is off (BATCHDESK_PLUGIN_INSTALL=off): only those that ship with Batchdesk, or are in its "
    "environment, are loaded."
)
NOT_HERE = (
    "Plugins are not installed from the dashboard here (BATCHDESK_PLUGIN_INSTALL=cli): whoever runs Batchdesk does it "
    "with `batchdesk plugins install`."
)


def ask_plugin_fetch(wanted: str, *, actor: str, content: bytes | None = None) -> int:
    """Get a plugin's wheel and look into it; the installation's id. See `installs.ask`."""
    check_gate(PluginInstall.WEB)
    with db.transaction() as tx:
        install_id = installs.ask(tx, wanted, content, actor=actor)
    nudge()
    return install_id


def ask_plugin_install(install_id: int, *, actor: str) -> None:
    """Install what was looked into, or upgrade to it; see `installs.confirm`."""
    check_gate(PluginInstall.WEB)
    with db.transaction() as tx:
        installs.confirm(tx, install_id, actor=actor)
    nudge()


def ask_plugin_drop(install_id: int, *, actor: str) -> None:
    """Give an installation up; see `installs.drop`. Nothing is nudged: nothing becomes due."""
    with db.transaction() as tx:
        installs.drop(tx, install_id, actor=actor)


def ask_plugin_put(wheel: Wheel, brings: Any, *, actor: str, upgrade: bool) -> int:
    """Bring a wheel into use that was tried; see `versions.put`. For the command line, which has shown it before."""
    check_gate(PluginInstall.CLI)
    with db.transaction() as tx:
        return versions.put(tx, wheel, brings, actor=actor, upgrade=upgrade)


def ask_plugin_rollback(name: str, *, actor: str, gate: PluginInstall = PluginInstall.WEB) -> str:
    """Bring the former version into use again; see `versions.roll_back`. Its number."""
    check_gate(gate)
    with db.transaction() as tx:
        return versions.roll_back(tx, name, actor=actor)


def ask_plugin_remove(name: str, *, actor: str, gate: PluginInstall = PluginInstall.WEB) -> list[int]:
    """Take an installed plugin away; see `versions.remove`. The unfinished runs that still need it."""
    check_gate(gate)
    with db.transaction() as tx:
        return versions.remove(tx, name, actor=actor)


def ask_plugin_enabled(name: str, enabled: bool, *, actor: str, gate: PluginInstall = PluginInstall.WEB) -> None:
    """Enable or disable a plugin, installed or not; see `versions.set_enabled`.

    Where installing is not let through, installed plugins may still be disabled, and those of the environment enabled.
    """
    desk: Desk = current_app.extensions["batchdesk"]
    environment = desk.loader.environment()
    if enabled and name not in environment:
        check_gate(gate)
    with db.transaction() as tx:
        versions.set_enabled(tx, name, enabled, actor=actor, environment=environment)


def check_gate(gate: PluginInstall) -> None:
    """Pass where plugins may be installed from the dashboard (`web`) or the command line (`cli`).

    :raises Refused: they may not.
    """
    allowed = may_install()
    if allowed == PluginInstall.OFF:
        raise Refused(OFF)
    if gate == PluginInstall.WEB and allowed != PluginInstall.WEB:
        raise Refused(NOT_HERE)


def may_install() -> PluginInstall:
    """From where plugins may be installed here."""
    desk: Desk = current_app.extensions["batchdesk"]
    return desk.settings.web_install
