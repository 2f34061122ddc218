"""Faults that calls commit on request, as the real SDK meets them."""

from __future__ import annotations

import time
from typing import Any

import anthropic
import pytest
from support.installation import until
from support.sandbox import Sandbox
from support.sandbox_calls import call, create, requests, run_batch


def accepted_batches(sandbox: Sandbox) -> int:
    return len({line["batch_id"] for line in sandbox.accepted()})


@pytest.mark.parametrize(
    ("fault", "exception"),
    [
        ("400", anthropic.BadRequestError),
        ("401", anthropic.AuthenticationError),
        ("402", anthropic.PaymentRequiredError),
        ("403", anthropic.PermissionDeniedError),
        ("408", anthropic.APIStatusError),
        ("409", anthropic.ConflictError),
        ("413", anthropic.APIStatusError),
        ("429", anthropic.RateLimitError),
        ("500", anthropic.InternalServerError),
        ("503", anthropic.InternalServerError),
        ("504", anthropic.InternalServerError),
        ("529", anthropic.InternalServerError),
        ("credit", anthropic.BadRequestError),
        ("spend_cap", anthropic.RateLimitError),
        ("drop_early", anthropic.APIConnectionError),
        ("drop_before", anthropic.APIConnectionError),
    ],
)
def test_a_fault_before_acceptance_leaves_no_batch(
    sandbox: Sandbox, client: anthropic.Anthropic, fault: str, exception: type[Exception]
) -> None:
    sandbox.configure(create_faults=fault)
    with pytest.raises(exception) as caught:
        client.messages.batches.create(requests=requests(2))
    if fault.isdigit():
        assert getattr(caught.value, "status_code", None) == int(fault)
    assert accepted_batches(sandbox) == 0
    client.messages.batches.create(requests=requests(2))
    assert accepted_batches(sandbox) == 1


@pytest.mark.parametrize("fault", ["drop_after", "timeout_after:0.3", "500_after", "529_after", "garbled"])
def test_a_fault_after_acceptance_leaves_a_batch_that_was_never_answered(
    sandbox: Sandbox, client: anthropic.Anthropic, fault: str
) -> None:
    sandbox.configure(create_faults=fault)
    if fault == "garbled":
        reply = create(sandbox.url, requests(2))
        assert b"does not tell" in reply.body
    else:
        with pytest.raises(anthropic.APIError):
            client.messages.batches.create(requests=requests(2))
    assert accepted_batches(sandbox) == 1
    assert [batch.request_counts.succeeded for batch in client.messages.batches.list()] == [2]


def test_the_sdks_own_retries_submit_twice_when_the_answer_is_lost(
    sandbox: Sandbox, client: anthropic.Anthropic
) -> None:
    sandbox.configure(create_faults="drop_after,500_after")
    client.with_options(max_retries=2).messages.batches.create(requests=requests(1))
    assert accepted_batches(sandbox) == 3


def test_a_client_that_gives_up_finds_its_batch_accepted(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(create_faults="timeout_after:60")
    began = time.monotonic()
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=0.5).messages.batches.create(requests=requests(1))
    assert time.monotonic() - began < 10
    assert accepted_batches(sandbox) == 1


def test_faults_are_taken_in_order_and_then_calls_go_well(sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="429:5, ok, 500*2")
    statuses = [create(sandbox.url, requests(1)).status for _ in range(6)]
    assert statuses == [429, 200, 500, 500, 200, 200]


def test_a_fault_with_a_star_never_ends(sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="529*")
    assert {create(sandbox.url, requests(1)).status for _ in range(5)} == {529}
    sandbox.configure(create_faults="")
    assert create(sandbox.url, requests(1)).status == 200


