"""The incremental splitter: whatever the spacing and however the bytes arrive, it finds the same requests."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webapp.sandbox.body import BodyTooLarge, InvalidJson, RequestSplitter

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
values = st.recursive(
    scalars | st.sampled_from(['},{"custom_id"', '"]}', "\\", '\\"', "]", "{"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
requests = st.lists(st.fixed_dictionaries({"custom_id": st.text(max_size=5), "params": values}), max_size=6)
styles = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}])


def split(body: bytes, step: int = 1 << 20, limit: int = 1 << 40) -> tuple[list[Any], RequestSplitter, bytes]:
    stream, spill = io.BytesIO(body), io.BytesIO()
    splitter = RequestSplitter(lambda size: stream.read(min(size, step)), spill, limit)
    found = []
    for element in splitter:
        found.append(element.value)
        text = body[element.offset : element.offset + element.length]
        assert json.loads(text) == element.value
    return found, splitter, spill.getvalue()


@given(requests, styles, st.sampled_from([1, 3, 17, 1000]))
@settings(max_examples=150, deadline=None)
def test_every_request_is_found_however_the_bytes_arrive(wanted: Any, style: Any, step: int) -> None:
    body = json.dumps({"requests": wanted}, **style).encode()
    found, _, spilt = split(body, step)
    assert found == wanted
    assert spilt == body


@given(requests, st.integers(0, 400))
@settings(max_examples=100, deadline=None)
def test_a_body_that_is_cut_is_never_taken_for_a_whole_one(wanted: Any, cut: int) -> None:
    body = json.dumps({"requests": wanted}).encode()
    with pytest.raises(InvalidJson):
        split(body[: min(cut, len(body) - 1)])


def test_lone_surrogates_are_kept() -> None:
    found, _, _ = split(b'{"requests": [{"a": "\\ud800"}, {"a": "x"}, {"a": "\\udfff"}]}')
    assert found == [{"a": "\ud800"}, {"a": "x"}, {"a": "\udfff"}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        b'{"requests": [{}],}',
        b'{"requests": [{},]}',
        b'{"requests": [{} {}]}',
        b'{"requests": [{}]} trailing',
        b'{"requests": [{"a": NaN}]}',
        b'{"requests": [{"a": "\xff"}]}',
        b"{'requests': []}",
        b'{"requests": [{"a": 01}]}',
        b'{"requests": [{"custom_id": 1}, {"custom_id": 2, }]}',
    ],
)
def test_what_is_not_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        split(body)


def test_other_keys_and_other_shapes_are_told() -> None:
    _, splitter, _ = split(b'{"before": {"x": [1]}, "requests": [], "after": 2.5}')
    assert splitter.keys == ["before", "requests", "after"]
    assert split(b'["a"]')[1].shape == "other"
    assert split(b'{"requests": {}}')[1].shape == "no list"


def test_requests_of_differing_looks_are_all_found() -> None:
    wanted = [{"custom_id": "a", "n": 1}, {"n": 2, "custom_id": "b"}, 5, None, {"custom_id": "c"}, {}]
    body = b'{"requests":[' + b" , ".join(json.dumps(each).encode() for each in wanted) + b"]}"
    assert split(body, 5)[0] == wanted


def test_a_body_over_the_limit_is_stopped_at() -> None:
    body = json.dumps({"requests": [{"a": "x" * 100}] * 10}).encode()
    split(body, limit=len(body))
    with pytest.raises(BodyTooLarge):
        split(body, limit=len(body) - 1)


def test_one_long_string_with_many_escapes_takes_linear_time() -> None:
    text = '\\"' * 500_000
    found, _, _ = split(json.dumps({"requests": [{"a": text}, {"a": "b"}]}).encode(), 1 << 16)
    assert found[0]["a"] == text
