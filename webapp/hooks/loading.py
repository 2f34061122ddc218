"""Finds plugins and loads them one by one, so that a bad one is left out and shown and hurts nobody.
The wiring calls `load_plugins` once at start; it never raises because of a plugin.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
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
from webapp.hooks.registry import PluginInfo, PluginProblem, Registry
from webapp.hooks.task import Task

ENTRY_POINTS = "batchdesk.plugins"
SHIPPED = ("classify", "summarise", "alt_text")  # load first, so that nobody takes their names

_MEND = "Mend it or remove it."


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    source: str
    version: str
    load: Callable[[], object]


def load_plugins(*, folder: Path, safe_mode: bool = False, entry_points: bool = True) -> Registry:
    """Load every plugin that can be loaded.

    :param folder: each of its ``.py`` files is a plugin, but those whose name starts with ``_``.
    :param safe_mode: load none at all, for getting at an installation that a plugin makes unusable.
    :param entry_points: load installed packages with an entry point in ``batchdesk.plugins`` too.
    """
    tasks: dict[str, Task[Any]] = {}
    plugins: list[PluginInfo] = []
    problems: list[PluginProblem] = []
    for candidate in () if safe_mode else _candidates(folder, entry_points, problems):
        try:
            info, own = _load(candidate)
            _check_clashes(own, plugins)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
            problems.append(_problem(candidate, error))
        else:
            plugins.append(info)
            tasks.update({task.name: task for task in own})
    return Registry(MappingProxyType(tasks), tuple(plugins), tuple(problems))


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


def _load(candidate: _Candidate) -> tuple[PluginInfo, tuple[Task[Any], ...]]:
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
    tasks = contract.check_tasks(_guarded("Its hook register_tasks failed", partial(_ask_tasks, manager)))
    version = candidate.version or str(getattr(plugin, "__version__", ""))
    names = tuple(task.name for task in tasks)
    return PluginInfo(candidate.name, candidate.source, version, hooks, names), tasks


def _ask_tasks(manager: pluggy.PluginManager) -> Any:
    answers = manager.hook.register_tasks()
    if not answers:
        raise PluginError("register_tasks returned None: return a list of tasks.")
    # A hook written with `yield` fails only when its tasks are taken out, which belongs to the call.
    return tuple(answers[0]) if isinstance(answers[0], Iterator) else answers[0]


def _guarded(what: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (KeyboardInterrupt, PluginError):
        raise
    except BaseException as error:
        raise PluginError(f"{what}: {type(error).__name__}: {error}. {_MEND}") from error


def _check_clashes(tasks: tuple[Task[Any], ...], plugins: list[PluginInfo]) -> None:
    """:raises PluginError: a name is taken, by this plugin itself or by one loaded before."""
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise PluginError(f"It registers two tasks with the name '{name}': rename one of them.")
        for owner in plugins:
            if name in owner.tasks:
                raise PluginError(
                    f"Its task '{name}' clashes with the one of plugin '{owner.name}' ({owner.source}), "
                    "which was loaded first and stays: rename the task or remove one of the two plugins."
                )


def _problem(candidate: _Candidate, error: BaseException) -> PluginProblem:
    ours = isinstance(error, PluginError)
    raised = error.__cause__ if ours else error
    trace = "".join(traceback.format_exception(raised)) if raised else ""
    words = str(error) if ours else f"It broke while it was checked: {type(error).__name__}: {error}. {_MEND}"
    text = f"Plugin '{candidate.name}' ({candidate.source}) is left out. {words}"
    return PluginProblem(candidate.name, candidate.source, text, trace)
