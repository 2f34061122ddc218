"""What the pages of plugins show: those that are there, wherever they come from, what is left out, and how each does.
Reads only; the pages in `webapp.admin.plugins` call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from flask import current_app
from sqlalchemy import Connection

from webapp import db
from webapp.admin.forms import Described, described, registry
from webapp.batches.desk import Desk
from webapp.errors import BatchdeskError
from webapp.hooks import PluginInfo, PluginProblem, Task
from webapp.hooks.configured import Configured
from webapp.hooks.loading import SHIPPED
from webapp.installed import configuring, overview, versions
from webapp.installed.overview import Agreement, Health

RUNS_SHOWN = 5  # of each version
EVENTS = 20


class Kind(StrEnum):
    """Where a plugin comes from."""

    INSTALLED = "installed"  # from a wheel that is kept in the database
    SHIPPED = "shipped"
    FILE = "file"
    PACKAGE = "package"  # of the environment that Batchdesk runs in


class State(StrEnum):
    """Whether a plugin is there for new work."""

    ON = "on"
    DISABLED = "disabled"
    LEFT_OUT = "left out"
    NOT_LOADED = "not loaded"  # not yet, or in safe mode
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Shown:
    """A plugin as pages show it.

    :param name: by which it is found: of the distribution where it is installed, else of the plugin.
    :param row: of `overview.installed`, where it is installed.
    :param infos: what of it is loaded; a package may bring several plugins.
    :param changed: who disabled it, and when, where it is of the environment.
    """

    name: str
    kind: Kind
    version: str
    source: str
    row: Any = None
    infos: Sequence[PluginInfo] = ()
    problems: Sequence[PluginProblem] = ()
    health: Sequence[Health] = ()
    disabled: Any = None
    removed: bool = False

    @property
    def state(self) -> State:
        if self.removed:
            return State.REMOVED
        if self.disabled is not None or (self.row is not None and not self.row.enabled):
            return State.DISABLED
        if self.infos:
            return State.ON
        return State.LEFT_OUT if self.problems else State.NOT_LOADED

    @property
    def brings(self) -> list[tuple[str, list[str]]]:
        """(noun, names) of what it registers, and the hooks that it has beside."""
        found = [
            ("task", [name for info in self.infos for name in info.tasks]),
            ("source", [name for info in self.infos for name in info.sources]),
            ("sink", [name for info in self.infos for name in info.sinks]),
            ("hook", self.hooks),
        ]
        return [(noun, names) for noun, names in found if names]

    @property
    def hooks(self) -> list[str]:
        """Those hooks that register nothing: `check_run`, `on_run_finished`."""
        return sorted({hook for info in self.infos for hook in info.hooks if not hook.startswith("register_")})

    @property
    def runs(self) -> int:
        return sum(one.runs for one in self.health)

    @property
    def outputs(self) -> int:
        return sum(one.outputs for one in self.health)

    @property
    def invalid(self) -> int:
        return sum(one.invalid for one in self.health)

    @property
    def last_error(self) -> Health | None:
        """The task whose processor failed last."""
        failed = [one for one in self.health if one.error_run_id is not None]
        return max(failed, key=lambda one: one.error_run_id or 0, default=None)


class LeftOut(NamedTuple):
    """What could not be loaded, and in which processes; `everywhere`: in all of them."""

    plugin: str
    error: str
    traceback: str
    where: list[str]
    everywhere: bool


def listed(tx: Connection) -> list[Shown]:
    """All plugins: installed ones first, then those of the environment as they are loaded, then disabled ones."""
    known, health = registry(), overview.health(tx)
    found = [_installed(row, known.plugins, known.problems, health) for row in overview.installed(tx)]
    for info in known.plugins:
        if info.version_id is None:
            kind, source = _origin(info.name, info.source)
            found.append(Shown(info.name, kind, info.version, source, infos=[info], health=_health([info], health)))
    found += [
        Shown(one.plugin, *_of_environment(one.plugin, one.source), problems=[one])
        for one in known.problems
        if one.version_id is None
    ]
    there = {one.name for one in found if one.kind != Kind.INSTALLED}
    disabled = {row.name: row for row in overview.disabled(tx)}
    # Those that are not loaded yet, or not in safe mode, are known by their names alone.
    others = desk().loader.environment() if not there else set()
    found += [
        Shown(name, *_of_environment(name, ""), disabled=disabled.get(name))
        for name in sorted(disabled.keys() | others)
        if name not in there
    ]
    return found


def find(tx: Connection, name: str) -> Shown | None:
    """One plugin; also one that was installed once and is removed."""
    found = listed(tx)
    for one in found:
        if one.name == name:
            return one
    for one in found:
        if name in (info.name for info in one.infos):  # as events of its settings name it
            return one
    former = overview.every_version(tx, name)
    if former:
        return Shown(name, Kind.INSTALLED, former[0].version, "", removed=True)
    # One that was enabled just now may not be loaded here yet.
    return Shown(name, *_of_environment(name, "")) if name in desk().loader.environment() else None


def left_out(agreement: Agreement) -> list[LeftOut]:
    """What could not be loaded, here or in another process; each once."""
    here = [(one.plugin, one.error, one.traceback, "") for one in registry().problems]
    theirs = [
        (one["plugin"], one["error"], one["traceback"], process.name)
        for process in agreement.processes
        for one in process.plugin_problems or ()
    ]
    found: dict[tuple[str, str], LeftOut] = {}
    for plugin, error, trace, process in [*here, *theirs]:
        one = found.setdefault((plugin, error), LeftOut(plugin, error, trace, [], False))
        if process:
            one.where.append(process)
    count = len(agreement.processes)
    return [one._replace(everywhere=not one.where or len(one.where) == count) for one in found.values()]


class Version(NamedTuple):
    """A version of an installed plugin, of `overview.every_version`, with the latest runs that name it."""

    row: Any
    used: bool
    run_ids: list[int]
    more_runs: bool


def every_version(tx: Connection, shown: Shown) -> list[Version]:
    """The versions of an installed plugin, the latest first."""
    rows = overview.every_version(tx, shown.name) if shown.kind == Kind.INSTALLED else []
    named: dict[int, list[int]] = {row.id: [] for row in rows}
    for version_id, run_id in db.rows(
        tx,
        "SELECT v.id, r.id FROM unnest(CAST(:ids AS bigint[])) AS v (id) CROSS JOIN LATERAL "
        "(SELECT id FROM runs WHERE plugin_version_id = v.id ORDER BY id DESC LIMIT :most) AS r",
        ids=list(named),
        most=RUNS_SHOWN + 1,
    ):
        named[version_id].append(run_id)
    used = shown.row.version_id if shown.row is not None else None
    return [Version(row, row.id == used, named[row.id][:RUNS_SHOWN], len(named[row.id]) > RUNS_SHOWN) for row in rows]


class Brought(NamedTuple):
    """A task, a source or a sink with its settings."""

    one: Configured[Any]
    noun: str
    settings: list[Described]
    health: Health | None

    @property
    def words(self) -> str:
        if isinstance(self.one, Task):
            return f"version {self.one.version}, for records of the kind {' or '.join(sorted(self.one.subject_kinds))}"
        return ""


def brought(shown: Shown) -> list[Brought]:
    """What a plugin registers, with the settings of each described."""
    known = registry()
    health = {one.task: one for one in shown.health}
    found: list[Configured[Any]] = []
    for info in shown.infos:
        found += [known.tasks[name] for name in info.tasks if name in known.tasks]
        found += [known.sources[name] for name in info.sources if name in known.sources]
        found += [known.sinks[name] for name in info.sinks if name in known.sinks]
    return [Brought(one, one.noun.lower(), described(one), health.get(one.name)) for one in found]


@dataclass(frozen=True, slots=True)
class Own:
    """The settings of a plugin's own, as they are now; `fault`: why what is stored is no use."""

    info: PluginInfo
    settings: list[tuple[Described, str]]
    fault: str | None = field(default=None)


