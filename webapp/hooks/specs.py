"""The hooks that a plugin may implement, and the version of the contract they belong to.
Plugins mark their functions with `hookimpl`; only the loader reads the specifications.

Hooks go by their verb: `register_*` at start, a bad plugin is left out; `check_*` before anything is sent, what fails
refuses; `on_*` after the fact, a delivery of its own, what fails is told and touches nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from webapp.hooks.moving import RunFacts, Sink, Source
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


@hookspec
def register_sources() -> Iterable[Source[Any]]:
    """Return the sources of this plugin, as instances. Called, and failing, as `register_tasks`."""
    return ()


@hookspec
def register_sinks() -> Iterable[Sink[Any]]:
    """Return the sinks of this plugin, as instances. Called, and failing, as `register_tasks`."""
    return ()


@hookspec
def check_run(run: RunFacts, settings: Any) -> str | None:
    """Say why a run must not be sent, in a sentence for people; None lets it go.

    Called when a run is planned, before its first batch is sent. A hook that raises, or takes too long, refuses too:
    the run is paused, and the reason names the plugin. Resuming the run asks again.

    :param settings: the plugin's own, an instance of its module's ``Settings``.
    """
    return None


@hookspec
def on_run_finished(run: RunFacts, settings: Any, key: str) -> None:
    """Be told that a run is over: finished or cancelled.

    Called after the fact, as a delivery: at least once, with the same key each time, and again later, with a growing
    delay, after it has raised. Whatever it does, the run stays as it is.

    :param settings: the plugin's own, an instance of its module's ``Settings``.
    :param key: names this delivery, so that a receiver can tell that it has had it.
    """
