"""Checks one request's ``params`` as the API does while it processes a batch: too late for a refusal.

The intake asks whether a row will be errored, the results ask once more for the text. Texts are those seen on
the real API in 2026 where one was captured; the others are modelled on them, and clients must not match on
either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .images import read_source
from .models import Model, find_model
from .schemas import schema_problem
from .tokens import measure

NEW_VERSION = "2026-10-21"

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
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_IMAGE_BYTES = 10 * 1024 * 1024
#: Bytes of a request that cannot be too long for any model, so that its tokens need not be counted.
_SURELY_SHORT = 50_000
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class Problem(NamedTuple):
    """Why a row is errored. `by_worker`: the fault was met while running, so the row has a request id."""

    type: str
    message: str
    by_worker: bool = False


class Request(NamedTuple):
    """What the checks look at: the params, their model, and what the create call said for the whole batch."""

    params: dict[str, Any]
    model: Model
    version: str
    betas: tuple[str, ...]
    size: int


def check_params(params: dict[str, Any], version: str, betas: tuple[str, ...], size: int) -> Problem | None:
    """The first problem of a request's params, or None.

    :param version: the ``anthropic-version`` of the create call.
    :param betas: its ``anthropic-beta`` values; they hold for the whole batch.
    :param size: bytes of the request.
    """
    message = _extra_key(params, version) or _missing_key(params)
    if message:
        return _invalid(message)
    model = find_model(params["model"])
    if model is None:
        return Problem("not_found_error", f"model: {params['model']}")
    request = Request(params, model, version, betas, size)
    for check in _CHECKS:
        problem = check(request)
        if problem is not None:
            return _invalid(problem) if isinstance(problem, str) else problem
    return None


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


def _missing_key(params: dict[str, Any]) -> str | None:
    for key in ("model", "messages", "max_tokens"):
        if key not in params:
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


def _check_messages(request: Request) -> str | Problem | None:
    messages = request.params["messages"]
    if not isinstance(messages, list):
        return "messages: Input should be a valid list"
    if not messages:
        return "messages: at least one message is required"
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            return f"messages.{at}: Input should be a valid dictionary or object to extract fields from"
        if message.get("role") not in ("user", "assistant"):
            return f"messages.{at}.role: Input should be 'user' or 'assistant'"
        if "content" not in message:
            return f"messages.{at}.content: Field required"
    if messages[-1]["role"] == "assistant" and not request.model.takes_prefill:
        return "This model does not support assistant message prefill. The conversation must end with a user message."
    for at, message in enumerate(messages):
        problem = _check_content(request, message, f"messages.{at}.content")
        if problem is not None:
            return problem
    return None


def _check_content(request: Request, message: dict[str, Any], place: str) -> str | Problem | None:
    content = message["content"]
    if isinstance(content, str):
        return None if content.strip() else "messages: text content blocks must contain non-whitespace text"
    if not isinstance(content, list):
        return f"{place}: Input should be a valid list"
    for at, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            return f"{place}.{at}.type: Field required"
        problem = _check_block(request, block, message["role"], f"{place}.{at}")
        if problem is not None:
            return problem
    return None


def _check_block(request: Request, block: dict[str, Any], role: str, place: str) -> str | Problem | None:
    kind, new = block["type"], request.version == NEW_VERSION
    if kind == "text":
        if not isinstance(block.get("text"), str):
            return f"{place}.text.text: Field required"
        if not block["text"]:
            return "messages: text content blocks must be non-empty"
        if new and role == "user" and block.get("citations"):
            return f"{place}.text.citations: Extra inputs are not permitted"
    elif kind == "image":
        return _check_image(block, place)
    elif kind == "document":
        if new and role == "assistant":
            return f"{place}: document blocks are not permitted in assistant messages"
        citations = block.get("citations")
        asks = isinstance(citations, dict) and citations.get("enabled")
        if asks and (request.params.get("output_config") or {}).get("format"):
            return "output_config.format: citations cannot be used together with an output format"
        return _check_elsewhere(block.get("source"), place)
    return None


def _check_elsewhere(source: Any, place: str) -> str | Problem | None:
    """Sources that are not in the request: the sandbox never goes out to fetch one, and keeps no files."""
    kind = source.get("type") if isinstance(source, dict) else None
    if kind is None:
        return f"{place}.source: Field required"
    if kind == "url":
        message = "Unable to download the file. Please verify the URL and try again."
        return Problem("invalid_request_error", message, by_worker=True)
    if kind == "file":
        return Problem("not_found_error", f"File not found: {source.get('file_id')}", by_worker=True)
    return None


def _check_image(block: dict[str, Any], place: str) -> str | Problem | None:
    source = block.get("source")
    elsewhere = _check_elsewhere(source, place)
    if elsewhere is not None:
        return elsewhere
    assert isinstance(source, dict)
    place = f"{place}.image.source.base64"
    if not isinstance(source.get("data"), str):
        return f"{place}.data: Field required"
    if source.get("media_type") not in _IMAGE_TYPES:
        return f"{place}.media_type: Input should be {', '.join(repr(name) for name in _IMAGE_TYPES)}"
    if len(source["data"]) > _IMAGE_BYTES:
        return f"{place}: image exceeds 10 MB maximum: {len(source['data'])} bytes > {_IMAGE_BYTES} bytes"
    picture = read_source(source)
    if picture is None:
        return Problem("invalid_request_error", "Could not process image", by_worker=True)
    if picture.media_type != source["media_type"]:
        return (
            f"{place}.data: The image was specified using the {source['media_type']} media type, "
            f"but the image appears to be a {picture.media_type} image"
        )
    return None


def _check_image_sizes(request: Request) -> str | None:
    pictures = [read_source(source) for source in _image_sources(request.params["messages"])]
    if not pictures:
        return None
    most_images = 100 if request.model.max_input_tokens <= 200_000 else 600
    if len(pictures) > most_images:
        return f"messages: too many images: {len(pictures)} > {most_images} maximum"
    many = len(pictures) > 20
    most, which = (2000, " for many-image requests") if many else (8000, "")
    if any(picture is not None and max(picture.width, picture.height) > most for picture in pictures):
        return f"At least one of the image dimensions exceed max allowed size{which}: {most} pixels"
    return None


def _image_sources(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if isinstance(message["content"], list):
            yield from (block["source"] for block in message["content"] if block["type"] == "image")


def _check_tools(request: Request) -> str | None:
    tools = request.params.get("tools")
    for at, tool in enumerate(tools if isinstance(tools, list) else ()):
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


def _check_cache_markers(request: Request) -> str | None:
    ttls = list(_cache_ttls(request.params))
    if len(ttls) > 4:
        return f"A maximum of 4 blocks with cache_control may be provided. Found {len(ttls)}."
    if any(ttl not in ("5m", "1h") for ttl in ttls):
        return "cache_control.ephemeral.ttl: Input should be '5m' or '1h'"
    if "1h" in ttls and "5m" in ttls and ttls.index("5m") < len(ttls) - 1 - ttls[::-1].index("1h"):
        return "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block"
    return None


def _cache_ttls(params: dict[str, Any]) -> Iterator[Any]:
    holders = [params.get("tools"), params.get("system")]
    holders += [message["content"] for message in params["messages"]]
    blocks = [block for holder in holders if isinstance(holder, list) for block in holder]
    for block in [*blocks, params]:
        control = block.get("cache_control") if isinstance(block, dict) else None
        if isinstance(control, dict):
            yield control.get("ttl") or "5m"


def _check_length(request: Request) -> str | None:
    if request.size < _SURELY_SHORT:
        return None
    tokens = measure(request.params, request.model).tokens
    most = request.model.max_input_tokens
    return f"prompt is too long: {tokens} tokens > {most} maximum" if tokens > most else None


_CHECKS: tuple[Callable[[Request], str | Problem | None], ...] = (
    _check_max_tokens,
    _check_thinking,
    _check_sampling,
    _check_geo,
    _check_messages,
    _check_image_sizes,
    _check_tools,
    _check_output,
    _check_cache_markers,
    _check_length,
)
