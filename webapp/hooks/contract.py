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
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.errors import PydanticUserError

from webapp.errors import PluginError
from webapp.hooks.configured import Configured
from webapp.hooks.moving import Sink, Source
from webapp.hooks.specs import API_VERSION
from webapp.hooks.task import Task

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NAME_LIMIT = 64
# What a plugin registers: the class to derive from, and its methods as the host calls them.
METHODS: dict[type[Configured[Any]], dict[str, tuple[str, ...]]] = {
    Task: {
        "shared_params": ("settings",),
        "request_params": ("subject", "settings"),
        "process": ("subject", "message", "settings"),
    },
    Source: {"records": ("settings",)},
    Sink: {"deliver": ("run", "outputs", "settings", "key")},
}
REGISTERING: dict[str, type[Configured[Any]]] = {
    "register_tasks": Task,
    "register_sources": Source,
    "register_sinks": Sink,
}


class NoSettings(BaseModel):
    """Of a plugin that has none of its own."""

    model_config = ConfigDict(extra="forbid")


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
        for impl in caller.get_hookimpls():
            _check_plain(caller.name, impl.function)
    names = tuple(sorted(caller.name for caller in callers if caller.has_spec()))
    if not names:
        raise PluginError(
            f"It implements no hook. Put @hookimpl before a function with the name of a hook: {', '.join(known)}."
        )
    return names


def check_registered(hook: str, returned: Any) -> tuple[Any, ...]:
    """What a ``register_*`` hook returned, once it is known to be a list of what that hook is for, each sound.

    :raises PluginError: it is no list, is empty, or holds something that breaks the contract.
    """
    kind = REGISTERING[hook]
    noun = kind.noun.lower()
    if isinstance(returned, kind):
        raise PluginError(f"{hook} returned a {noun}, not a list of {noun}s: return [it].")
    if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Iterable):
        raise PluginError(f"{hook} returned {_article(returned)}, not a list of {noun}s.")
    found = tuple(returned)
    if not found:
        raise PluginError(f"{hook} returned no {noun}s: return [Your{kind.noun}()].")
    for one in found:
        _check_one(hook, kind, one)
    return found


def check_plugin_settings(plugin: object, name: str, hooks: tuple[str, ...]) -> Configured[Any]:
    """What a plugin's own settings are filled in by: its module's ``Settings``, or none.

    They are what `check_*` and `on_*` hooks are called with. In a plugin that has none of those a ``Settings`` is the
    module's own affair, such as the settings of its one task.

    :raises PluginError: they are no pydantic model, or cannot be without being filled in.
    """
    model = None if REGISTERING.keys() >= set(hooks) else getattr(plugin, "Settings", None)

    class Own(Configured[Any]):
        Settings = NoSettings if model is None else model

    own = Own()
    own.name, own.title = name, name
    _check_settings(own)
    needed = [field for field, info in own.Settings.model_fields.items() if info.is_required()]
    if needed:
        raise PluginError(
            f"The plugin's Settings have no default for {', '.join(needed)}: give each a default, for a plugin must "
            "work as soon as it is there."
        )
    try:
        own.Settings()
    except ValidationError as error:
        raise PluginError(f"The plugin's Settings refuse their own defaults: {error}. Mend the defaults.") from None
    return own


def _check_plain(name: str, function: object) -> None:
    """:raises PluginError: calling the hook would not run it."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{name} is asynchronous: write it with def, not async def.")
    if name not in REGISTERING and inspect.isgeneratorfunction(function):
        raise PluginError(f"{name} is a generator, so a call of it does nothing: write it without yield.")


def _check_one(hook: str, kind: type[Configured[Any]], one: object) -> None:
    if isinstance(one, type) and issubclass(one, kind):
        raise PluginError(f"{hook} returned the class {one.__name__}: return [{one.__name__}()].")
    if not isinstance(one, kind):
        raise PluginError(f"{hook} returned {_article(one)}, which is no {kind.noun}: derive from {kind.noun}.")
    _check_name(one)
    if isinstance(one, Task):
        _check_kinds(one)
    _check_settings(one)
    for method, arguments in METHODS[kind].items():
        _check_method(kind, one, method, arguments)


def _check_name(one: Configured[Any]) -> None:
    who = f"{one.noun} class {type(one).__name__}"
    if not isinstance(one.name, str) or not one.name:
        raise PluginError(f"{who} has no name: give it one, like name = 'classify'.")
    if not _NAME.fullmatch(one.name) or len(one.name) > _NAME_LIMIT:
        raise PluginError(
            f"{who} has the name {one.name!r}: use a lower-case letter, then lower-case letters, "
            f"digits and _, at most {_NAME_LIMIT}."
        )
    texts = {Task: ("title", "version"), Source: ("title", "kind", "text_field"), Sink: ("title",)}
    for attribute in next(found for kind, found in texts.items() if isinstance(one, kind)):
        value = getattr(one, attribute)
        if not isinstance(value, str) or not value.strip():
            raise PluginError(f"{one.noun} '{one.name}' has the {attribute} {value!r}: it must be text.")


def _check_kinds(task: Task[Any]) -> None:
    kinds: object = task.subject_kinds
    if not isinstance(kinds, tuple | list | set | frozenset) or not all(isinstance(kind, str) for kind in kinds):
        raise PluginError(
            f"Task '{task.name}' has the subject_kinds {kinds!r}: give a tuple, like ('document',), with its comma."
        )
    if not kinds:
        raise PluginError(f"Task '{task.name}' has no subject_kinds: name at least one, like ('document',).")


def _check_settings(one: Configured[Any]) -> None:
    who = f"{one.noun} '{one.name}'"
    settings: object = getattr(one, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        base = "ModelSettings, or from pydantic's BaseModel" if isinstance(one, Task) else "pydantic's BaseModel"
        raise PluginError(f"{who} has no usable Settings ({settings!r}): give it a class that derives from {base}.")
    try:
        settings.model_json_schema()
    except PydanticUserError as error:
        raise PluginError(
            f"{who}: no form can be drawn from its Settings ({error.message}): use types that JSON can hold."
        ) from None


def _check_method(kind: type[Configured[Any]], one: Configured[Any], method: str, arguments: tuple[str, ...]) -> None:
    who = f"{one.noun} '{one.name}'"
    signature = f"{method}(self, {', '.join(arguments)})"
    function = getattr(one, method)
    if getattr(type(one), method, None) is getattr(kind, method):
        raise PluginError(f"{who} lacks the method {signature}.")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{who}: {method} is asynchronous: write it with def, not async def.")
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{who}: {method} cannot be called as the host calls it ({error}): write def {signature}."
        ) from None


def _article(value: object) -> str:
    kind = type(value).__name__
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"
