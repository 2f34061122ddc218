"""Counts the calls of the API that pass through a gateway's own HTTP client. Tests of what a step costs use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from webapp.gateway import Gateway


@contextmanager
def counted(gateway: Gateway) -> Iterator[list[str]]:
    """The calls made within the block, as `METHOD path?query`, in order."""
    calls: list[str] = []

    def note(request: Any) -> None:
        calls.append(f"{request.method} {request.url.raw_path.decode()}")

    hooks = gateway._client._client.event_hooks
    before = list(hooks["request"])
    gateway._client._client.event_hooks = {**hooks, "request": [*before, note]}
    try:
        yield calls
    finally:
        gateway._client._client.event_hooks = {**hooks, "request": before}
