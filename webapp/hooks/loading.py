"""Finds plugins and loads them one by one, so that a bad one is left out and shown and hurts nobody.
The wiring calls `load_plugins` once at start; it never raises because of a plugin.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
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
SHIPPED = ("classify", "summarise", "alt_text", "limits")  # load first, so that nobody takes their names

_MEND = "Mend it or remove it."


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    source: str
    version: str
    load: Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A sound plugin: what its ``register_*`` hooks returned, and how its other hooks are called."""

    info: PluginInfo
    registered: dict[str, tuple[Any, ...]]
    calls: dict[str, Callable[..., Any]]


def load_plugins(*, folder: Path, safe_mode: bool = False, entry_points: bool = True) -> Registry:
    """Load every plugin that can be loaded.

    :param folder: each of its ``.py`` files is a plugin, but those whose name starts with ``_``.
    :param safe_mode: load none at all, for getting at an installation that a plugin makes unusable.
    :param entry_points: load installed packages with an entry point in ``batchdesk.plugins`` too.
    """
    loaded: list[_Loaded] = []
    problems: list[PluginProblem] = []
    for candidate in () if safe_mode else _candidates(folder, entry_points, problems):
        try:
            found = _load(candidate)
            _check_clashes(found, loaded)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
            problems.append(_problem(candidate, error))
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


def _by_name(loaded: list[_Loaded], hook: str) -> Mapping[str, Any]:
    return MappingProxyType({one.name: one for plugin in loaded for one in plugin.registered.get(hook, ())})


def _hooked(loaded: list[_Loaded], hook: str) -> tuple[Hooked, ...]:
    return tuple(Hooked(one.info, one.calls[hook]) for one in loaded if hook in one.calls)


def _candidates(folder: Path, entry_points: bool, problems: list[PluginProblem]) -> Iterator[_Candidate]:
    if not folder.is_dir():
        error = f"The plugin folder {folder} does not exist, so its plugins are missing."
        problems.append(PluginProblem(folder.name, str(folder), error, ""))
    files = [path for path in folder.glob("*.py") if not path.name.startswith("_")]
    for path in sorted(files, key=lambda path: (path.stem not in SHIPPED, path.name)):
        yield _Candidate(path.stem, str(path), "", partial(_import_file, path))
    for entry in metadata.entry_points(group=ENTRY_POINTS) if entry_points else ():
        version = entry.dist.version if entry.dist else ""
        source = f"{entry.dist.name} {version}" if entry.dist else entry.value
        yield _Candidate(entry.name, source, version, entry.load)


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


def _load(candidate: _Candidate) -> _Loaded:
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


def _problem(candidate: _Candidate, error: BaseException) -> PluginProblem:
    ours = isinstance(error, PluginError)
    raised = error.__cause__ if ours else error
    trace = "".join(traceback.format_exception(raised)) if raised else ""
    words = str(error) if ours else f"It broke while it was checked: {type(error).__name__}: {error}. {_MEND}"
    text = f"Plugin '{candidate.name}' ({candidate.source}) is left out. {words}"
    return PluginProblem(candidate.name, candidate.source, text, trace)
