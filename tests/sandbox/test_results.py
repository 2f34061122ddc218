"""The results stream: one row per request, in another order, and valid by the SDK's own types."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import ErrorResponse, Message, ModelInfo
from anthropic.types.messages import DeletedMessageBatch, MessageBatch, MessageBatchIndividualResponse
from support.sandbox import Sandbox
from support.sandbox_calls import HAIKU, SONNET, call, closed_object, json_format, params, requests, rows, run_batch

TOOL = {"name": "note", "input_schema": closed_object(subject={"type": "string"}, urgent={"type": "boolean"})}
MIXED = [
    {"custom_id": "plain", "params": params("Hello there. How are you?")},
    {"custom_id": "thinks", "params": params("Hello there.", model=SONNET)},
    {"custom_id": "json", "params": params(output_config=json_format(closed_object(a={"type": "string"})))},
    {"custom_id": "tool", "params": params(tools=[TOOL], tool_choice={"type": "any"})},
    {"custom_id": "bad-model", "params": params(model="claude-does-not-exist-9")},
    {"custom_id": "bad-tokens", "params": params(max_tokens=0)},
    {
        "custom_id": "bad-image",
        "params": params(
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}],
                }
            ]
        ),
    },
]


def raw_rows(sandbox: Sandbox, batch_id: str) -> list[bytes]:
    reply = call(sandbox.url, "GET", f"/v1/messages/batches/{batch_id}/results")
    assert reply.status == 200
    return reply.body.splitlines()


def test_rows_and_batches_are_valid_by_the_sdks_types_in_strict_mode(sandbox: Sandbox) -> None:
    created = call(sandbox.url, "POST", "/v1/messages/batches", json.dumps({"requests": MIXED}).encode()).body
    batch = MessageBatch.model_validate_json(created, strict=True)
    ended = call(sandbox.url, "GET", f"/v1/messages/batches/{batch.id}").body
    MessageBatch.model_validate_json(ended, strict=True)
    for line in raw_rows(sandbox, batch.id):
        MessageBatchIndividualResponse.model_validate_json(line, strict=True)
    deleted = call(sandbox.url, "DELETE", f"/v1/messages/batches/{batch.id}").body
    DeletedMessageBatch.model_validate_json(deleted, strict=True)


def test_canceled_expired_and_failed_rows_are_valid_too(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    shares = ("errored_share", "overloaded_share", "invalid_share", "expired_share", "nasty_share")
    sandbox.configure(delay=100, **dict.fromkeys(shares, 0.15), nasty_bytes=1000)
    batch = client.messages.batches.create(requests=requests(300))
    client.messages.batches.cancel(batch.id)
    client.messages.batches.retrieve(batch.id)
    kinds = set()
    for line in raw_rows(sandbox, batch.id):
        if b"\\ud800" in line:
            continue  # A lone surrogate is not text to pydantic; a test of its own looks at it.
        row = MessageBatchIndividualResponse.model_validate_json(line, strict=True)
        kinds.add(row.result.type)
    assert kinds == {"succeeded", "errored", "canceled", "expired"}


def test_error_answers_and_models_are_valid_by_the_sdks_types(sandbox: Sandbox) -> None:
    error = call(sandbox.url, "GET", "/v1/messages/batches/msgbatch_none")
    assert ErrorResponse.model_validate_json(error.body, strict=True).request_id == error.headers["request-id"]
    for shown in call(sandbox.url, "GET", "/v1/models?limit=1000").json["data"]:
        ModelInfo.model_validate_json(json.dumps(shown), strict=True)


def test_a_succeeded_row_has_the_captured_shape(client: anthropic.Anthropic) -> None:
    batch = run_batch(client, [{"custom_id": "ok-1", "params": params()}])
    result = rows(client, batch.id)["ok-1"]
    assert set(result) == {"type", "message"}
    message = result["message"]
    assert message["id"].startswith("msg_01")
    assert (message["type"], message["role"], message["model"]) == (
        "message",
        "assistant",
        "claude-haiku-4-5-20251001",
    )
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    usage = message["usage"]
    assert usage == {
        "input_tokens": usage["input_tokens"],
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage["output_tokens"],
        "service_tier": "batch",
        "inference_geo": "not_available",
    }
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 0


def test_an_errored_row_nests_its_error_twice(client: anthropic.Anthropic) -> None:
    result = rows(client, run_batch(client, MIXED).id)["bad-model"]
    assert result == {
        "type": "errored",
        "error": {
            "type": "error",
            "error": {
                "details": {"error_visibility": "user_facing"},
                "type": "not_found_error",
                "message": "model: claude-does-not-exist-9",
            },
            "request_id": None,
        },
    }


def test_a_fault_met_while_running_names_a_worker_request(client: anthropic.Anthropic) -> None:
    error = rows(client, run_batch(client, MIXED).id)["bad-image"]["error"]
    assert error["request_id"].startswith("workerreq_")
    assert error["error"]["message"] == "Unable to download the file. Please verify the URL and try again."


def test_rows_come_in_another_order_but_the_same_each_time(sandbox: Sandbox) -> None:
    batch = sandbox.call("POST", "/v1/messages/batches", {"requests": requests(50)})
    sandbox.call("GET", f"/v1/messages/batches/{batch['id']}")
    first, second = (raw_rows(sandbox, batch["id"]) for _ in range(2))
    assert first == second
    ids = [json.loads(line)["custom_id"] for line in first]
    assert sorted(ids) == sorted(request["custom_id"] for request in requests(50))
    assert ids != [request["custom_id"] for request in requests(50)]


def test_results_are_lines_of_json_by_their_content_type(sandbox: Sandbox) -> None:
    batch = sandbox.call("POST", "/v1/messages/batches", {"requests": requests(1)})
    sandbox.call("GET", f"/v1/messages/batches/{batch['id']}")
    reply = call(sandbox.url, "GET", f"/v1/messages/batches/{batch['id']}/results")
    assert reply.headers["content-type"] == "application/x-jsonl"
    assert reply.body.endswith(b"\n")


def test_the_sdk_reads_results_with_its_own_decoder(client: anthropic.Anthropic) -> None:
    batch = run_batch(client, MIXED)
    results = {row.custom_id: row.result.type for row in client.messages.batches.results(batch.id)}
    assert results == dict.fromkeys(("plain", "thinks", "json", "tool"), "succeeded") | dict.fromkeys(
        ("bad-model", "bad-tokens", "bad-image"), "errored"
    )
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (4, 3)


def test_a_batch_whose_rows_all_failed_still_has_results(client: anthropic.Anthropic) -> None:
    batch = run_batch(client, [{"custom_id": "a", "params": params(max_tokens=0)}])
    assert batch.request_counts.errored == 1
    assert list(rows(client, batch.id)) == ["a"]


@pytest.mark.parametrize("geo", [None, "us"])
def test_usage_names_the_geography_of_models_that_have_one(client: anthropic.Anthropic, geo: Any) -> None:
    batch = run_batch(client, [{"custom_id": "a", "params": params(model=SONNET, inference_geo=geo)}])
    message = Message.model_validate(rows(client, batch.id)["a"]["message"])
    assert message.usage.inference_geo == (geo or "global")
    assert HAIKU not in message.model
