"""Sample settings and records that plugins are tried with, and the picture among them.
The process that tries a plugin makes settings of its schema; records are the same for every plugin.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any

from pydantic import BaseModel

from webapp.hooks import Image, RunFacts, Subject

LONG_CHARACTERS = 100_000
_WORDS = "The meeting on Tuesday is moved to Thursday, because the room is painted. "
_ODD = "Caf\u00e9 \x00 \ud800 \u202e\u200f \ufeff \U0001f600 \x1b[31m </text> ]]> {braces} %s \\u0000 \r\n\t end"
# An output of another run, as a dataset of them holds it.
_OUTPUT = {"record": {"key": "sample", "text": _WORDS.strip()}, "run": 1, "task": "sample", "model": "claude-haiku-5-5"}
_VALUES = {"": {"label": "sample"}, " of null": None, " of odd characters": [_ODD]}


def _picture(side: int) -> bytes:
    """A grey PNG."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = (b"\0" + b"\x80" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


_SIDE = 64
_CONTENT = _picture(_SIDE)
PICTURE = Image(sha256(_CONTENT).hexdigest(), "image/png", _SIDE, _SIDE)
PICTURES: Mapping[str, bytes] = {PICTURE.sha256: _CONTENT}
RUN = RunFacts(
    id=1,
    task="sample",
    task_version="1",
    dataset="sample",
    owner="someone@example.com",
    state="planning",
    model="claude-haiku-5-5",
    subjects=10,
    requests=10,
    batches=1,
    counts={"pending": 10},
    cost_usd=Decimal(0),
    estimate_usd=Decimal("0.01"),
    url="/runs/1",
)


def records(kind: str) -> dict[str, dict[str, Any]]:
    """Records of a kind to ask about, by what each is; the first is an ordinary one."""
    if kind == "image":
        return {"an image": _record("image", {"path": "photo.png"}, image=True)}
    if kind == "output":
        return {f"an output{what}": _record("output", {**_OUTPUT, "output": value}) for what, value in _VALUES.items()}
    texts = {
        f"a short {kind}": _WORDS.strip(),
        f"a long {kind}": (_WORDS * (LONG_CHARACTERS // len(_WORDS) + 1))[:LONG_CHARACTERS],
        f"an empty {kind}": "",
        f"a {kind} of odd characters": _ODD,
    }
    return {what: _record(kind, {"text": text}) for what, text in texts.items()} | {
        f"a {kind} without text": _record(kind, {"number": 7})
    }


def subject(record: Mapping[str, Any]) -> Subject:
    """A record as a task gets it."""
    data = dict(record["data"])
    return Subject(record["kind"], record["key"], data, PICTURE if record["image"] else None, data.get("text"))


def _record(kind: str, data: dict[str, Any], *, key: str = "sample", image: bool = False) -> dict[str, Any]:
    return {"kind": kind, "key": key, "data": data, "image": image}


def settings(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Values for the settings that have no default: several guesses, the likeliest first.

    A setting's `examples` come before anything that its type allows.
    """
    schema = model.model_json_schema(by_alias=False)
    needed = {name for name, info in model.model_fields.items() if info.is_required()}
    wanted = {name: part for name, part in schema.get("properties", {}).items() if name in needed}
    guess = _Guess(schema.get("$defs", {}))
    tries = [{name: guess.value(part, length, 0) for name, part in wanted.items()} for length in (3, 2, 1)]
    declared = {name: "sample: a sample" for name, part in wanted.items() if part.get("type") == "string"}
    return [*tries, {**tries[0], **declared}]


class _Guess:
    """Values that a JSON schema allows, as far as types, choices and bounds say."""

    def __init__(self, defs: Mapping[str, Any]) -> None:
        self._defs = defs

    def value(self, schema: Mapping[str, Any], length: int, place: int) -> Any:
        """
        :param length: how many values a list has.
        :param place: of a value among others in a list, so that they differ.
        """
        if "$ref" in schema:
            schema = {**self._defs.get(schema["$ref"].rsplit("/", 1)[-1], {}), **schema, "$ref": ""}
            schema.pop("$ref")
        if schema.get("examples"):
            return schema["examples"][place % len(schema["examples"])]
        for choices in ("enum", "anyOf", "oneOf"):
            if choices in schema:
                found = [one for one in schema[choices] if one not in (None, {"type": "null"})]
                return found[place % len(found)] if choices == "enum" else self.value(found[0], length, place)
        return schema["const"] if "const" in schema else self._plain(schema, length, place)

    def _plain(self, schema: Mapping[str, Any], length: int, place: int) -> Any:
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, length, place)
        if kind == "array":
            count = min(max(length, schema.get("minItems", 0)), schema.get("maxItems", length))
            return [self.value(schema.get("items", {}), min(length, 2), one) for one in range(count)]
        if kind in ("integer", "number"):
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            return min(least + place, schema.get("maximum", least + place))
        if kind == "boolean":
            return False
        text = f"sample {place + 1}" if place else "sample"
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", len(text) + 1000)]

    def _object(self, schema: Mapping[str, Any], length: int, place: int) -> dict[str, Any]:
        if "properties" not in schema:
            more = schema.get("additionalProperties")
            inner = more if isinstance(more, Mapping) else {"type": "string"}
            return {f"sample {one + 1}": self.value(inner, length, one) for one in range(length)}
        needed = schema.get("required", ())
        return {name: self.value(part, length, place) for name, part in schema["properties"].items() if name in needed}
