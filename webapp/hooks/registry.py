"""What loading the plugins came to: what they bring, the plugins behind it, and those left out.
Made by the loader; the command line, the pages and the steps look tasks and settings up in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel

from webapp.errors import NotFound
from webapp.hooks.configured import Configured
from webapp.hooks.moving import Sink, Source
from webapp.hooks.parsing import parse_settings
from webapp.hooks.task import Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin that was loaded.

    :param source: the path of its file, or the distribution and version it comes from.
    :param hooks: the hooks it implements, sorted.
    :param tasks: the names of its tasks.
    :param sources: ... of its sources.
    :param sinks: ... of its sinks.
    :param settings: what its own settings are filled in by, for its `check_*` and `on_*` hooks; those of its tasks,
        sources and sinks are theirs. The loader always gives one, without a field where the plugin has no `Settings`.
    :param version_id: the installed version that it comes from; None: it is shipped, or in the environment.
    """

    name: str
    source: str
    version: str
    hooks: tuple[str, ...]
    tasks: tuple[str, ...]
    sources: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()
    settings: Configured[Any] | None = None
    version_id: int | None = None


@dataclass(frozen=True, slots=True)
class PluginProblem:
    """A plugin that was left out.

    :param error: one or more sentences for people.
    :param traceback: where it happened in the plugin's code, or empty when no code raised.
    :param version_id: as for `PluginInfo`.
    """

    plugin: str
    source: str
    error: str
    traceback: str
    version_id: int | None = None


@dataclass(frozen=True, slots=True)
class Hooked:
    """One plugin's implementation of a ``check_*`` or ``on_*`` hook; called with the hook's arguments by name."""

    plugin: PluginInfo
    call: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Registry:
    """The frozen result of loading the plugins.

    :param tasks: by name, as `sources` and `sinks`.
    :param checks: whose ``check_run`` is asked before a run is sent, in the order of loading.
    :param listeners: whose ``on_run_finished`` is told that a run is over.
    """

    tasks: Mapping[str, Task[Any]] = field(default_factory=lambda: MappingProxyType({}))
    sources: Mapping[str, Source[Any]] = field(default_factory=lambda: MappingProxyType({}))
    sinks: Mapping[str, Sink[Any]] = field(default_factory=lambda: MappingProxyType({}))
    checks: tuple[Hooked, ...] = ()
    listeners: tuple[Hooked, ...] = ()
    plugins: tuple[PluginInfo, ...] = ()
    problems: tuple[PluginProblem, ...] = ()

    def task(self, name: str) -> Task[Any]:
        """The task of that name.

        :raises NotFound: there is none; the message names those there are and the closest spelling.
        """
        return self._named("task", self.tasks, name)

    def source(self, name: str) -> Source[Any]:
        """The source of that name.

        :raises NotFound: there is none, likewise.
        """
        return self._named("source", self.sources, name)

    def sink(self, name: str) -> Sink[Any]:
        """The sink of that name.

        :raises NotFound: there is none, likewise.
        """
        return self._named("sink", self.sinks, name)

    def version_of(self, task: Task[Any]) -> int | None:
        """The installed version that brings a task; None: a plugin that is shipped, or in the environment."""
        return next((one.version_id for one in self.plugins if task.name in one.tasks), None)

    def parse_settings(self, owner: Configured[Any] | str, raw: Mapping[str, Any]) -> BaseModel:
        """The settings of a task (or its name), a source, a sink or a plugin, from ``--set`` strings, a form, or a
        stored copy.

        :raises InputError: names every field at fault, the fault, and what is allowed.
        """
        return parse_settings(self.task(owner) if isinstance(owner, str) else owner, raw)

    def _named(self, noun: str, known: Mapping[str, T], name: str) -> T:
        if name in known:
            return known[name]
        if not known:
            left_out = "; all were left out, `batchdesk plugins list` says why" if self.problems else ""
            has = "plugin is loaded" if not self.plugins else f"plugin brings a {noun}"
            raise NotFound(f"There is no {noun} '{name}': no {has}{left_out}.")
        close = get_close_matches(name, known, n=1)
        meant = f" Did you mean '{close[0]}'?" if close else ""
        raise NotFound(f"There is no {noun} '{name}'.{meant} Known {noun}s: {', '.join(sorted(known))}.")