def test_a_rate_limit_names_its_wait_and_a_spend_cap_does_not(sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="429:5,spend_cap")
    limited, capped = (create(sandbox.url, requests(1)) for _ in range(2))
    assert (limited.status, limited.headers["retry-after"]) == (429, "5")
    assert (capped.status, capped.headers["retry-after"]) == (429, None)
    assert capped.json["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}


def test_the_sdk_knows_the_spend_cap_by_its_code(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(create_faults="spend_cap")
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.batches.create(requests=requests(1))
    assert getattr(caught.value, "error_code", None) == "enforced_spend_limit_reached"


def test_missing_credit_comes_as_an_invalid_request(sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="credit")
    kind, text = create(sandbox.url, requests(1)).error
    assert kind == "invalid_request_error"
    assert text.startswith("Your credit balance is too low to access the Anthropic API.")


def test_faults_can_say_whether_to_retry(sandbox: Sandbox) -> None:
    sandbox.configure(create_faults="500", should_retry="false")
    assert create(sandbox.url, requests(1)).headers["x-should-retry"] == "false"


@pytest.mark.parametrize("fault", ["500", "529", "429:1", "404"])
def test_retrieve_list_and_cancel_commit_faults_too(sandbox: Sandbox, fault: str) -> None:
    sandbox.configure(retrieve_faults=fault, list_faults=fault, cancel_faults=fault)
    batch = sandbox.call("POST", "/v1/messages/batches", {"requests": requests(1)})
    path = f"/v1/messages/batches/{batch['id']}"
    for method, each in (("GET", path), ("GET", "/v1/messages/batches"), ("POST", f"{path}/cancel")):
        assert call(sandbox.url, method, each).status == int(fault[:3])
    assert call(sandbox.url, "GET", path).status == 200


def test_a_dropped_retrieve_is_a_connection_error(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    batch = run_batch(client, requests(1))
    sandbox.configure(retrieve_faults="drop_before,drop_after")
    for _ in range(2):
        with pytest.raises(anthropic.APIConnectionError):
            client.messages.batches.retrieve(batch.id)
    assert client.messages.batches.retrieve(batch.id).id == batch.id


def test_a_full_queue_refuses_with_a_wait_until_batches_end(sandbox: Sandbox) -> None:
    sandbox.configure(queue_limit=5, delay=60)
    assert create(sandbox.url, requests(3)).status == 200
    full = create(sandbox.url, requests(3))
    assert (full.status, full.error[0]) == (429, "rate_limit_error")
    assert float(full.headers["retry-after"]) > 0
    assert create(sandbox.url, requests(3), {"x-api-key": "ws:other:key"}).status == 200
    sandbox.advance(60)
    assert create(sandbox.url, requests(3)).status == 200


def test_too_many_calls_a_minute_are_refused_until_the_bucket_fills(sandbox: Sandbox) -> None:
    sandbox.configure(rpm=3)
    statuses = [call(sandbox.url, "GET", "/v1/messages/batches").status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = call(sandbox.url, "GET", "/v1/messages/batches")
    assert 0 < float(refused.headers["retry-after"]) <= 20
    assert refused.headers["anthropic-ratelimit-requests-limit"] == "3"
    sandbox.advance(21)
    assert call(sandbox.url, "GET", "/v1/messages/batches").status == 200


def test_a_body_cut_short_by_its_client_leaves_nothing(sandbox: Sandbox) -> None:
    import socket
    from urllib.parse import urlsplit

    where = urlsplit(sandbox.url)

    def uploads() -> list[str]:
        return sorted(path.suffix for path in (sandbox.folder / "uploads").iterdir())

    with socket.create_connection((where.hostname or "", where.port or 0)) as connection:
        head = "POST /v1/messages/batches HTTP/1.1\r\nHost: x\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode() + b'{"requests": [')
        until(lambda: uploads() == [".body", ".ids", ".index"], "the body is being read")
    until(lambda: not uploads(), "its files are gone")
    assert sandbox.accepted() == []


def shares(client: anthropic.Anthropic, batch_id: str) -> dict[str, Any]:
    return {row.custom_id: row.result for row in client.messages.batches.results(batch_id)}


@pytest.mark.parametrize(
    ("share", "kind"),
    [
        ("errored_share", "api_error"),
        ("overloaded_share", "overloaded_error"),
        ("invalid_share", "invalid_request_error"),
    ],
)
def test_a_share_of_rows_is_errored(sandbox: Sandbox, client: anthropic.Anthropic, share: str, kind: str) -> None:
    sandbox.configure(**{share: 0.2})
    batch = run_batch(client, requests(300))
    assert 30 < batch.request_counts.errored < 90
    errors = [result.error.error.type for result in shares(client, batch.id).values() if result.type == "errored"]
    assert errors == [kind] * batch.request_counts.errored


def test_a_share_of_rows_is_expired(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(expired_share=0.2)
    batch = run_batch(client, requests(300))
    assert 30 < batch.request_counts.expired < 90
    kinds = [result.type for result in shares(client, batch.id).values()]
    assert kinds.count("expired") == batch.request_counts.expired


def test_a_share_of_rows_has_no_line_though_it_is_counted(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(missing_share=0.2)
    batch = run_batch(client, requests(300))
    counts = batch.request_counts
    assert counts.succeeded + counts.errored == 300
    assert len(shares(client, batch.id)) == counts.succeeded < 300
    assert sandbox.bill()["total"]["requests"] == counts.succeeded


def test_the_same_id_fares_the_same_and_another_may_not(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(errored_share=0.5)
    first, second = (shares(client, run_batch(client, requests(100)).id) for _ in range(2))
    assert {name: result.type for name, result in first.items()} == {
        name: result.type for name, result in second.items()
    }
    again = [{"custom_id": f"again-{name}", "params": requests(1)[0]["params"]} for name in first]
    third = shares(client, run_batch(client, again).id)
    assert any(first[name].type != third[f"again-{name}"].type for name in first)
