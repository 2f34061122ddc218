"""The pages of plugins: what is there and how it does, one plugin with its versions and settings, and for admins
installing, enabling, rolling back and removing. Registered by `init_app` of this room.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from flask import abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import wishes
from webapp.admin import history, pluginlists
from webapp.admin.access import actor, manages
from webapp.admin.forms import SettingsForm, registry
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.admin.pluginlists import Kind, Shown, State
from webapp.batches.states import InstallState
from webapp.errors import BatchdeskError
from webapp.installed import configuring, overview, versions
from webapp.packages.wheels import MOST_BYTES
from webapp.records.escapes import one_line
from webapp.settings import PluginInstall

LONGEST_NAME = 200
UNDER_WAY = (InstallState.FETCHING, InstallState.INSTALLING)
# How installing is done, where it is not done here.
HOW = {PluginInstall.OFF: wishes.OFF, PluginInstall.CLI: wishes.NOT_HERE}


class PluginsPage(Page):
    """Plugins, by where they come from."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx = reading()
        agreement = overview.agreement(tx)
        return self.render(
            "desk/plugins.html",
            found=pluginlists.listed(tx),
            agreement=agreement,
            left_out=pluginlists.left_out(agreement),
            installs=[one for one in overview.installs(tx) if one.state in overview.OPEN_INSTALLS],
            stamp=history.stamp(tx),
            **_ways(),
        )

    @expose("/<plugin>/")
    def details(self, plugin: str) -> ResponseReturnValue:
        tx = reading()
        shown = _find(tx, plugin)
        return self.render(
            "desk/plugin.html",
            shown=shown,
            versions=pluginlists.every_version(tx, shown),
            brought=pluginlists.brought(shown),
            own=pluginlists.own_settings(tx, shown),
            agreement=overview.agreement(tx),
            events=pluginlists.events(tx, shown),
            **_ways(),
        )

    @expose("/<plugin>/settings", methods=("GET", "POST"))
    @manages
    def settings(self, plugin: str) -> ResponseReturnValue:
        info = configuring.plugin_named(registry(), plugin)
        if info.settings is None or not info.settings.Settings.model_fields:
            abort(404, f"The plugin {one_line(plugin, 80)} has no settings of its own.")
        tx = reading()
        back = url_for(".details", plugin=_owner(tx, plugin))
        form = SettingsForm.of(info.settings, configuring.stored(tx, plugin))
        if request.method == "POST" and form.parse() is not None:
            try:
                changed = wishes.ask_configure(plugin, form.raw, actor=actor())
            except BatchdeskError as error:
                form.problems.append(str(error))
            else:
                flash(f"The settings of {plugin} are changed." if changed else "Nothing was changed.", "success")
                return redirect(back, 303)
        return self.render("desk/plugin_settings.html", info=info, form=form, back=back)

    @expose("/<plugin>/enable", methods=("POST",))
    @manages
    def enable(self, plugin: str) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_plugin_enabled(plugin, True, actor=actor())
            return f"{plugin} is enabled: every process takes it up within seconds."

        return act(back_to(url_for(".details", plugin=plugin)), deed)

    @expose("/<plugin>/<any(disable, rollback, remove):deed>", methods=("GET", "POST"))
    @manages
    def ask(self, plugin: str, deed: str) -> ResponseReturnValue:
        """Ask, then do: keep a plugin from new work, go back to the version before, take it away."""
        here = url_for(".details", plugin=plugin)
        if request.method == "POST":
            return act(here, lambda: _do(plugin, deed))
        tx = reading()
        shown = _find(tx, plugin)
        fault = _cannot(shown, deed)
        if fault:
            flash(fault, "error")
            return redirect(here)
        return self.render(
            "desk/plugin_confirm.html",
            shown=shown,
            deed=deed,
            runs=versions.unfinished(tx, plugin) if shown.row is not None else [],
            named=versions.runs_named,
            back=here,
        )

    @expose("/install", methods=("GET", "POST"))
    @manages
    def install(self) -> ResponseReturnValue:
        """Say which plugin is wanted: a wheel that is uploaded, or the name of a package."""
        wanted = request.values.get("wanted", "").strip()[:LONGEST_NAME]
        fault = None
        if request.method == "POST":
            try:
                install_id = _fetch(wanted)
            except BatchdeskError as error:
                fault = str(error)
            else:
                return redirect(url_for(".installation", install_id=install_id), 303)
        page = self.render("desk/plugin_install.html", wanted=wanted, fault=fault, most=MOST_BYTES, **_ways())
        return page, 400 if fault else 200

    @expose("/installs/<row:install_id>/")
    def installation(self, install_id: int) -> ResponseReturnValue:
        """Where an installation stands: got, looked into, waiting for a person, tried, there."""
        tx = reading()
        row = overview.install(tx, install_id)
        if row is None:
            abort(404, f"There is no installation {install_id}.")
        agreement = overview.agreement(tx)
        return self.render(
            "desk/plugin_installation.html",
            row=row,
            agreement=agreement,
            busy=row.state in UNDER_WAY or (row.state == InstallState.INSTALLED and not agreement.agree),
            history=history.of(tx, "install_id", install_id, None),
            stamp=history.stamp(tx, "install_id", install_id),
            **_ways(),
        )

    @expose("/installs/<row:install_id>/confirm", methods=("POST",))
    @manages
    def confirm(self, install_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_plugin_install(install_id, actor=actor())
            return "It is being installed. This page goes on by itself."

        return act(url_for(".installation", install_id=install_id), deed)

    @expose("/installs/<row:install_id>/drop", methods=("POST",))
    @manages
    def drop(self, install_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_plugin_drop(install_id, actor=actor())
            return "It is not installed. Nothing of it was run."

        return act(url_for(".index"), deed)


def _ways() -> dict[str, Any]:
    """What every page of plugins says of this installation."""
    way = wishes.may_install()
    safe_mode = pluginlists.desk().settings.safe_mode
    return {
        "here": way == PluginInstall.WEB,
        "how": HOW.get(way),
        "off": way == PluginInstall.OFF,
        "safe_mode": safe_mode,
        "State": State,
        "Kind": Kind,
    }


def _find(tx: Connection, name: str) -> Shown:
    """A plugin; answers 404 when there is none."""
    shown = pluginlists.find(tx, name)
    if shown is None:
        abort(404, f"There is no plugin {one_line(name, 80)}.")
    return shown


def _owner(tx: Connection, plugin: str) -> str:
    """The name by which the page of a loaded plugin is found."""
    found = pluginlists.listed(tx)
    return next((one.name for one in found if plugin in (info.name for info in one.infos)), plugin)


def _fetch(wanted: str) -> int:
    """Ask for what the form says: the file where there is one, else the package that is named."""
    file = request.files.get("file")
    name = PurePosixPath(((file and file.filename) or "").replace("\\", "/")).name
    if file is not None and name:
        # One byte more than is taken, to tell one that is too large.
        return wishes.ask_plugin_fetch(name, actor=actor(), content=file.stream.read(MOST_BYTES + 1))
    return wishes.ask_plugin_fetch(wanted, actor=actor())


def _do(name: str, deed: str) -> str:
    if deed == "rollback":
        version = wishes.ask_plugin_rollback(name, actor=actor())
        return f"{name} is at version {version} again: every process takes it up within seconds."
    if deed == "remove":
        needing = wishes.ask_plugin_remove(name, actor=actor())
        kept = f" Its wheel is kept for {versions.runs_named(needing)} until they are over." if needing else ""
        return f"{name} is removed.{kept}"
    wishes.ask_plugin_enabled(name, False, actor=actor())
    return f"{name} is disabled: nothing new is started with it."


def _cannot(shown: Shown, deed: str) -> str | None:
    """Why something cannot be done to a plugin."""
    if deed == "disable":
        return f"{shown.name} is {shown.state} already." if shown.state in (State.DISABLED, State.REMOVED) else None
    if shown.row is None:
        return f"{shown.name} is not installed, so there is nothing to {'roll back' if deed == 'rollback' else deed}."
    if deed == "rollback" and not shown.row.former:
        return f"{shown.name} has no former version to go back to."
    return None