def own_settings(tx: Connection, shown: Shown) -> list[Own]:
    """The own settings of each plugin that a package brings and that has any."""
    found = []
    for info in shown.infos:
        if info.settings is None or not info.settings.Settings.model_fields:
            continue
        stored, fault = configuring.stored(tx, info.name), None
        try:
            configuring.settings_of(tx, registry(), info)
        except BatchdeskError as error:
            fault = str(error)
        rows = [(one, _written(stored.get(one.name), one)) for one in described(info.settings)]
        found.append(Own(info, rows, fault))
    return found


def events(tx: Connection, shown: Shown) -> Sequence[Any]:
    """What happened to a plugin, the latest first: installed, enabled, its settings changed."""
    return db.rows(
        tx,
        "SELECT id, at, kind, actor, address, reason FROM events WHERE target_kind = :kind AND target = ANY(:names) "
        "ORDER BY id DESC LIMIT :limit",
        kind=versions.TARGET,
        names=sorted({shown.name, *(info.name for info in shown.infos)}),
        limit=EVENTS,
    )


def _installed(
    row: Any, infos: Iterable[PluginInfo], problems: Iterable[PluginProblem], health: dict[str, Health]
) -> Shown:
    its = [info for info in infos if info.version_id == row.version_id]
    return Shown(
        row.name,
        Kind.INSTALLED,
        row.version,
        row.file_name,
        row=row,
        infos=its,
        problems=[one for one in problems if one.version_id == row.version_id],
        health=_health(its, health),
    )


def _health(infos: Iterable[PluginInfo], health: dict[str, Health]) -> list[Health]:
    return [health[task] for info in infos for task in info.tasks if task in health]


def _of_environment(name: str, source: str) -> tuple[Kind, str, str]:
    """(kind, version, source) of a plugin of the environment that is not loaded."""
    if not source and name in SHIPPED:
        return Kind.SHIPPED, "", "ships with Batchdesk"
    kind, words = _origin(name, source)
    return kind, "", words


def _origin(name: str, source: str) -> tuple[Kind, str]:
    path = Path(source)
    if path.suffix != ".py":
        return Kind.PACKAGE, source
    return (Kind.SHIPPED, "ships with Batchdesk") if name in SHIPPED else (Kind.FILE, source)


def _written(value: Any, one: Described) -> str:
    """A stored value in words; the default where none is stored."""
    if value is None:
        return one.default or ""
    if one.secret and not str(value).startswith("env:"):
        return "not shown, for it may be the secret itself"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def desk() -> Desk:
    """What this process works with."""
    found: Desk = current_app.extensions["batchdesk"]
    return found
