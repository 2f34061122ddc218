"""The plugins that a process works with: those of the environment, and those installed versions that are in use; and
for a step of a run, the very version that the run names. Only here are installed plugins loaded.

Web processes take up a changed set between two requests; the parent of a worker loads nothing, its jobs what they need.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection

from webapp import db
from webapp.batches.bounded import Broke, bounded
from webapp.errors import BatchdeskError, NotFound, PluginError
from webapp.hooks import PluginProblem, Registry
from webapp.hooks.loading import Installed, Loader
from webapp.installed import versions
from webapp.installed.versions import Version
from webapp.packages import host, unpacking
from webapp.packages.wheels import About
from webapp.settings import PluginInstall, Settings

TRACE = 4_000  # characters of a traceback that the row of a process holds


class Present(NamedTuple):
    """What is loaded for new work, as of a generation of the set."""

    generation: int
    registry: Registry


class Wanted(NamedTuple):
    """What is to be loaded for new work, as of a generation of the set; `problems`: what cannot be, on this machine."""

    generation: int
    installed: list[Installed]
    without: set[str]
    problems: tuple[PluginProblem, ...]


def load(loader: Loader, settings: Settings, *, prove: bool = True) -> Present:
    """Load what is there now for new work: what does not change since the last time stays as it is.

    :param prove: load what is new in a process of its own first, so that what ends or holds up its process is left out.
    """
    wanted = _wanted(settings)
    if prove:
        _prove(loader, wanted)
    registry = loader.load(wanted.installed, without=wanted.without)
    if wanted.problems:
        registry = Registry(**_fields(registry) | {"problems": (*registry.problems, *wanted.problems)})
    return Present(wanted.generation, registry)


def load_without_database(loader: Loader) -> Registry:
    """Load the plugins of the environment alone, disabled or not: for commands that have no database yet."""
    _prove(loader, Wanted(0, [], set(), ()))
    return loader.load()


class Seen(NamedTuple):
    """What loading the plugins would come to."""

    generation: int
    problems: list[dict[str, Any]]  # of `PluginProblem`


def look_over(loader: Loader, settings: Settings) -> Seen:
    """See what loading the plugins comes to here, in processes of their own; nothing is loaded in this one, whose forks
    leave out what ended or held up its process.
    """
    wanted = _wanted(settings)
    _prove(loader, wanted)

    def work(_: None) -> list[dict[str, Any]]:
        return told((*loader.load(wanted.installed, without=wanted.without).problems, *wanted.problems))

    ((_, found),) = bounded([None], work)
    if isinstance(found, Broke):
        words = f"The plugins together, each sound alone, {found.words} when they were loaded."
        found = told([PluginProblem("all", "all plugins", words, "")])
    return Seen(wanted.generation, found)


def told(problems: Iterable[PluginProblem]) -> list[dict[str, Any]]:
    """Problems as the row of a process holds them."""
    return [
        {"plugin": one.plugin, "source": one.source, "error": one.error, "traceback": one.traceback[-TRACE:]}
        for one in problems
    ]


def _wanted(settings: Settings) -> Wanted:
    with db.transaction() as tx:
        generation = versions.generation(tx)
        present = versions.in_use(tx) if _allowed(settings) else []
        without = versions.disabled(tx)
    ready, problems = _ready(present, settings)
    return Wanted(generation, ready, without, problems)


def _prove(loader: Loader, wanted: Wanted) -> None:
    """Leave out what ends its process, or keeps it for too long."""
    for candidate, answer in bounded(loader.unproved(wanted.installed, without=wanted.without), loader.prove):
        if isinstance(answer, Broke):
            loader.leave_out(candidate, f"It {answer.words} when it was loaded. Mend it or remove it.")


def of_run(loader: Loader, settings: Settings, task: str, version_id: int | None) -> Registry:
    """What a step of a run works with: the version that the run names, and nothing else.

    Of a run that names none, the plugins of the environment, disabled or not; where these have its task no more, an
    installed one that has.

    :raises NotFound: the version is not kept any more, or is not loaded here; says why.
    """
    if version_id is None:
        registry = loader.load_environment(task)
        return registry if task in registry.tasks else load(loader, settings).registry
    with db.transaction() as tx:
        version = versions.version(tx, version_id)
    if not _allowed(settings):
        mode = "in safe mode (BATCHDESK_SAFE_MODE=1)" if settings.safe_mode else "here (BATCHDESK_PLUGIN_INSTALL=off)"
        raise NotFound(
            f"It needs plugin '{version.name}' {version.version}, and none that is installed is loaded {mode}."
        )
    ready, problems = _ready([version], settings)
    registry = loader.load_version(ready[0]) if ready else Registry()
    problems += registry.problems
    if task not in registry.tasks and problems:
        raise NotFound(problems[0].error)
    return registry


NEW = 0  # the id of a version that is none yet


def in_use(settings: Settings) -> list[Installed]:
    """The installed plugins in use that can be loaded here, unpacked; nothing of them runs."""
    with db.transaction() as tx:
        present = versions.in_use(tx)
    return _ready(present, settings)[0] if _allowed(settings) else []


def beside(settings: Settings, name: str) -> list[Installed]:
    """The installed plugins that another is tried beside."""
    return [one for one in in_use(settings) if one.name != name]


def trial(loader: Loader, others: Sequence[Installed], about: About, folder: Path) -> dict[str, Any]:
    """Load a plugin beside those that are there, to see what it brings: it runs its code. Touches no database.

    :returns: `problems`, each (error, traceback), and `brings`: each plugin with its hooks, tasks, sources and sinks.
    """
    new = Installed(NEW, about.name, about.version, folder, about.entry_points, about.modules)
    registry = loader.load([*others, new])
    return {
        "problems": [(one.error, one.traceback) for one in registry.problems if one.version_id == NEW],
        "brings": [
            {
                "name": one.name,
                "hooks": one.hooks,
                "tasks": [{"name": task, "title": registry.tasks[task].title, "version": registry.tasks[task].version}
                          for task in one.tasks],
                "sources": one.sources,
                "sinks": one.sinks,
            }
            for one in registry.plugins if one.version_id == NEW
        ],
    }  # fmt: skip


def folders(settings: Settings) -> set[Path]:
    """The folders that hold unpacked wheels: what is in them is not the host's own."""
    home = settings.home / "plugins"
    return set(home.iterdir()) if home.is_dir() else set()


