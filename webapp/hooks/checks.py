"""Refuses request parameters that would fail or cost money for nothing, before anything is sent.
The calls to a task's methods go through here; so does whoever has parameters from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from webapp.errors import PluginError
from webapp.hooks.payloads import Image

_SAMPLING = "the API removed sampling parameters; ask for what you want in the prompt"
_NOT_BATCHED = "the Message Batches API does not take it"
_SDK_ONLY = "it is an argument of the SDK's call, no part of a request"
FORBIDDEN: Mapping[str, str] = {
    **dict.fromkeys(("temperature", "top_p", "top_k"), _SAMPLING),
    **dict.fromkeys(("stream", "speed", "store", "previous_thread_event_id"), _NOT_BATCHED),
    **dict.fromkeys(("cache_hint", "context_hint", "fallbacks", "billing_policy"), _NOT_BATCHED),
    "research_preview_2026_02": _NOT_BATCHED,
    "betas": "betas are a header of the whole batch, and a request that has them fails",
    **dict.fromkeys(("extra_headers", "extra_query", "extra_body", "timeout"), _SDK_ONLY),
    "custom_id": "Batchdesk gives each request its custom_id",
}
_MAX_CACHE_MARKERS = 4
_BEFORE_MESSAGES = ("tools", "system")  # the API's cached prefix is tools, then system, then messages


def check_shared(params: Any, *, plugin: str = "the plugin") -> None:
    """Pass when the shared part can be sent with every request of a run.

    :param plugin: who made it, for the message.
    :raises PluginError: a parameter is missing, of the wrong type, or not possible in a batch.
    """
    who = f"{plugin}: shared_params"
    _check_part(params, who)
    model = params.get("model")
    if not isinstance(model, str) or not model:
        raise PluginError(f"{who} must give 'model', the name of a Claude model; it gives {model!r}.")
    tokens = params.get("max_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise PluginError(f"{who} must give 'max_tokens', a whole number of at least 1; it gives {tokens!r}.")
    if _holds_image(params):
        raise PluginError(f"{who} holds an image of a record: put it into request_params.")
    markers = _cache_markers(params)
    if markers > _MAX_CACHE_MARKERS:
        raise PluginError(f"{who} has {markers} cache_control markers; the API takes {_MAX_CACHE_MARKERS}: drop some.")


def check_own(params: Any, shared: Mapping[str, Any], *, plugin: str = "the plugin") -> None:
    """Pass when a record's own part can be sent together with the shared part.

    :param shared: what `check_shared` has passed.
    :param plugin: who made it, for the message.
    :raises PluginError: a key is in both parts, a parameter is not possible, or there are no messages.
    """
    who = f"{plugin}: request_params"
    _check_part(params, who)
    both = sorted(params.keys() & shared.keys())
    if both:
        raise PluginError(
            f"{who} gives {_quoted(both)}, which shared_params gives too: a key belongs to one part only."
        )
    messages = params.get("messages", shared.get("messages"))
    if not isinstance(messages, list | tuple) or not messages:
        raise PluginError(f"{who} must give 'messages', a list of at least one message.")
    early = sorted(params.keys() & set(_BEFORE_MESSAGES))
    if early and _cache_markers(shared):
        raise PluginError(
            f"{who} gives {_quoted(early)}, which comes before or into the cached part: nothing would ever "
            "be read from the cache. Put what varies into the messages."
        )


def check_json(value: Any, who: str, path: str = "") -> None:
    """Pass when JSON can hold the value.

    :raises PluginError: says where in the value what is not possible stands.
    """
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PluginError(f"{who}{_at(path)} is {value}, which JSON has no number for.")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                raise PluginError(f"{who}{_at(path)} has the key {key!r}: keys must be text.")
            check_json(part, who, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            check_json(part, who, f"{path}[{index}]")
    else:
        raise PluginError(f"{who}{_at(path)} is of type {type(value).__name__}, which JSON cannot hold.")


def _check_part(params: Any, who: str) -> None:
    if not isinstance(params, dict):
        raise PluginError(f"{who} returned {type(params).__name__}, not a dict of request parameters.")
    for key in params:
        if key in FORBIDDEN:
            raise PluginError(f"{who} gives '{key}': {FORBIDDEN[key]}. Leave it out.")
    check_json(_without_images(params), who)


def _without_images(value: Any) -> Any:
    """The value with image blocks' stand-ins for base64 taken as the text they will be."""
    if isinstance(value, dict):
        if value.get("type") == "base64" and isinstance(value.get("data"), Image):
            return {**value, "data": ""}
        return {key: _without_images(part) for key, part in value.items()}
    return [_without_images(part) for part in value] if isinstance(value, list | tuple) else value


def _holds_image(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_image(part) for part in value.values())
    return any(map(_holds_image, value)) if isinstance(value, list | tuple) else isinstance(value, Image)


def _cache_markers(value: Any) -> int:
    if isinstance(value, Mapping):
        return bool(value.get("cache_control")) + sum(map(_cache_markers, value.values()))
    return sum(map(_cache_markers, value)) if isinstance(value, list | tuple) else 0


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
