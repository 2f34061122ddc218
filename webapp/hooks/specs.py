"""The hooks that a plugin may implement, and the version of the contract they belong to.
Plugins mark their functions with `hookimpl`; only the loader reads the specifications.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from webapp.hooks.task import Task

PROJECT = "batchdesk"
API_VERSION = 1  # a plugin says `api_version = 1`; raised when old plugins would break

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_tasks() -> Iterable[Task[Any]]:
    """Return the tasks of this plugin, as instances.

    Called once at start. A plugin whose hook raises, or whose tasks break the contract, is left
    out as a whole and shown with the reason; the application starts all the same.
    """
    return ()
