"""Answers that a processor must survive: each is something the API can send, or a model can write.
The checks make them of a good answer to the same request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

HUGE_CHARACTERS = 500_000  # as many as the longest answer of any model has
DEEP = 100_000
_DEEPEST = 6
_TOOL = {"type": "tool_use", "id": "toolu_1", "name": "anything", "input": {"a": [1, {"b": None}]}}
_THINKING = {"type": "thinking", "thinking": "", "signature": "none"}
# What may stand where a schema asks for something else: models do not keep to one when an answer is cut or declined.
_WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    10**30,
    "",
    "\x00 \ud800 \u202e",
    [],
    {},
    [None],
    {"unexpected": {"deeper": [1]}},
)


def messages(good: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each answer is, and the answer.

    :param good: a message that the task has made an output of.
    """
    text = _text(good)
    yield from _endings(good, text)
    yield from _contents(good)
    for what, said in _texts(text):
        yield what, _saying(good, said)
    for what, value in _misfits(text):
        yield what, _saying(good, json.dumps(value))


def _endings(good: Mapping[str, Any], text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    refusal = {"type": "refusal", "category": "general_harms", "explanation": "No.\x00"}
    yield "a refusal", {**good, "content": [], "stop_reason": "refusal", "stop_details": refusal}
    yield "a refusal half-way", {**_saying(good, text[: len(text) // 2]), "stop_reason": "refusal"}
    for reason in ("max_tokens", "pause_turn", "model_context_window_exceeded", "tool_use", "something_new", None):
        yield f"an answer that stopped with {reason}", {**_saying(good, text[: len(text) // 2]), "stop_reason": reason}


def _contents(good: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "an answer without content", {**good, "content": []}
    yield "an answer of null content", {**good, "content": None}
    yield "a tool call instead of text", {**good, "content": [_TOOL], "stop_reason": "tool_use"}
    yield "thinking and no text", {**good, "content": [_THINKING]}
    yield "a text block of null", {**good, "content": [{"type": "text", "text": None}]}
    yield "blocks of an unknown type", {**good, "content": [{"type": "something_new", "data": []}]}
    yield "an answer of nothing but its content", {"content": [{"type": "text", "text": _text(good)}]}


def _texts(text: str) -> Iterator[tuple[str, str]]:
    yield "an empty text", ""
    yield "a text of NULs", "\x00" * 10
    yield "a text with a lone surrogate", f"{text} \ud800"
    yield "a text in a fence", f"```json\n{text}\n```"
    yield "words around the answer", f"Certainly! Here it is:\n{text}\nAnything else?"
    yield "a huge text", "many words " * (HUGE_CHARACTERS // 11)
    yield "deeply nested brackets", "[" * DEEP + "]" * DEEP
    yield "a number without end", "9" * 10_000
    yield "JSON that is none", "NaN"
    yield "half of the answer, as if it were whole", text[: len(text) // 2]


def _misfits(text: str) -> Iterator[tuple[str, Any]]:
    """JSON of another shape than the good answer's."""
    for value in _WRONG:
        yield f"JSON of another shape: {json.dumps(value)}", value
    try:
        good = json.loads(text)
    except ValueError:
        return
    for path in _paths(good):
        for value in _WRONG:
            yield f"JSON with {json.dumps(value)} at {'.'.join(map(str, path))}", _with(good, path, value)
    if isinstance(good, dict):
        for name in good:
            yield f"JSON without {name}", {other: value for other, value in good.items() if other != name}
        yield "JSON with more than was asked for", {**good, "unexpected": 1}


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places within a value, those within lists by their first entry."""
    if path:
        yield path
    if len(path) < _DEEPEST:
        parts: Any = (
            value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
        )
        for name, part in parts:
            yield from _paths(part, (*path, name))


def _with(value: Any, path: tuple[str | int, ...], other: Any) -> Any:
    if not path:
        return other
    first, *rest = path
    if isinstance(value, list):
        return [_with(value[0], tuple(rest), other), *value[1:]]
    return {**value, first: _with(value[first], tuple(rest), other)}


def _text(message: Mapping[str, Any]) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def _saying(good: Mapping[str, Any], text: str) -> dict[str, Any]:
    others = [block for block in good["content"] if block["type"] == "thinking"]
    return {**good, "content": [*others, {"type": "text", "text": text}], "stop_reason": "end_turn"}
