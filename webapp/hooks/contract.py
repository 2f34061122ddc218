"""Says whether what a plugin registered keeps the contract, in words that say what to mend.
Only the loader calls it, once per plugin at start.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import pluggy
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from webapp.errors import PluginError
from webapp.hooks.specs import API_VERSION
from webapp.hooks.task import Task

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NAME_LIMIT = 64
_METHODS = {"shared_params": ("settings",), "request_params": ("subject", "settings")} | {
    "process": ("subject", "message", "settings")
}


def check_api_version(plugin: object) -> None:
    """:raises PluginError: the plugin asks for another version of the contract."""
    asked = getattr(plugin, "api_version", API_VERSION)
    if asked != API_VERSION:
        raise PluginError(
            f"It asks for version {asked!r} of the plugin contract, and this Batchdesk speaks {API_VERSION}. "
            f"Install a version of the plugin made for api_version = {API_VERSION}, or another Batchdesk."
        )


def check_hooks(manager: pluggy.PluginManager, plugin: object) -> tuple[str, ...]:
    """The names of the hooks that a registered plugin implements, sorted.

    :raises PluginError: it implements none, or one that does not exist.
    """
    callers = manager.get_hookcallers(plugin) or []
    known = [name for name in vars(manager.hook) if getattr(manager.hook, name).has_spec()]
    for caller in callers:
        optional = all(impl.optionalhook for impl in caller.get_hookimpls())
        if not caller.has_spec() and not optional:
            close = get_close_matches(caller.name, known, n=1)
            meant = f" Did you mean '{close[0]}'?" if close else ""
            raise PluginError(f"There is no hook '{caller.name}'.{meant} Known hooks: {', '.join(known)}.")
    names = tuple(sorted(caller.name for caller in callers if caller.has_spec()))
    if not names:
        raise PluginError(
            f"It implements no hook. Put @hookimpl before a function with the name of a hook: {', '.join(known)}."
        )
    return names


def check_tasks(returned: Any) -> tuple[Task[Any], ...]:
    """What ``register_tasks`` returned, once it is known to be a list of sound tasks.

    :raises PluginError: it is none, is empty, or holds a task that breaks the contract.
    """
    if isinstance(returned, Task):
        raise PluginError("register_tasks returned a task, not a list of tasks: return [it].")
    if inspect.iscoroutine(returned):
        returned.close()
        raise PluginError("register_tasks is asynchronous: write it with def, not async def.")
    if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Iterable):
        raise PluginError(f"register_tasks returned {_article(returned)}, not a list of tasks.")
    tasks = tuple(returned)
    if not tasks:
        raise PluginError("register_tasks returned no tasks: return [YourTask()].")
    for task in tasks:
        check_task(task)
    return tasks


def check_task(task: object) -> None:
    """:raises PluginError: the task breaks the contract; says which part and how to mend it."""
    if isinstance(task, type) and issubclass(task, Task):
        raise PluginError(f"register_tasks returned the class {task.__name__}: return [{task.__name__}()].")
    if not isinstance(task, Task):
        raise PluginError(f"register_tasks returned {_article(task)}, which is no Task: derive from Task.")
    _check_names(task)
    _check_settings(task)
    for method, arguments in _METHODS.items():
        _check_method(task, method, arguments)


def _check_names(task: Task[Any]) -> None:
    who = f"Task class {type(task).__name__}"
    if not isinstance(task.name, str) or not task.name:
        raise PluginError(f"{who} has no name: give it one, like name = 'classify'.")
    if not _NAME.fullmatch(task.name) or len(task.name) > _NAME_LIMIT:
        raise PluginError(
            f"{who} has the name {task.name!r}: use a lower-case letter, then lower-case letters, "
            f"digits and _, at most {_NAME_LIMIT}."
        )
    for attribute in ("title", "version"):
        value = getattr(task, attribute)
        if not isinstance(value, str) or not value.strip():
            raise PluginError(f"Task '{task.name}' has the {attribute} {value!r}: it must be text.")
    kinds: object = task.subject_kinds
    if not isinstance(kinds, tuple | list | set | frozenset) or not all(isinstance(kind, str) for kind in kinds):
        raise PluginError(
            f"Task '{task.name}' has the subject_kinds {kinds!r}: give a tuple, like ('document',), with its comma."
        )
    if not kinds:
        raise PluginError(f"Task '{task.name}' has no subject_kinds: name at least one, like ('document',).")


def _check_settings(task: Task[Any]) -> None:
    settings: object = getattr(task, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise PluginError(
            f"Task '{task.name}' has no usable Settings ({settings!r}): give it a class that derives from "
            "ModelSettings, or from pydantic's BaseModel."
        )
    try:
        settings.model_json_schema()
    except PydanticUserError as error:
        raise PluginError(
            f"Task '{task.name}': no form can be drawn from its Settings ({error.message}): "
            "use types that JSON can hold."
        ) from None


def _check_method(task: Task[Any], method: str, arguments: tuple[str, ...]) -> None:
    signature = f"{method}(self, {', '.join(arguments)})"
    function = getattr(task, method)
    if getattr(type(task), method, None) is getattr(Task, method):
        raise PluginError(f"Task '{task.name}' lacks the method {signature}.")
    if inspect.iscoroutinefunction(function):
        raise PluginError(f"Task '{task.name}': {method} is asynchronous: write it with def, not async def.")
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"Task '{task.name}': {method} cannot be called as the host calls it ({error}): write def {signature}."
        ) from None


def _article(value: object) -> str:
    kind = type(value).__name__
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"
