"""Results streams that are cut, spoilt, or hold answers that give trouble."""

from __future__ import annotations

import http.client
import json
from typing import Any

import anthropic
import httpx2
import pytest
from support.sandbox import Sandbox
from support.sandbox_calls import call, closed_object, json_format, params, requests, run_batch


@pytest.fixture
def batch_id(client: anthropic.Anthropic) -> str:
    """An ended batch of 40 requests."""
    return run_batch(client, requests(40)).id


def lines(sandbox: Sandbox, batch_id: str) -> list[bytes]:
    return call(sandbox.url, "GET", f"/v1/messages/batches/{batch_id}/results").body.split(b"\n")[:-1]


def ids(found: list[bytes]) -> list[str]:
    return [json.loads(line)["custom_id"] for line in found]


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_stream_is_cut_after_so_many_bytes(sandbox: Sandbox, batch_id: str, size: int) -> None:
    whole = b"".join(line + b"\n" for line in lines(sandbox, batch_id))
    sandbox.configure(results_faults=f"truncate:{size}")
    with pytest.raises((http.client.IncompleteRead, ConnectionError, http.client.BadStatusLine)) as caught:
        lines(sandbox, batch_id)
    if isinstance(caught.value, http.client.IncompleteRead):
        assert whole.startswith(caught.value.partial)
        assert len(caught.value.partial) <= size
    assert len(lines(sandbox, batch_id)) == 40


def test_the_sdk_meets_a_cut_stream_as_a_raw_protocol_error(
    sandbox: Sandbox, client: anthropic.Anthropic, batch_id: str
) -> None:
    sandbox.configure(results_faults="truncate:5000")
    seen = []
    with pytest.raises(httpx2.RemoteProtocolError):
        for row in client.messages.batches.results(batch_id):
            seen.append(row.custom_id)
    assert 0 < len(seen) < 40


def test_results_may_fail_whole(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="500,429:3")
    path = f"/v1/messages/batches/{batch_id}/results"
    assert [call(sandbox.url, "GET", path).status for _ in range(3)] == [500, 429, 200]


def test_lines_are_sent_twice(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="duplicate:5")
    found = lines(sandbox, batch_id)
    assert (len(found), len(set(found))) == (45, 40)


def test_lines_of_nobody_are_added(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="unknown:3")
    strangers = [name for name in ids(lines(sandbox, batch_id)) if not name.startswith("r-")]
    assert len(set(strangers)) == 3


def test_lines_are_left_out(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="missing:4")
    assert len(set(ids(lines(sandbox, batch_id)))) == 36
    assert len(lines(sandbox, batch_id)) == 40


def test_lines_that_are_not_json_come_between(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="garbage:2")
    broken = []
    for line in lines(sandbox, batch_id):
        try:
            json.loads(line)
        except ValueError:
            broken.append(line)
    assert len(broken) == 2


def test_a_blank_line_makes_the_sdks_decoder_fail(sandbox: Sandbox, client: anthropic.Anthropic, batch_id: str) -> None:
    sandbox.configure(results_faults="blank*")
    found = lines(sandbox, batch_id)
    assert found.count(b"") == 1
    with pytest.raises(json.JSONDecodeError):
        list(client.messages.batches.results(batch_id))


def test_lines_may_end_as_on_windows(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="crlf")
    assert all(line.endswith(b"}\r") for line in lines(sandbox, batch_id))


def test_results_of_a_type_nobody_knows(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="unknown_type:3")
    kinds = [json.loads(line)["result"]["type"] for line in lines(sandbox, batch_id)]
    assert kinds.count("sandbox_unknown") == 3


def test_several_faults_spoil_one_stream(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="duplicate:2+unknown:1+missing:1+unknown_type:1+garbage:1+blank+crlf")
    found = lines(sandbox, batch_id)
    assert len(found) == 40 + 2 + 1 - 1 + 1 + 1


def test_the_bill_is_not_spoilt_by_the_stream(sandbox: Sandbox, batch_id: str) -> None:
    sandbox.configure(results_faults="duplicate:5+missing:3")
    lines(sandbox, batch_id)
    assert sandbox.bill()["total"]["requests"] == 40


@pytest.fixture
def nasty(sandbox: Sandbox, client: anthropic.Anthropic) -> list[dict[str, Any]]:
    """The Messages of a batch in which every answer gives trouble."""
    sandbox.configure(nasty_share=1, nasty_bytes=2_000_000)
    batch = run_batch(client, requests(60, max_tokens=4096))
    assert batch.request_counts.succeeded == 60
    return [json.loads(line)["result"]["message"] for line in lines(sandbox, batch.id)]


def test_answers_can_hold_every_kind_of_trouble(nasty: list[dict[str, Any]]) -> None:
    texts = [block["text"] for message in nasty for block in message["content"]]
    assert any("\x00" in text for text in texts)
    assert any("\ud800" in text for text in texts)
    assert any("<script>" in text for text in texts)
    assert any(len(text) > 1_900_000 for text in texts)
    assert any(message["content"] == [] and message["stop_reason"] == "end_turn" for message in nasty)
    refused = next(message for message in nasty if message["stop_reason"] == "refusal")
    assert refused["stop_details"]["type"] == "refusal"
    assert {message["stop_reason"] for message in nasty} == {"end_turn", "refusal", "max_tokens", "pause_turn"}


def test_nasty_characters_are_escaped_on_the_wire(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(nasty_share=1, nasty_bytes=1000)
    batch = run_batch(client, requests(60))
    stream = b"\n".join(lines(sandbox, batch.id))
    assert b"\\u0000" in stream
    assert b"\\ud800" in stream
    stream.decode("utf-8", "strict")


def test_trouble_is_inside_the_json_that_was_asked_for(sandbox: Sandbox, client: anthropic.Anthropic) -> None:
    sandbox.configure(nasty_share=1, nasty_bytes=1000)
    asked = json_format(closed_object(label={"enum": ["a", "b"]}, why={"type": "string"}))
    wanted = [{"custom_id": f"j-{at}", "params": params("Text.", output_config=asked)} for at in range(60)]
    batch = run_batch(client, wanted)
    whys = []
    for line in lines(sandbox, batch.id):
        for block in json.loads(line)["result"]["message"]["content"]:
            try:
                whys.append(json.loads(block["text"])["why"])
            except ValueError:
                continue  # One of the kinds is JSON cut in the middle.
    assert any("\x00" in why for why in whys)
    assert any("<script>" in why for why in whys)
    assert any("\ud800" in why for why in whys)
