"""Lists of batches, page by page, both ways."""

from __future__ import annotations

import json

import anthropic
import pytest
from support.sandbox import Sandbox
from support.sandbox_calls import call, requests


@pytest.fixture(scope="module")
def listed(shared: Sandbox) -> list[str]:
    """The ids of five batches of one workspace, newest first."""
    key = {"x-api-key": "ws:lists:key"}
    body = json.dumps({"requests": requests(1)}).encode()
    made = [call(shared.url, "POST", "/v1/messages/batches", body, key).json["id"] for _ in range(5)]
    return made[::-1]


@pytest.fixture
def lister(shared: Sandbox) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="ws:lists:key", base_url=shared.url, max_retries=0)


def test_the_newest_batches_come_first(lister: anthropic.Anthropic, listed: list[str]) -> None:
    page = lister.messages.batches.list()
    assert [batch.id for batch in page.data] == listed
    assert (page.has_more, page.first_id, page.last_id) == (False, listed[0], listed[-1])


def test_after_id_goes_to_older_ones(lister: anthropic.Anthropic, listed: list[str]) -> None:
    page = lister.messages.batches.list(limit=2, after_id=listed[0])
    assert [batch.id for batch in page.data] == listed[1:3]
    assert page.has_more
    page = lister.messages.batches.list(limit=2, after_id=listed[2])
    assert [batch.id for batch in page.data] == listed[3:]
    assert not page.has_more


def test_before_id_goes_to_newer_ones_and_has_more_means_that_way(
    lister: anthropic.Anthropic, listed: list[str]
) -> None:
    page = lister.messages.batches.list(limit=2, before_id=listed[4])
    assert [batch.id for batch in page.data] == listed[2:4]
    assert page.has_more
    page = lister.messages.batches.list(limit=2, before_id=listed[2])
    assert [batch.id for batch in page.data] == listed[:2]
    assert not page.has_more


def test_the_sdk_walks_all_pages_both_ways(lister: anthropic.Anthropic, listed: list[str]) -> None:
    assert [batch.id for batch in lister.messages.batches.list(limit=2)] == listed
    newer = [batch.id for batch in lister.messages.batches.list(limit=1, before_id=listed[3])]
    assert newer == listed[2::-1]


def test_an_empty_list_has_no_ids(shared_client: anthropic.Anthropic) -> None:
    page = shared_client.messages.batches.list()
    assert (page.data, page.has_more, page.first_id, page.last_id) == ([], False, None, None)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many"])
def test_a_limit_out_of_range_is_refused(shared: Sandbox, limit: str) -> None:
    reply = call(shared.url, "GET", f"/v1/messages/batches?limit={limit}")
    assert reply.status == 400
    assert reply.error[1].startswith("limit: ")


def test_the_default_page_holds_twenty(shared: Sandbox) -> None:
    key = {"x-api-key": "ws:twenty:key"}
    body = json.dumps({"requests": requests(1)}).encode()
    for _ in range(21):
        call(shared.url, "POST", "/v1/messages/batches", body, key)
    page = call(shared.url, "GET", "/v1/messages/batches", headers=key).json
    assert (len(page["data"]), page["has_more"]) == (20, True)
    assert len(call(shared.url, "GET", "/v1/messages/batches?limit=1000", headers=key).json["data"]) == 21


def test_a_cursor_that_is_no_batch_is_not_found(shared: Sandbox) -> None:
    assert call(shared.url, "GET", "/v1/messages/batches?after_id=msgbatch_none").status == 404
