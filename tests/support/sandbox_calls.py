"""Calls to the sandbox and requests for it, as the tests here need them. Only they use it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anthropic
from anthropic.types import Message
from anthropic.types.messages import MessageBatch

HAIKU = "claude-haiku-4-5"
SONNET = "claude-sonnet-5-5"
OLD = {"anthropic-version": "2023-06-01"}


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[str, str]:
        return self.json["error"]["type"], self.json["error"]["message"]


def call(
    url: str,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: dict[str, str] | None = None,
    *,
    chunked: bool = False,
) -> Reply:
    """One HTTP call, with a key and a version unless `headers` says otherwise (None leaves one out)."""
    sent = {"x-api-key": "key", "anthropic-version": "2026-10-21"} | (headers or {})
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        present = {name: value for name, value in sent.items() if value is not None}
        connection.request(method, path, body, present, encode_chunked=chunked)
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def create(url: str, requests: Any, headers: dict[str, str] | None = None) -> Reply:
    """Create a batch by hand."""
    return call(url, "POST", "/v1/messages/batches", json.dumps({"requests": requests}).encode(), headers)


def params(text: str = "Say something.", **others: Any) -> dict[str, Any]:
    """A request's params; the others replace or add, None removes."""
    made = {"model": HAIKU, "max_tokens": 200, "messages": [{"role": "user", "content": text}]} | others
    return {name: value for name, value in made.items() if value is not None}


def requests(count: int, **others: Any) -> list[dict[str, Any]]:
    """So many good requests, ``r-0`` and on."""
    return [{"custom_id": f"r-{at}", "params": params(f"Text number {at}.", **others)} for at in range(count)]


def run_batch(client: anthropic.Anthropic, wanted: list[dict[str, Any]], **options: Any) -> MessageBatch:
    """Create a batch and look at it once, which ends it where the delay is nothing."""
    batch = client.messages.batches.create(requests=wanted, **options)  # type: ignore[arg-type]
    return client.messages.batches.retrieve(batch.id)


def rows(client: anthropic.Anthropic, batch_id: str) -> dict[str, Any]:
    """The results of a batch as plain values, by custom_id."""
    with client.messages.batches.with_streaming_response.results(batch_id) as response:
        text = response.read()
    return {row["custom_id"]: row["result"] for row in map(json.loads, text.splitlines())}


def answer(client: anthropic.Anthropic, wanted: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The result of one request, alone in its batch."""
    batch = run_batch(client, [{"custom_id": "only", "params": wanted}], **options)
    return dict(rows(client, batch.id)["only"])


def message(client: anthropic.Anthropic, wanted: dict[str, Any], **options: Any) -> Message:
    """The Message of one request that must succeed, checked against the SDK's type."""
    result = answer(client, wanted, **options)
    assert result["type"] == "succeeded", result
    return Message.model_validate_json(json.dumps(result["message"]), strict=True)


def text_of(message: Message) -> str:
    return next(block.text for block in message.content if block.type == "text")


def json_format(schema: dict[str, Any]) -> dict[str, Any]:
    """An ``output_config`` that asks for JSON."""
    return {"format": {"type": "json_schema", "schema": schema}}


def closed_object(**properties: Any) -> dict[str, Any]:
    """The schema of an object that has all of these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
