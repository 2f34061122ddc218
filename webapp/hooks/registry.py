"""What loading the plugins came to: the tasks there are, the plugins behind them, and those left out.
Made by the loader; the command line, the pages and the steps look tasks and settings up in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from webapp.errors import NotFound
from webapp.hooks.parsing import parse_settings
from webapp.hooks.task import Task


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin that was loaded.

    :param source: the path of its file, or the distribution and version it comes from.
    :param hooks: the hooks it implements, sorted.
    :param tasks: the names of its tasks.
    """

    name: str
    source: str
    version: str
    hooks: tuple[str, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PluginProblem:
    """A plugin that was left out.

    :param error: one or more sentences for people.
    :param traceback: where it happened in the plugin's code, or empty when no code raised.
    """

    plugin: str
    source: str
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Registry:
    """The frozen result of loading the plugins."""

    tasks: Mapping[str, Task[Any]] = field(default_factory=lambda: MappingProxyType({}))
    plugins: tuple[PluginInfo, ...] = ()
    problems: tuple[PluginProblem, ...] = ()

    def task(self, name: str) -> Task[Any]:
        """The task of that name.

        :raises NotFound: there is none; the message names those there are and the closest spelling.
        """
        try:
            return self.tasks[name]
        except KeyError:
            raise NotFound(self._unknown(name)) from None

    def parse_settings(self, task: Task[Any] | str, raw: Mapping[str, Any]) -> BaseModel:
        """A task's settings from ``--set`` strings, a form, or a stored copy.

        :raises InputError: names every field at fault, the fault, and what is allowed.
        """
        return parse_settings(self.task(task) if isinstance(task, str) else task, raw)

    def _unknown(self, name: str) -> str:
        if not self.tasks:
            left_out = "; all were left out, `batchdesk plugins list` says why" if self.problems else ""
            return f"There is no task '{name}': no plugin is loaded{left_out}."
        close = get_close_matches(name, self.tasks, n=1)
        meant = f" Did you mean '{close[0]}'?" if close else ""
        return f"There is no task '{name}'.{meant} Known tasks: {', '.join(sorted(self.tasks))}."
