"""The sink `webhook` over real HTTP: signed, with a key to know it by, and nothing is taken but for a clear yes."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.receiver import HANG, Receiver, receiving

from webapp.errors import BadSettings
from webapp.hooks import OutputRecord, RunFacts, calls, load_plugins
from webapp.hooks.calls import Trouble

ROOT = Path(__file__).parents[2]
REGISTRY = load_plugins(folder=ROOT / "plugins", entry_points=False)
SINK = REGISTRY.sink("webhook")
RUN = RunFacts(7, "classify", "1", "docs", "ann", "finished", "m", 3, 3, 1)
OUTPUTS = [
    OutputRecord("1-t-1", "a", "succeeded", {"label": "ü\0"}, None, {"text": "t"}),
    OutputRecord("2-t-1", "b", "invalid", None, "no use", {"text": "u"}),
]
SECRET = "sh, it is secret"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    with receiving() as up:
        yield up


def deliver(receiver: Receiver, key: str = "k-1", **settings: Any) -> Trouble | None:
    raw = {"url": f"{receiver.url}/in?x=1", "secret": "env:HOOK_SECRET", **settings}
    return calls.deliver(SINK, RUN, OUTPUTS, REGISTRY.parse_settings(SINK, raw), key)


def test_outputs_are_posted_with_a_signature_that_the_receiver_can_check(receiver: Receiver) -> None:
    assert deliver(receiver) is None
    (post,) = receiver.posts
    assert post.path == "/in?x=1" and post.headers["content-type"] == "application/json"
    assert post.headers["idempotency-key"] == "k-1"
    moment = post.headers["batchdesk-timestamp"]
    assert abs(time.time() - int(moment)) < 600
    expected = hmac.new(SECRET.encode(), moment.encode() + b"." + post.body, hashlib.sha256).hexdigest()
    assert post.headers["batchdesk-signature"] == f"v1={expected}"
    assert json.loads(post.body) == {
        "delivery": "k-1",
        "run": {"id": 7, "task": "classify", "task_version": "1", "dataset": "docs", "state": "finished"},
        "outputs": [
            {"custom_id": "1-t-1", "key": "a", "status": "succeeded", "output": {"label": "ü\0"}, "error": None},
            {"custom_id": "2-t-1", "key": "b", "status": "invalid", "output": None, "error": "no use"},
        ],
    }
    assert SECRET not in str(post)


def test_what_the_page_tells_receivers_to_check_is_right(receiver: Receiver) -> None:
    deliver(receiver)
    (post,) = receiver.posts
    page = (ROOT / "docs" / "destinations.md").read_text()
    (code,) = re.findall(r"```python\n# receiver.py\n(.*?)```", page, re.DOTALL)
    told: dict[str, Any] = {}
    exec(code, told)
    assert told["genuine"](SECRET, post.headers, post.body)
    assert not told["genuine"]("another", post.headers, post.body)
    assert not told["genuine"](SECRET, post.headers, post.body + b" ")
    later = post.headers | {"batchdesk-timestamp": str(int(post.headers["batchdesk-timestamp"]) - 3600)}
    assert not told["genuine"](SECRET, later, post.body)


def test_the_record_goes_along_where_that_is_wanted(receiver: Receiver) -> None:
    deliver(receiver, with_records="true")
    assert json.loads(receiver.posts[0].body)["outputs"][0]["record"] == {"text": "t"}


def test_a_post_that_is_repeated_is_known_by_its_key(receiver: Receiver) -> None:
    receiver.answers = [500, 200]
    trouble = deliver(receiver)
    assert trouble is not None and "the receiver answered 500 so it is" in trouble.words
    assert trouble.retry_after is None
    assert deliver(receiver) is None and deliver(receiver, key="k-2") is None
    assert len(receiver.posts) == 3 and receiver.taken().keys() == {"k-1", "k-2"}
    assert receiver.posts[0].body == receiver.posts[1].body


@pytest.mark.parametrize(("given", "waits"), [("120", 120.0), ("soon", None), ("-1", None), ("9" * 20, None)])
def test_a_receiver_says_when_to_come_again(receiver: Receiver, given: str, waits: float | None) -> None:
    receiver.answers, receiver.headers = [429], {"retry-after": given}
    trouble = deliver(receiver)
    assert trouble is not None and trouble.retry_after == waits


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nobody_is_followed_to_another_address(receiver: Receiver, status: int) -> None:
    receiver.answers, receiver.headers = [status], {"location": f"{receiver.url}/elsewhere"}
    trouble = deliver(receiver)
    assert trouble is not None and "another address" in trouble.words
    assert [post.path for post in receiver.posts] == ["/in?x=1"]


def test_a_receiver_that_is_down_is_told(receiver: Receiver) -> None:
    raw = {"url": "http://127.0.0.1:9/", "secret": "env:HOOK_SECRET"}
    trouble = calls.deliver(SINK, RUN, OUTPUTS, REGISTRY.parse_settings(SINK, raw), "k")
    assert trouble is not None and "no answer came: ConnectError" in trouble.words


def test_a_receiver_that_says_nothing_is_not_waited_for_for_ever(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(type(SINK).deliver.__globals__, "ANSWER_SECONDS", 0.2)
    receiver.answers = [HANG]
    trouble = deliver(receiver)
    assert trouble is not None and "ReadTimeout" in trouble.words


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "ftp://example.com",
        "https://",
        "example.com",
        "https://me:pw@example.com",
        "https://a:b/",
    ],
)
def test_an_address_that_is_not_safe_is_refused(url: str) -> None:
    with pytest.raises(BadSettings, match=r"write an address|leave name and password"):
        REGISTRY.parse_settings(SINK, {"url": url, "secret": "env:X"})


@pytest.mark.parametrize("url", ["https://example.com:8443/x?y", "http://localhost:9/x", "http://[::1]:9/"])
def test_https_is_taken_and_http_on_this_machine(url: str) -> None:
    REGISTRY.parse_settings(SINK, {"url": url, "secret": "env:X"})