def tidy(tx: Connection, settings: Settings) -> None:
    """Remove the folders of versions that are not kept any more."""
    there = unpacking.present(settings.home)
    kept = db.rows(tx, "SELECT name, version, sha256 FROM plugin_versions WHERE wheel IS NOT NULL")
    unpacking.forget(settings.home, there - {unpacking.folder_name(*line) for line in kept})


def _allowed(settings: Settings) -> bool:
    return settings.web_install != PluginInstall.OFF and not settings.safe_mode


def _ready(wanted: Iterable[Version], settings: Settings) -> tuple[list[Installed], tuple[PluginProblem, ...]]:
    """Those versions that can be loaded here, unpacked; and why the others cannot."""
    ready: list[Installed] = []
    problems: list[PluginProblem] = []
    for version in wanted:
        try:
            ready.append(_unpacked(version, settings))
        except BatchdeskError as error:
            source = f"{version.name} {version.version}"
            for name, _ in version.about["entry_points"]:
                words = f"Plugin '{name}' ({source}) is left out. {error}"
                problems.append(PluginProblem(name, source, words, "", version.id))
    return ready, tuple(problems)


def _unpacked(version: Version, settings: Settings) -> Installed:
    """:raises PluginError: it cannot be used on this machine, which lacks what it needs, or has no room."""
    about = About(**{field: version.about[field] for field in About.__slots__})
    lacking = host.lacks(about)
    if lacking:
        raise PluginError(f"This machine lacks what it needs: {'; '.join(lacking)}.")

    def wheel() -> bytes:
        with db.transaction() as tx:
            return versions.wheel_of(tx, version.id)

    folder = unpacking.unpacked(settings.home, version.name, version.version, version.sha256, wheel)
    points = tuple((name, value) for name, value in about.entry_points)
    return Installed(version.id, version.name, version.version, folder, points, tuple(about.modules))


def _fields(registry: Registry) -> dict[str, Any]:
    return {field: getattr(registry, field) for field in Registry.__slots__}
