"""A batch's life at the sandbox: in progress, canceling, ended, expired, archived, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import anthropic
import pytest
from support.sandbox import Sandbox
from support.sandbox_calls import call, requests, rows, run_batch

DAY = 86_400


def counts(batch: Any) -> tuple[int, int, int, int, int]:
    found = batch.request_counts
    return found.processing, found.succeeded, found.errored, found.canceled, found.expired


def error_text(failing: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(anthropic.APIStatusError) as caught:
        failing()
    body: Any = caught.value.body
    return caught.value.status_code, body["error"]["message"]


def test_a_new_batch_is_in_progress_and_expires_after_a_day(client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(3))
    assert batch.processing_status == "in_progress"
    assert counts(batch) == (3, 0, 0, 0, 0)
    assert batch.expires_at - batch.created_at == timedelta(hours=24)
    assert batch.results_url is None
    assert batch.ended_at is None


def test_a_batch_object_has_the_documented_keys_and_no_other(shared: Sandbox) -> None:
    shown = shared.call("POST", "/v1/messages/batches", {"requests": requests(1)})
    assert set(shown) == {
        *("id", "type", "processing_status", "request_counts", "ended_at", "created_at", "expires_at"),
        *("archived_at", "cancel_initiated_at", "results_url"),
    }


def test_counts_stay_in_processing_until_the_batch_ends(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(delay=100)
    batch = client.messages.batches.create(requests=requests(10))
    sandbox.advance(90)
    assert counts(client.messages.batches.retrieve(batch.id)) == (10, 0, 0, 0, 0)
    sandbox.advance(20)
    ended = client.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, counts(ended)) == ("ended", (0, 10, 0, 0, 0))
    assert ended.ended_at is not None
    assert ended.ended_at - ended.created_at == timedelta(seconds=100)


def test_counts_move_while_processing_if_asked_to(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(delay=100, live_counts=True)
    batch = client.messages.batches.create(requests=requests(10))
    sandbox.advance(50)
    live = client.messages.batches.retrieve(batch.id)
    assert live.request_counts.succeeded in (5, 6)
    assert sum(counts(live)) == 10


def test_polling_a_batch_in_progress_names_a_wait(sandbox: Sandbox) -> None:
    sandbox.configure(delay=100)
    batch = sandbox.call("POST", "/v1/messages/batches", {"requests": requests(1)})
    path = f"/v1/messages/batches/{batch['id']}"
    assert call(sandbox.url, "GET", path).headers["retry-after"] == "10"
    sandbox.advance(100)
    assert call(sandbox.url, "GET", path).headers["retry-after"] is None


def test_results_are_not_found_before_the_end(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(delay=100)
    batch = client.messages.batches.create(requests=requests(1))
    reply = call(sandbox.url, "GET", f"/v1/messages/batches/{batch.id}/results")
    text = f"Message Batch {batch.id} has no available results."
    assert (reply.status, reply.error) == (404, ("not_found_error", text))


def test_an_unknown_batch_is_not_found(shared_client: anthropic.Anthropic) -> None:
    text = "Message Batch msgbatch_x not found."
    assert error_text(lambda: shared_client.messages.batches.retrieve("msgbatch_x")) == (404, text)
    assert error_text(lambda: shared_client.messages.batches.cancel("msgbatch_x")) == (404, text)
    assert error_text(lambda: shared_client.messages.batches.delete("msgbatch_x")) == (404, text)


def test_the_results_url_is_absolute_on_the_host_that_was_called(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    batch = run_batch(client, requests(1))
    assert batch.results_url == f"{sandbox.url}/v1/messages/batches/{batch.id}/results"
    named = sandbox.url.replace("127.0.0.1", "localhost")
    shown = call(named, "GET", f"/v1/messages/batches/{batch.id}").json
    assert shown["results_url"].startswith(f"{named}/v1/")


def test_a_cancelled_batch_ends_with_a_share_of_it_done(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(delay=100, cancel_delay=10, canceled_share=0.5)
    batch = client.messages.batches.create(requests=requests(200))
    canceling = client.messages.batches.cancel(batch.id)
    assert (canceling.processing_status, counts(canceling)) == ("canceling", (200, 0, 0, 0, 0))
    again = client.messages.batches.cancel(batch.id)
    assert again.cancel_initiated_at == canceling.cancel_initiated_at
    sandbox.advance(10)
    ended = client.messages.batches.retrieve(batch.id)
    assert ended.processing_status == "ended"
    assert ended.cancel_initiated_at == canceling.cancel_initiated_at
    assert 60 < ended.request_counts.canceled < 140
    assert ended.request_counts.succeeded == 200 - ended.request_counts.canceled
    kinds = [result["type"] for result in rows(client, batch.id).values()]
    assert kinds.count("canceled") == ended.request_counts.canceled
    assert kinds.count("succeeded") == ended.request_counts.succeeded


@pytest.mark.parametrize(("share", "expected"), [(1, (0, 0, 0, 3, 0)), (0, (0, 3, 0, 0, 0))])
def test_a_cancel_may_catch_all_or_nothing(
    sandbox: Sandbox, client: anthropic.Anthropic, share: float, expected: tuple[int, ...]
) -> None:
    sandbox.configure(delay=100, canceled_share=share)
    batch = client.messages.batches.create(requests=requests(3))
    client.messages.batches.cancel(batch.id)
    assert counts(client.messages.batches.retrieve(batch.id)) == expected
    assert len(rows(client, batch.id)) == 3


def test_an_ended_batch_cannot_be_cancelled(client: anthropic.Anthropic) -> None:
    batch = run_batch(client, requests(1))
    status, _ = error_text(lambda: client.messages.batches.cancel(batch.id))
    assert status == 400


def test_after_a_day_what_is_left_expires_and_the_rest_has_results(
    sandbox: Sandbox, client: anthropic.Anthropic
) -> None:
    sandbox.configure(delay=2 * DAY)
    batch = client.messages.batches.create(requests=requests(200))
    sandbox.advance(DAY - 10)
    assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
    sandbox.advance(20)
    ended = client.messages.batches.retrieve(batch.id)
    assert ended.processing_status == "ended"
    assert ended.ended_at == ended.expires_at
    assert 60 < ended.request_counts.expired < 140
    assert sum(counts(ended)) == 200
    expired = [result for result in rows(client, batch.id).values() if result["type"] == "expired"]
    assert expired == [{"type": "expired"}] * ended.request_counts.expired


def test_results_are_archived_29_days_after_creation(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    batch = run_batch(client, requests(2))
    sandbox.advance(29 * DAY - 60)
    assert client.messages.batches.retrieve(batch.id).archived_at is None
    assert len(rows(client, batch.id)) == 2
    sandbox.advance(61)
    archived = client.messages.batches.retrieve(batch.id)
    assert archived.archived_at == batch.created_at + timedelta(days=29)
    assert archived.results_url is None
    assert archived.request_counts.succeeded == 2
    reply = call(sandbox.url, "GET", f"/v1/messages/batches/{batch.id}/results")
    assert (reply.status, reply.error[1]) == (404, f"Message Batch {batch.id} has no available results.")


def test_a_batch_in_progress_cannot_be_deleted(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(delay=100)
    batch = client.messages.batches.create(requests=requests(1))
    text = "In progress batches cannot be deleted. Consider canceling the batch instead."
    assert error_text(lambda: client.messages.batches.delete(batch.id)) == (400, text)


def test_a_deleted_batch_is_gone_but_stays_in_the_audit(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    batch = run_batch(client, requests(2))
    deleted = client.messages.batches.delete(batch.id)
    assert (deleted.id, deleted.type) == (batch.id, "message_batch_deleted")
    assert error_text(lambda: client.messages.batches.retrieve(batch.id))[0] == 404
    assert client.messages.batches.list().data == []
    assert len(sandbox.accepted()) == 2
    assert sandbox.bill()["total"]["requests"] == 2


def test_batches_belong_to_the_workspace_of_their_key(shared: Sandbox) -> None:
    mine, theirs = ({"x-api-key": f"ws:{name}:{at}"} for at, name in enumerate(("lifecycle-a", "lifecycle-b")))
    body = json.dumps({"requests": requests(1)}).encode()
    batch = call(shared.url, "POST", "/v1/messages/batches", body, mine).json
    path = f"/v1/messages/batches/{batch['id']}"
    assert call(shared.url, "GET", path, headers={"x-api-key": "ws:lifecycle-a:other-key"}).status == 200
    assert call(shared.url, "GET", path, headers=theirs).status == 404
    assert call(shared.url, "GET", "/v1/messages/batches", headers=theirs).json["data"] == []
    ids = {call(shared.url, "GET", path, headers=who).headers["anthropic-workspace-id"] for who in (mine, theirs)}
    assert len(ids) == 2


def test_time_tells_the_date_header_too(sandbox: Sandbox) -> None:
    before = call(sandbox.url, "GET", "/v1/messages/batches").headers["date"]
    sandbox.advance(40 * DAY)
    after = call(sandbox.url, "GET", "/v1/messages/batches").headers["date"]
    assert parsedate_to_datetime(after) - parsedate_to_datetime(before) >= timedelta(days=40)
