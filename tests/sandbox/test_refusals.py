"""What the sandbox refuses for a whole batch, with the API's own texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.sandbox import Sandbox
from support.sandbox_calls import call, create, params, requests

GOOD = {"custom_id": "ok", "params": params()}


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            [GOOD, {"custom_id": "dup", "params": params()}, {"custom_id": "dup", "params": params()}],
            "requests: custom_id's must be unique within a batch. Duplicate custom_id found: dup",
        ),
        ([{"params": params()}], "requests.0.custom_id: Field required"),
        (
            [GOOD, {"custom_id": "x" * 65, "params": params()}],
            "requests.1.custom_id: String should have at most 64 characters",
        ),
        (
            [{"custom_id": "a b", "params": params()}],
            "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        ([], "requests: List should have at least 1 item after validation, not 0"),
        ([{"custom_id": 5, "params": params()}], "requests.0.custom_id: Input should be a valid string"),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
        ({"not": "a list"}, "requests: Input should be a valid list"),
    ],
)
def test_a_batch_is_refused_as_a_whole(shared: Sandbox, wanted: Any, text: str) -> None:
    reply = create(shared.url, wanted)
    assert (reply.status, reply.error) == (400, ("invalid_request_error", text))
    assert reply.json["type"] == "error"
    assert reply.json["request_id"] == reply.headers["request-id"]


def test_an_id_with_a_newline_at_its_end_is_refused(shared: Sandbox) -> None:
    reply = create(shared.url, [{"custom_id": "a\n", "params": params()}])
    assert "should match pattern" in reply.error[1]


@pytest.mark.parametrize("body", [b"", b"{", b'{"requests": [', b'{"requests": [{"a": NaN}]}', b"\xff"])
def test_a_body_that_is_not_json_is_refused(shared: Sandbox, body: bytes) -> None:
    reply = call(shared.url, "POST", "/v1/messages/batches", body)
    assert reply.status == 400
    assert reply.error[1].startswith("The request body is not valid JSON: ")


def test_a_body_without_requests_or_with_something_else_is_refused(shared: Sandbox) -> None:
    assert call(shared.url, "POST", "/v1/messages/batches", b"{}").error[1] == "requests: Field required"
    both = json.dumps({"requests": [GOOD], "name": "mine"}).encode()
    reply = call(shared.url, "POST", "/v1/messages/batches", both)
    assert reply.error[1] == "name: Extra inputs are not permitted"


def test_nothing_of_a_refused_batch_is_kept(sandbox: Sandbox) -> None:
    create(sandbox.url, [GOOD, GOOD])
    assert sandbox.accepted() == []
    assert list((sandbox.folder / "uploads").iterdir()) == []


def test_more_requests_than_allowed_are_refused(sandbox: Sandbox) -> None:
    sandbox.configure(max_requests=3)
    assert create(sandbox.url, requests(3)).status == 200
    text = "requests: List should have at most 3 items after validation, not 4"
    assert create(sandbox.url, requests(4)).error == ("invalid_request_error", text)


def test_a_body_over_the_limit_is_refused_with_a_page_as_the_proxy_does(sandbox: Sandbox) -> None:
    sandbox.configure(max_body_bytes=1000)
    body = json.dumps({"requests": requests(20)}).encode()
    for chunked in (False, True):
        sent = iter([body[:700], body[700:]]) if chunked else body
        headers = {"transfer-encoding": "chunked"} if chunked else {}
        reply = call(sandbox.url, "POST", "/v1/messages/batches", sent, headers, chunked=chunked)
        assert reply.status == 413
        assert reply.headers["content-type"].startswith("text/html")
        assert b"413 Request Entity Too Large" in reply.body


@pytest.mark.parametrize("header", [{"x-api-key": "k"}, {"x-api-key": None, "authorization": "Bearer k"}])
@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_both_auth_headers_and_both_versions_are_accepted(
    shared: Sandbox, header: dict[str, str], version: str
) -> None:
    reply = call(shared.url, "GET", "/v1/messages/batches", headers=header | {"anthropic-version": version})
    assert reply.status == 200


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/models", "/sandbox/bill", "/sandbox/config"])
def test_a_missing_key_is_refused_everywhere(shared: Sandbox, path: str) -> None:
    reply = call(shared.url, "GET", path, headers={"x-api-key": None})  # type: ignore[dict-item]
    assert (reply.status, reply.error[0]) == (401, "authentication_error")


def test_a_key_that_says_it_is_invalid_is_refused(shared: Sandbox) -> None:
    reply = call(shared.url, "GET", "/v1/messages/batches", headers={"x-api-key": "invalid-key"})
    assert (reply.status, reply.error) == (401, ("authentication_error", "API key is invalid."))


@pytest.mark.parametrize("version", [None, "2030-01-01"])
def test_a_missing_or_unknown_version_is_refused(shared: Sandbox, version: Any) -> None:
    reply = call(shared.url, "GET", "/v1/messages/batches", headers={"anthropic-version": version})
    assert reply.status == 400
    assert reply.error[1].startswith("anthropic-version:")


def test_every_answer_carries_the_apis_headers_and_says_it_is_a_sandbox(shared: Sandbox) -> None:
    paths = ["/v1/messages/batches", "/v1/messages/batches/msgbatch_none", "/v1/nothing", "/sandbox/config"]
    for reply in [call(shared.url, "GET", path) for path in paths]:
        assert reply.headers["batchdesk-sandbox"] == "true"
        assert reply.headers["request-id"].startswith("req_")
        assert reply.headers["anthropic-organization-id"]
        assert reply.headers["anthropic-workspace-id"].startswith("wrkspc_")
        assert len(reply.headers.get_all("date")) == 1


def test_batch_calls_carry_rate_limit_headers(shared: Sandbox) -> None:
    headers = call(shared.url, "GET", "/v1/messages/batches").headers
    for name in ("limit", "remaining", "reset"):
        assert headers[f"anthropic-ratelimit-requests-{name}"]


def test_a_path_the_api_does_not_have_is_not_found(shared: Sandbox) -> None:
    for method, path, status in (("GET", "/v1/messages", 404), ("PUT", "/v1/messages/batches", 405)):
        reply = call(shared.url, method, path)
        assert reply.status == status
        assert reply.json["type"] == "error"
