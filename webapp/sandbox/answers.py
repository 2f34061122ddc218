"""Writes the answer to a request: text, JSON that fits the asked-for schema, or a tool call.

The results ask for one answer per succeeded row. The same request always gets the same answer.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from .hashing import identifier
from .models import Model
from .reading import Reading
from .schemas import main_type, resolve
from .tokens import dumps, text_length, text_tokens

_SHORT_NAMES = ("title", "name", "headline", "topic", "subject", "heading")
_LIST_NAMES = ("keyword", "tag", "topic", "term")
_SHARE_NAMES = ("confidence", "score", "probability", "certainty")
_TEXT_LIMIT = 240
_MOST_DEPTH = 30

_FORMATS = {
    "date-time": "2026-{month:02}-{day:02}T12:00:00Z",
    "date": "2026-{month:02}-{day:02}",
    "time": "12:00:00Z",
    "duration": "P{day}D",
    "email": "someone{day}@example.com",
    "hostname": "host{day}.example.com",
    "uri": "https://example.com/{day}",
    "ipv4": "192.0.2.{day}",
    "ipv6": "2001:db8::{day}",
}


class Answer(NamedTuple):
    """The output side of a Message."""

    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    output_tokens: int
    thinking_tokens: int


def write_answer(params: dict[str, Any], model: Model, *, custom_id: str, thinks: bool, trouble: str = "") -> Answer:
    """Answer one request whose params have passed the checks.

    :param thinks: whether models that think by default do so.
    :param trouble: a text to put where an answer has free text.
    """
    reading = Reading(params, trouble)
    thinking = _thinking_tokens(params, model, reading, thinks)
    blocks: list[dict[str, Any]] = []
    if thinking:
        blocks.append({"type": "thinking", "thinking": "", "signature": identifier("sandbox", custom_id)})
    tool = _wanted_tool(params)
    if tool is not None:
        value = fit_schema(tool["input_schema"], reading)
        block = {"type": "tool_use", "id": identifier("toolu_", custom_id), "name": tool["name"], "input": value}
        tokens = thinking + text_tokens(len(dumps(value)), model)
        return Answer([*blocks, block], "tool_use", None, min(tokens, params["max_tokens"]), thinking)
    text = _answer_text(params, reading)
    ending: tuple[str, str, str | None] = (text, "end_turn", None)
    # Trouble is sent whole, even if it is longer than was asked for.
    text, reason, sequence = ending if trouble else _cut(text, params, model, thinking)
    blocks.append({"type": "text", "text": text})
    tokens = thinking + max(1, text_tokens(len(text), model))
    return Answer(blocks, reason, sequence, min(tokens, params["max_tokens"]), thinking)


def fit_schema(schema: dict[str, Any], reading: Reading) -> Any:
    """A value that fits the schema and says what the input says."""
    return _Fitter(schema, reading).value(schema, "", 0)


def _answer_text(params: dict[str, Any], reading: Reading) -> str:
    wanted = (params.get("output_config") or {}).get("format")
    fitted = fit_schema(wanted["schema"], reading) if wanted else None
    text = dumps(fitted).decode() if wanted else reading.extract(_TEXT_LIMIT * 2)
    if reading.trouble and not reading.troubled:
        text += reading.trouble
    return text


def _cut(text: str, params: dict[str, Any], model: Model, thinking: int) -> tuple[str, str, str | None]:
    for sequence in params.get("stop_sequences") or ():
        before, found, _ = text.partition(sequence)
        if found:
            return before, "stop_sequence", sequence
    room = params["max_tokens"] - thinking
    if text_tokens(len(text), model) > room:
        return text[: text_length(room, model)], "max_tokens", None
    return text, "end_turn", None


def _thinking_tokens(params: dict[str, Any], model: Model, reading: Reading, thinks: bool) -> int:
    asked = params.get("thinking")
    kind = asked.get("type") if isinstance(asked, dict) else None
    if kind == "disabled" or not (thinks and (model.thinks_by_default or kind)):
        return 0
    # It counts in max_tokens, but leaves the answer most of it.
    return int(min(20 + reading.choice("thinking") % 60, params["max_tokens"] // 4))


def _wanted_tool(params: dict[str, Any]) -> dict[str, Any] | None:
    choice = params.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") not in ("any", "tool"):
        return None
    tools = [tool for tool in params["tools"] if isinstance(tool.get("input_schema"), dict)]
    for tool in tools:
        if choice["type"] == "any" or tool["name"] == choice["name"]:
            return dict(tool)
    return None


class _Fitter:
    """Walks a schema and answers each part of it from the reading."""

    def __init__(self, root: dict[str, Any], reading: Reading) -> None:
        self._root = root
        self._reading = reading
        self._strings = 0

    def value(self, schema: Any, name: str, depth: int) -> Any:
        schema = resolve(schema, self._root)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return self._reading.best(schema["enum"])
        merged = self._merge(schema)
        if merged is not None:
            return self.value(merged, name, depth + 1) if depth < _MOST_DEPTH else None
        return self._typed(schema, name, depth)

    def _merge(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        """What a combined schema comes to: the first branch that is not null, or all of them together."""
        for keyword in ("anyOf", "oneOf"):
            branches = [resolve(branch, self._root) for branch in schema.get(keyword) or ()]
            if branches:
                return next((branch for branch in branches if branch.get("type") != "null"), branches[0])
        if not schema.get("allOf"):
            return None
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for branch in schema["allOf"]:
            branch = resolve(branch, self._root)
            properties = merged.get("properties", {}) | branch.get("properties", {})
            required = [*merged.get("required", []), *branch.get("required", [])]
            merged |= branch
            if properties:
                merged |= {"properties": properties, "required": required}
        return merged

    def _typed(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        kind = main_type(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind == "string":
            return self._string(schema, name)
        if kind == "boolean":
            return self._reading.choice("boolean", name) % 2 == 0
        if kind in ("integer", "number"):
            return self._number(kind, name)
        return None

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        if depth >= _MOST_DEPTH:
            return {}
        # Structured outputs put the required properties first.
        names = [name for name in schema.get("required") or () if name in properties]
        names += [name for name in properties if name not in names]
        return {name: self.value(properties[name], name, depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        items = resolve(schema.get("items", {}), self._root)
        if depth >= _MOST_DEPTH:
            return []
        if isinstance(items.get("enum"), list):
            ranked = [label for label in items["enum"] if self._reading.score(str(label))]
            return ranked or [self._reading.best(items["enum"])]
        if main_type(items) == "string" and any(word in name.lower() for word in _LIST_NAMES):
            return self._reading.keywords(5) or [self._string(items, name)]
        size = 1 + self._reading.choice("items", name) % 3
        return list(self._repeat(items, name, depth, size))

    def _repeat(self, items: dict[str, Any], name: str, depth: int, size: int) -> Iterator[Any]:
        for _ in range(size):
            yield self.value(items, name, depth + 1)

    def _string(self, schema: dict[str, Any], name: str) -> str:
        picked = self._reading.choice("string", name)
        form = schema.get("format")
        if form == "uuid":
            return str(uuid.UUID(int=picked << 64 | picked, version=4))
        if form in _FORMATS:
            return _FORMATS[form].format(month=1 + picked % 12, day=1 + picked % 28)
        which, self._strings = self._strings, self._strings + 1
        short = any(word in name.lower() for word in _SHORT_NAMES)
        return self._reading.extract(80 if short else _TEXT_LIMIT, 0 if short else which)

    def _number(self, kind: str, name: str) -> int | float:
        picked = self._reading.choice("number", name)
        if kind == "integer":
            return 1 + picked % 5
        if any(word in name.lower() for word in _SHARE_NAMES):
            return 0.5 + picked % 50 / 100
        return picked % 1000 / 10
