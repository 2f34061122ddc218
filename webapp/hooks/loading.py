"""Finds plugins and loads them one by one, so that a bad one is left out and shown and hurts nobody.
The desk of each process has one `Loader`; it never raises because of a plugin.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, MappingProxyType
from typing import Any

import pluggy

from webapp.errors import PluginError
from webapp.hooks import contract, specs
from webapp.hooks.registry import Hooked, PluginInfo, PluginProblem, Registry

ENTRY_POINTS = "batchdesk.plugins"
# They load first, so that nobody takes their names.
SHIPPED = (
    *("classify", "summarise", "alt_text", "extract", "evaluate", "limits"),
    *("sql_query", "files", "sql_table", "webhook", "notify"),
)

_MEND = "Mend it or remove it."

# What can be imported is one thing for the whole process, however many loaders there are.
_lock = threading.Lock()
_folders: set[Path] = set()  # of every installed version there ever was here


@dataclass(frozen=True, slots=True)
class Installed:
    """A version of an installed plugin, unpacked in a folder of its own.

    :param name: of its distribution.
    :param entry_points: (name, module:attribute) of each plugin in it.
    :param modules: the top-level modules that it brings.
    """

    version_id: int
    name: str
    version: str
    folder: Path
    entry_points: tuple[tuple[str, str], ...]
    modules: tuple[str, ...]


_active: dict[str, Installed] = {}  # by distribution: the version whose modules can be imported


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that was found and is not loaded yet."""

    name: str
    source: str
    version: str
    load: Callable[[], object]
    version_id: int | None = None

    @property
    def key(self) -> tuple[str, str, int | None]:
        return self.name, self.source, self.version_id


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A sound plugin: what its ``register_*`` hooks returned, and how its other hooks are called."""

    info: PluginInfo
    registered: dict[str, tuple[Any, ...]]
    calls: dict[str, Callable[..., Any]]


def load_plugins(*, folder: Path, safe_mode: bool = False, entry_points: bool = True) -> Registry:
    """Load every plugin of the environment that can be loaded, once; see `Loader`."""
    return Loader(folder, safe_mode=safe_mode, entry_points=entry_points).load()


class Loader:
    """Loads the plugins of one process, and keeps those it has: what does not change is not imported again.

    :param folder: each of its ``.py`` files is a plugin, but those whose name starts with ``_``.
    :param safe_mode: load none at all, for getting at an installation that a plugin makes unusable.
    :param entry_points: load packages of the environment with an entry point in ``batchdesk.plugins`` too.
    """

    def __init__(self, folder: Path, *, safe_mode: bool = False, entry_points: bool = True) -> None:
        self.folder = folder
        self.safe_mode = safe_mode
        self._entry_points = entry_points
        self._kept: dict[tuple[str, str, int | None], _Loaded | PluginProblem] = {}

    def load(self, installed: Iterable[Installed] = (), *, without: Collection[str] = ()) -> Registry:
        """Load what is there: the plugins of the environment first, then those that are installed.

        :param without: plugins of the environment that are left alone.
        """
        with _lock:
            wanted = [] if self.safe_mode else list(installed)
            self._let_go({one.name for one in wanted})
            problems: list[PluginProblem] = []
            candidates = [] if self.safe_mode else [
                one for one in self._candidates(problems, self._entry_points) if one.name not in without
            ]  # fmt: skip
            for one in wanted:
                candidates += self._candidates_of(one)
            return self._registry(candidates, problems)

    def load_environment(self, task: str) -> Registry:
        """Load the plugins of the environment, as far as it takes to have a task.

        Packages of the environment come after the files of the folder, and are not looked for when these have it.
        """
        with _lock:
            for packages in (False, True):
                problems: list[PluginProblem] = []
                wanted = packages and self._entry_points
                registry = self._registry([] if self.safe_mode else self._candidates(problems, wanted), problems)
                if task in registry.tasks:
                    break
            return registry

    def load_version(self, one: Installed) -> Registry:
        """Load one installed version and nothing else."""
        with _lock:
            return self._registry([] if self.safe_mode else self._candidates_of(one), [])

    def unproved(self, installed: Iterable[Installed] = (), *, without: Collection[str] = ()) -> list[Candidate]:
        """Those of `load` that were not loaded here before, but for the shipped ones: they may do anything."""
        with _lock:
            found = [] if self.safe_mode else [
                one for one in self._candidates([], self._entry_points)
                if one.name not in without and not self._shipped(one)
            ]  # fmt: skip
            for version in () if self.safe_mode else installed:
                found += self._candidates_of(version)
            return [one for one in found if one.key not in self._kept]

    def load_shipped(self) -> None:
        """Load the plugins that ship with Batchdesk, for the forks of this process: they are as sound as it is."""
        with _lock:
            for one in () if self.safe_mode else self._candidates([], packages=False):
                if self._shipped(one) and one.key not in self._kept:
                    self._kept[one.key] = _guarded_load(one)

    def _shipped(self, one: Candidate) -> bool:
        return one.name in SHIPPED and Path(one.source).parent == self.folder

    def prove(self, candidate: Candidate) -> None:
        """Load a plugin and throw the result away. In a process of its own: what it does to that, it does there."""
        _guarded_load(candidate)

    def leave_out(self, candidate: Candidate, words: str) -> None:
        """Do not load a plugin here, for what it does to its process."""
        text = f"Plugin '{candidate.name}' ({candidate.source}) is left out. {words}"
        self._kept[candidate.key] = PluginProblem(candidate.name, candidate.source, text, "", candidate.version_id)

    def environment(self) -> set[str]:
        """The names of the plugins of the environment, loaded or not."""
        return {one.name for one in self._candidates([], self._entry_points)}

    def _registry(self, candidates: Iterable[Candidate], problems: list[PluginProblem]) -> Registry:
        loaded: list[_Loaded] = []
        for candidate in candidates:
            found = self._kept.get(candidate.key)
            if found is None:
                found = self._kept[candidate.key] = _guarded_load(candidate)
            if isinstance(found, _Loaded):
                found = _unless_it_clashes(candidate, found, loaded)
            if isinstance(found, PluginProblem):
                problems.append(found)
            else:
                loaded.append(found)
        return Registry(
            tasks=_by_name(loaded, "register_tasks"),
            sources=_by_name(loaded, "register_sources"),
            sinks=_by_name(loaded, "register_sinks"),
            checks=_hooked(loaded, "check_run"),
            listeners=_hooked(loaded, "on_run_finished"),
            plugins=tuple(one.info for one in loaded),
            problems=tuple(problems),
        )

    def _candidates(self, problems: list[PluginProblem], packages: bool) -> Iterator[Candidate]:
        """The plugins of the environment."""
        if not self.folder.is_dir():
            error = f"The plugin folder {self.folder} does not exist, so its plugins are missing."
            problems.append(PluginProblem(self.folder.name, str(self.folder), error, ""))
        files = [path for path in self.folder.glob("*.py") if not path.name.startswith("_")]
        for path in sorted(files, key=lambda path: (path.stem not in SHIPPED, path.name)):
            yield Candidate(path.stem, str(path), "", partial(_import_file, path))
        for entry in metadata.entry_points(group=ENTRY_POINTS) if packages else ():
            if entry.dist is not None and Path(str(entry.dist.locate_file(""))) in _folders:
                continue  # of an installed plugin, whose folder can be imported from
            version = entry.dist.version if entry.dist else ""
            source = f"{entry.dist.name} {version}" if entry.dist else entry.value
            yield Candidate(entry.name, source, version, entry.load)

    def _candidates_of(self, one: Installed) -> list[Candidate]:
        return [
            Candidate(
                name, f"{one.name} {one.version}", one.version, partial(self._import, one, name, value), one.version_id
            )
            for name, value in one.entry_points
        ]

    def _import(self, one: Installed, name: str, value: str) -> object:
        """The object of an entry point, from the folder of its version and nowhere else."""
        former = _active.get(one.name)
        if former != one:
            self._let_go(_active.keys() - {one.name})
            _active[one.name] = one
            _folders.add(one.folder)
            sys.path.append(str(one.folder))  # last: what the host has comes first
            importlib.invalidate_caches()
        loaded = metadata.EntryPoint(name, value, ENTRY_POINTS).load()
        for module in one.modules:
            there = sys.modules.get(module)
            places = [getattr(there, "__file__", None), *getattr(there, "__path__", ())]
            for place in places:
                if place is not None and not Path(place).is_relative_to(one.folder):
                    raise PluginError(
                        f"This machine has another module '{module}', at {place}, which is imported in its place: "
                        "remove that one here, or the plugin."
                    )
        return loaded

    def _let_go(self, staying: Collection[str]) -> None:
        """Forget the modules of installed plugins but some; whoever uses one goes on with what it has."""
        for name in [name for name in _active if name not in staying]:
            gone = _active.pop(name)
            self._kept = {key: one for key, one in self._kept.items() if key[2] != gone.version_id}
            sys.path[:] = [place for place in sys.path if place != str(gone.folder)]
            for module in [one for one in sys.modules if one.partition(".")[0] in gone.modules]:
                del sys.modules[module]


def _guarded_load(candidate: Candidate) -> _Loaded | PluginProblem:
    try:
        return _load(candidate)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        return _problem(candidate, error)


def _unless_it_clashes(candidate: Candidate, found: _Loaded, loaded: list[_Loaded]) -> _Loaded | PluginProblem:
    try:
        _check_clashes(found, loaded)
    except PluginError as error:
        return _problem(candidate, error)
    return found


def load_plugin(name: str, load: Callable[[], object], *, source: str, version: str = "") -> Registry:
    """One plugin alone, by the same rules: for those who check or test it.

    :param load: imports its module and returns it.
    """
    return Loader(Path())._registry([Candidate(name, source, version, load)], [])


def load_file(path: Path) -> Registry:
    """The plugin of one file alone."""
    return load_plugin(path.stem, partial(_import_file, path), source=str(path))


def _by_name(loaded: list[_Loaded], hook: str) -> Mapping[str, Any]:
    return MappingProxyType({one.name: one for plugin in loaded for one in plugin.registered.get(hook, ())})


def _hooked(loaded: list[_Loaded], hook: str) -> tuple[Hooked, ...]:
    return tuple(Hooked(one.info, one.calls[hook]) for one in loaded if hook in one.calls)


class _AsItStands(SourceFileLoader):
    """Compiles what is in the file now: Python's own cache takes one of the same size and second for the same."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _import_file(path: Path) -> object:
    # A name of its own: a plugin called json.py must not become the module `json`.
    name = f"batchdesk_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_AsItStands(name, str(path)))
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks there for the names in a class's annotations
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _load(candidate: Candidate) -> _Loaded:
    plugin = _guarded("It cannot be imported", candidate.load)
    contract.check_api_version(plugin)
    # One manager a plugin: its hooks are called and its faults found without any other's.
    manager = pluggy.PluginManager(specs.PROJECT)
    manager.add_hookspecs(specs)
    try:
        manager.register(plugin, candidate.name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"A hook has another signature than the contract's: {error} {_MEND}") from None
    hooks = contract.check_hooks(manager, plugin)
    registered = {
        hook: contract.check_registered(hook, _guarded(f"Its hook {hook} failed", partial(_ask, manager, hook)))
        for hook in hooks
        if hook in contract.REGISTERING
    }
    names = {hook: tuple(one.name for one in found) for hook, found in registered.items()}
    info = PluginInfo(
        name=candidate.name,
        source=candidate.source,
        version=candidate.version or str(getattr(plugin, "__version__", "")),
        hooks=hooks,
        tasks=names.get("register_tasks", ()),
        sources=names.get("register_sources", ()),
        sinks=names.get("register_sinks", ()),
        settings=contract.check_plugin_settings(plugin, candidate.name, hooks),
        version_id=candidate.version_id,
    )
    return _Loaded(info, registered, {hook: partial(_call, manager, hook) for hook in hooks if hook not in registered})


