"""Checks the messages of one request: roles, blocks, images. Called by `checks.check_params` alone.

Texts are those seen on the real API where one was captured; the others are modelled on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .images import read_source
from .models import Model

NEW_VERSION = "2026-10-21"

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_IMAGE_BYTES = 10 * 1024 * 1024


class Problem(NamedTuple):
    """Why a row is errored. `by_worker`: the fault was met while running, so the row has a request id."""

    type: str
    message: str
    by_worker: bool = False


class Setting(NamedTuple):
    """What the rest of the request says that matters to its messages."""

    model: Model
    version: str
    has_format: bool


def check_messages(messages: Any, setting: Setting) -> str | Problem | None:
    """The first problem of a request's messages, as a text where it is an ordinary one, or None."""
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
    if messages[-1]["role"] == "assistant" and not setting.model.takes_prefill:
        return "This model does not support assistant message prefill. The conversation must end with a user message."
    for at, message in enumerate(messages):
        problem = _check_content(setting, message["content"], message["role"], f"messages.{at}.content")
        if problem is not None:
            return problem
    return _check_image_sizes(messages, setting)


def _check_content(setting: Setting, content: Any, role: str, place: str) -> str | Problem | None:
    if isinstance(content, str):
        return None if content.strip() else "messages: text content blocks must contain non-whitespace text"
    if not isinstance(content, list):
        return f"{place}: Input should be a valid list"
    for at, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            return f"{place}.{at}.type: Field required"
        problem = _check_block(setting, block, role, f"{place}.{at}")
        if problem is not None:
            return problem
    return None


def _check_block(setting: Setting, block: dict[str, Any], role: str, place: str) -> str | Problem | None:
    kind, new = block["type"], setting.version == NEW_VERSION
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
        if asks and setting.has_format:
            return "output_config.format: citations cannot be used together with an output format"
        return _check_elsewhere(block.get("source"), place)
    elif kind == "tool_result" and block.get("content"):
        return _check_content(setting, block["content"], role, f"{place}.tool_result.content")
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


def _check_image_sizes(messages: list[dict[str, Any]], setting: Setting) -> str | None:
    pictures = [read_source(source) for source in _image_sources(messages)]
    if not pictures:
        return None
    most_images = 100 if setting.model.max_input_tokens <= 200_000 else 600
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
