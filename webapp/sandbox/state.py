"""What the routes share: store, clock, and a configuration that can change while calls are running.

The app makes one `State`, the routes read it, and the control endpoints change it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from .clock import Clock
from .config import SandboxConfig
from .faults import Fault, FaultQueue
from .store import Store


class State:
    """One sandbox's shared state. Safe to use from several threads."""

    def __init__(self, store: Store, clock: Clock, config: SandboxConfig) -> None:
        self.store = store
        self.clock = clock
        self.config = config
        self._lock = threading.Lock()
        self._queues: dict[str, FaultQueue] = {}
        self._fill_queues(set(config.as_dict()))

    def change(self, values: Mapping[str, Any]) -> None:
        """Take over other settings; a list of faults that is among them begins anew.

        :raises SandboxConfigError: a name is unknown or a value no use; nothing changes.
        """
        with self._lock:
            self.config = self.config.changed(values)
            self._fill_queues(set(values))

    def take_faults(self, setting: str) -> list[Fault]:
        """The faults that the next call is to commit, of those that a setting lists."""
        return self._queues[setting].take()

    def _fill_queues(self, names: set[str]) -> None:
        for name in names:
            if name.endswith("_faults"):
                stream = name == "results_faults"
                self._queues[name] = FaultQueue(getattr(self.config, name), stream=stream)