def _ask(manager: pluggy.PluginManager, hook: str) -> Any:
    answer = _call(manager, hook)
    if answer is None:
        raise PluginError(f"{hook} returned None: return a list of {contract.REGISTERING[hook].noun.lower()}s.")
    # A hook written with `yield` fails only when its answers are taken out, which belongs to the call.
    return tuple(answer) if isinstance(answer, Iterator) else answer


def _call(manager: pluggy.PluginManager, hook: str, **arguments: Any) -> Any:
    """What the one plugin of a manager answers; None, which pluggy leaves out, where it says nothing."""
    answers = getattr(manager.hook, hook)(**arguments)
    return answers[0] if answers else None


def _guarded(what: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (KeyboardInterrupt, PluginError):
        raise
    except BaseException as error:
        raise PluginError(f"{what}: {type(error).__name__}: {error}. {_MEND}") from error


def _check_clashes(found: _Loaded, loaded: list[_Loaded]) -> None:
    """:raises PluginError: a name is taken, by this plugin itself or by one loaded before."""
    for owner in loaded:
        if owner.info.name == found.info.name:
            raise PluginError(
                f"Its name '{found.info.name}' is that of another plugin ({owner.info.source}), which was loaded first "
                "and stays: rename it or remove one of the two."
            )
    for hook, registered in found.registered.items():
        noun = contract.REGISTERING[hook].noun.lower()
        names = [one.name for one in registered]
        for name in names:
            if names.count(name) > 1:
                raise PluginError(f"It registers two {noun}s with the name '{name}': rename one of them.")
            for owner in loaded:
                if name in (one.name for one in owner.registered.get(hook, ())):
                    raise PluginError(
                        f"Its {noun} '{name}' clashes with the one of plugin '{owner.info.name}' "
                        f"({owner.info.source}), which was loaded first and stays: rename the {noun} or remove one "
                        "of the two plugins."
                    )


def _problem(candidate: Candidate, error: BaseException) -> PluginProblem:
    ours = isinstance(error, PluginError)
    raised = error.__cause__ if ours else error
    trace = "".join(traceback.format_exception(raised)) if raised else ""
    words = str(error) if ours else f"It broke while it was checked: {type(error).__name__}: {error}. {_MEND}"
    text = f"Plugin '{candidate.name}' ({candidate.source}) is left out. {words}"
    return PluginProblem(candidate.name, candidate.source, text, trace, candidate.version_id)
