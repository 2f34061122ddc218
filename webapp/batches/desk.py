"""What a step works with: the settings, the task plugins and the way to the API.
The wiring makes one per process; steps get it as their first argument and reach for nothing global but the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flask import current_app
from pydantic import BaseModel

from webapp.gateway import Gateway, Heard
from webapp.hooks import Registry, Task
from webapp.hooks.loading import Loader
from webapp.installed import pluginset
from webapp.installed.pluginset import Present
from webapp.records import jsontext
from webapp.settings import Settings


@dataclass
class Desk:
    """Settings, plugins and gateway of this process.

    :param loader: of plugins; nothing is loaded before the first use of `registry`, nor for a step that needs none.
    :param open_gateway: makes the gateway at its first use, so that pages and quick commands never load the SDK's
        client, and nothing is connected before a fork.
    """

    settings: Settings
    loader: Loader
    open_gateway: Callable[[], Gateway] = field(repr=False)
    #: whether plugins that are new here are loaded in a process of their own first; not in jobs, whose worker did
    careful: bool = True
    _present: Present | None = field(default=None, init=False, repr=False)
    _given: Registry | None = field(default=None, init=False, repr=False)
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def registry(self) -> Registry:
        """The plugins for new work: those of the environment and those installed ones that are in use."""
        return self._given or self.present().registry

    @registry.setter
    def registry(self, registry: Registry) -> None:
        """Work with these, whatever is there and whatever a run names."""
        self._given = registry

    def present(self) -> Present:
        """What is loaded for new work, with its generation; loaded at the first use."""
        if self._present is None:
            with self._loading:
                if self._present is None:
                    self._present = pluginset.load(self.loader, self.settings, prove=self.careful)
        return self._present

    def taken_up(self) -> int | None:
        """The generation of the set that is loaded; None: none is yet."""
        return None if self._present is None else self._present.generation

    def take_up(self) -> Present:
        """Load the set as it is now. Who has a registry already goes on with it."""
        with self._loading:
            self._present = pluginset.load(self.loader, self.settings, prove=self.careful)
            return self._present

    def task_of(self, run: Any) -> tuple[Task[Any], BaseModel]:
        """The task of a run, as the version that it names brings it, with its settings.

        :param run: a row with `task`, `settings` (a JSON text) and `plugin_version_id`.
        :raises NotFound: it is not there; says why.
        :raises InputError: it cannot run with these settings any more.
        """
        registry = self._given
        if registry is None:
            registry = pluginset.of_run(self.loader, self.settings, run.task, run.plugin_version_id)
        task = registry.task(run.task)
        return task, registry.parse_settings(task, jsontext.loads(run.settings))

    @cached_property
    def gateway(self) -> Gateway:
        return self.open_gateway()

    def take_heard(self) -> Heard:
        """What the API last said to this process since it was asked here; nothing is opened for that."""
        gateway: Gateway | None = vars(self).get("gateway")
        if gateway is None:
            return Heard()
        heard, gateway.heard = gateway.heard, Heard()
        return heard


def ceiling() -> int:
    """The most attempts at one item by rule, for reads that no step asks."""
    desk: Desk = current_app.extensions["batchdesk"]
    return desk.settings.max_attempts
