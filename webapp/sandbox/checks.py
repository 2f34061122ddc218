"""Checks one request's ``params`` as the API does while it processes a batch: too late for a refusal.

The intake asks whether a row will be errored, the results ask once more for the text. Texts are those seen on
the real API in 2026 where one was captured; the others are modelled on them, and clients must not match on
either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from .body import loads
from .content_checks import NEW_VERSION, Problem, Setting, check_messages
from .models import Model, find_model
from .schemas import is_well_formed, schema_problem
from .tokens import dumps, measure

_TOP_LEVEL = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "metadata", "stop_sequences", "stream"),
        *("temperature", "top_p", "top_k", "thinking", "tools", "tool_choice", "cache_control"),
        *("container", "diagnostics", "inference_geo", "output_config", "service_tier", "mcp_servers"),
        *("context_management", "user_profile_id"),
    }
)
_NOT_IN_BATCHES = (
    "speed",
    "store",
    "previous_thread_event_id",
    "cache_hint",
    "context_hint",
    "fallbacks",
    "research_preview_2026_02",
    "billing_policy",
)
_TOOL_KEYS = frozenset(
    {
        *("name", "description", "input_schema", "strict", "cache_control", "input_examples", "type"),
        *("allowed_callers", "defer_loading", "eager_input_streaming"),
    }
)
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
#: Bytes of a request that cannot be too long for any model, so that its tokens need not be counted.
_SURELY_SHORT = 50_000
#: What a request holds beside its messages is remembered up to this size.
_REMEMBERED_BYTES = 200_000
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class Request(NamedTuple):
    """A request but for its messages, and what the create call said for the whole batch."""

    params: dict[str, Any]
    model: Model
    betas: tuple[str, ...]


class _Verdict(NamedTuple):
    """What the checks of a request but for its messages found."""

    problem: Problem | None
    setting: Setting | None = None
    #: The times to live of the cache markers before the messages, and of the one at the top level.
    ttls: tuple[Any, ...] = ()
    last_ttl: tuple[Any, ...] = ()


def check_params(params: dict[str, Any], version: str, betas: tuple[str, ...], size: int) -> Problem | None:
    """The first problem of a request's params, or None.

    :param version: the ``anthropic-version`` of the create call.
    :param betas: its ``anthropic-beta`` values; they hold for the whole batch.
    :param size: bytes of the request.
    """
    rest = dumps({key: value for key, value in params.items() if key != "messages"})
    judge = _judge_rest if len(rest) < _REMEMBERED_BYTES else _judge_rest.__wrapped__
    verdict = judge(rest, "messages" in params, version, betas)
    if verdict.setting is None:
        return verdict.problem
    messages = params["messages"]
    problem = check_messages(messages, verdict.setting)
    if problem is None:
        problem = _check_cache_markers([*verdict.ttls, *_message_ttls(messages), *verdict.last_ttl])
    if problem is None and size >= _SURELY_SHORT:
        problem = _check_length(params, verdict.setting.model)
    return _invalid(problem) if isinstance(problem, str) else problem


@lru_cache(maxsize=32)
def _judge_rest(text: bytes, has_messages: bool, version: str, betas: tuple[str, ...]) -> _Verdict:
    """All checks but those of the messages. A batch mostly has one such rest, so it is remembered."""
    params = loads(text)
    message = _extra_key(params, version) or _missing_key(params, has_messages)
    if message:
        return _Verdict(_invalid(message))
    model = find_model(params["model"])
    if model is None:
        return _Verdict(Problem("not_found_error", f"model: {params['model']}"))
    request = Request(params, model, betas)
    for check in _CHECKS:
        message = check(request)
        if message is not None:
            return _Verdict(_invalid(message))
    has_format = bool((params.get("output_config") or {}).get("format"))
    ttls = (*_ttls(params.get("tools")), *_ttls(params.get("system")))
    return _Verdict(None, Setting(model, version, has_format), ttls, tuple(_ttls([params])))


def _invalid(message: str) -> Problem:
    return Problem("invalid_request_error", message)


def _extra_key(params: dict[str, Any], version: str) -> str | None:
    if params.get("stream"):
        return '"stream=True" is not supported in the Message Batches API'
    for key in params:
        if key in _TOP_LEVEL:
            continue
        if key in _NOT_IN_BATCHES:
            return f'"{key}" is not supported in the Message Batches API'
        if key == "output_format":
            return "output_format: This field is deprecated. Use 'output_config.format' instead."
        return f"{key}: Extra inputs are not permitted"
    if version == NEW_VERSION:
        for key in ("temperature", "top_p", "top_k"):
            if key in params:
                return f"{key}: Extra inputs are not permitted"
    return None


def _missing_key(params: dict[str, Any], has_messages: bool) -> str | None:
    for key in ("model", "messages", "max_tokens"):
        if key not in params and not (key == "messages" and has_messages):
            return f"{key}: Field required"
    return None


def _check_max_tokens(request: Request) -> str | None:
    wanted = request.params["max_tokens"]
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        return "max_tokens: Input should be a valid integer"
    if wanted < 1:
        return "max_tokens: must be greater than or equal to 1"
    most = request.model.most_tokens(request.betas)
    if wanted > most:
        return (
            f"max_tokens: {wanted} > {most}, which is the maximum allowed number of output tokens for "
            f"{request.model.id}"
        )
    return None


def _check_thinking(request: Request) -> str | None:
    thinking = request.params.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return None
    if not request.model.takes_enabled_thinking:
        return (
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort" to control thinking behavior.'
        )
    budget = thinking.get("budget_tokens", 0)
    if not isinstance(budget, int) or budget < 1024:
        return "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
    if budget >= request.params["max_tokens"]:
        return "`max_tokens` must be greater than `thinking.budget_tokens`"
    return None


def _check_sampling(request: Request) -> str | None:
    for key in ("temperature", "top_p", "top_k"):
        if request.params.get(key) is not None and not request.model.takes_sampling:
            return f"`{key}` is deprecated for this model."
    return None


def _check_geo(request: Request) -> str | None:
    geo = request.params.get("inference_geo")
    if geo is None or request.model.takes_geo:
        return None
    return f"inference_geo: not supported for {request.model.id}"


def _check_tools(request: Request) -> str | None:
    tools = request.params.get("tools")
    if not isinstance(tools, list | None):
        return "tools: Input should be a valid list"
    for at, tool in enumerate(tools or ()):
        if not isinstance(tool, dict):
            return f"tools.{at}: Input should be a valid dictionary or object to extract fields from"
        if tool.get("type") not in (None, "custom"):
            continue  # A tool the server runs has keys of its own.
        extra = next((key for key in tool if key not in _TOOL_KEYS), None)
        if extra is not None:
            return f"tools.{at}.custom.{extra}: Extra inputs are not permitted"
        if not _TOOL_NAME.fullmatch(str(tool.get("name", ""))):
            return f"tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        if not isinstance(tool.get("input_schema"), dict):
            return f"tools.{at}.custom.input_schema: Field required"
        if tool["input_schema"].get("type") != "object":
            return f"tools.{at}.custom.input_schema.type: Input should be 'object'"
        if not is_well_formed(tool["input_schema"]):
            return f"tools.{at}.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12"
    return _check_tool_choice(request)


def _check_tool_choice(request: Request) -> str | None:
    choice = request.params.get("tool_choice")
    if not isinstance(choice, dict):
        return None
    tools = request.params.get("tools")
    if not tools:
        return "tool_choice: may only be specified while providing `tools`"
    kind = choice.get("type")
    if kind in ("any", "tool") and not request.model.takes_forced_tool:
        return f'tool_choice.type: "{kind}" is not supported for this model. Use "auto" instead.'
    if kind == "tool" and choice.get("name") not in [tool.get("name") for tool in tools]:
        return f"tool_choice.name: Tool '{choice.get('name')}' not found in provided tools"
    return None


def _check_output(request: Request) -> str | None:
    config = request.params.get("output_config")
    if config is None:
        return None
    if not isinstance(config, dict):
        return "output_config: Input should be a valid dictionary or object to extract fields from"
    if config.get("effort") not in (None, *_EFFORTS):
        return "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
    wanted = config.get("format")
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return "output_config.format.type: Input should be 'json_schema'"
    if not isinstance(wanted.get("schema"), dict):
        return "output_config.format.schema: Field required"
    problem = schema_problem(wanted["schema"])
    return f"output_config.format.schema: {problem}" if problem else None


def _check_system(request: Request) -> str | None:
    system = request.params.get("system")
    if system is None or isinstance(system, str):
        return None
    if not isinstance(system, list):
        return "system: Input should be a valid list"
    for at, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text":
            return f"system.{at}.type: Input should be 'text'"
        if not isinstance(block.get("text"), str):
            return f"system.{at}.text: Field required"
        if not block["text"]:
            return "system: text content blocks must be non-empty"
    return None


def _check_stop_sequences(request: Request) -> str | None:
    sequences = request.params.get("stop_sequences")
    if sequences is None:
        return None
    if not isinstance(sequences, list) or not all(isinstance(one, str) for one in sequences):
        return "stop_sequences: Input should be a valid list"
    if not all(one.strip() for one in sequences):
        return "stop_sequences: each stop sequence must contain non-whitespace"
    return None


def _check_cache_markers(ttls: list[Any]) -> str | None:
    if len(ttls) > 4:
        return f"A maximum of 4 blocks with cache_control may be provided. Found {len(ttls)}."
    if any(ttl not in ("5m", "1h") for ttl in ttls):
        return "cache_control.ephemeral.ttl: Input should be '5m' or '1h'"
    if "1h" in ttls and "5m" in ttls and ttls.index("5m") < len(ttls) - 1 - ttls[::-1].index("1h"):
        return "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block"
    return None


def _ttls(blocks: Any) -> Iterator[Any]:
    for block in blocks if isinstance(blocks, list) else ():
        control = block.get("cache_control") if isinstance(block, dict) else None
        if isinstance(control, dict):
            yield control.get("ttl") or "5m"


def _message_ttls(messages: list[dict[str, Any]]) -> Iterator[Any]:
    for message in messages:
        if not isinstance(message["content"], str):
            yield from _ttls(message["content"])


def _check_length(params: dict[str, Any], model: Model) -> str | None:
    tokens = measure(params, model).tokens
    most = model.max_input_tokens
    return f"prompt is too long: {tokens} tokens > {most} maximum" if tokens > most else None


_CHECKS: tuple[Callable[[Request], str | None], ...] = (
    _check_max_tokens,
    _check_thinking,
    _check_sampling,
    _check_geo,
    _check_system,
    _check_stop_sequences,
    _check_tools,
    _check_output,
)
