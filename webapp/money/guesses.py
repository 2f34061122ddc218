"""What is guessed where nothing was counted or answered yet: tokens by bytes, by pixels, and of answers by their form.
Estimates before a run use it, and say that they do. Each figure is a guess for text and answers as they mostly are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

# Bytes of JSON to a token with the older tokenizer: English prose has about four, other scripts and markup fewer.
BYTES = (Decimal("4.6"), Decimal("3.6"), Decimal("2.4"))
DENSE = Decimal("1.3")  # so many times the tokens for the same text since generation 4.7
STRING = Decimal(30)  # tokens of a string without any bound: a name, a reason, a sentence
FREE_TEXT = Decimal(80)  # ... of an answer without a form: a few sentences
THINKING = Decimal(64)  # ... of thought before a short answer, where a model thinks by default
EFFORTS = {"low": Decimal("0.5"), "medium": Decimal("0.8"), "xhigh": Decimal(2), "max": Decimal(4)}  # high: as it is
REACH = Decimal(3)  # a guess may be so many times too small or too large
ENTRIES = 3  # of a list without any bound
DEEPEST = 8
_NAME = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d{1,2}))?(?:-\d{8})?$")
SQUARE = 28  # pixels on either side of what becomes one token


class Span(NamedTuple):
    """The least, the likely and the most of something."""

    low: Decimal
    likely: Decimal
    high: Decimal

    def around(self, margin: Decimal) -> Span:
        """The same, a part of it wider on both sides."""
        return Span(self.low * (1 - margin), self.likely, self.high * (1 + margin))


def generation(model: str) -> tuple[int, int]:
    """(4, 7) of claude-opus-4-7; what has another kind of name is taken for new."""
    found = _NAME.match(model)
    return (int(found[1]), int(found[2] or 0)) if found else (99, 0)


def tokens_of_bytes(size: Decimal, model: str) -> Span:
    """Tokens of so many bytes of JSON."""
    factor = DENSE if generation(model) >= (4, 7) else Decimal(1)
    return Span(*(size * factor / each for each in BYTES))


def tokens_of_image(width: int, height: int, model: str) -> int:
    """Tokens of an image of so many pixels, as the API counts them: reduced to what the model looks at first."""
    longest, most = (2576, 4784) if generation(model) >= (4, 7) else (1568, 1568)
    edge = max(width, height)
    if edge > longest:
        width, height = width * longest // edge, height * longest // edge
    across, down = (-(-side // SQUARE) for side in (width, height))
    return min(max(1, across * down), most)


def output_tokens(shared: Mapping[str, Any], model: str) -> Span:
    """Tokens of an answer by the form that is asked for, with what the model thinks before it."""
    config = shared.get("output_config") or {}
    schema = (config.get("format") or {}).get("schema") or _forced_tool(shared)
    factor = DENSE if generation(model) >= (4, 7) else Decimal(1)
    likely = (_of_schema(schema, schema, 0) if schema else FREE_TEXT) * factor
    thinking = shared.get("thinking") or {}
    if thinking.get("type") != "disabled" and (generation(model) >= (5, 0) or thinking):
        likely += THINKING * EFFORTS.get(config.get("effort") or "high", Decimal(1))
    return Span(likely / REACH, likely, likely * REACH)


def _forced_tool(shared: Mapping[str, Any]) -> Any:
    choice = shared.get("tool_choice") or {}
    if choice.get("type") not in ("any", "tool"):
        return None
    tools = [
        tool for tool in shared.get("tools") or () if choice["type"] == "any" or tool.get("name") == choice.get("name")
    ]
    return tools[0].get("input_schema") if tools else None


def _of_schema(schema: Any, root: Any, depth: int) -> Decimal:
    """Tokens of a JSON value that fits a schema."""
    if not isinstance(schema, dict) or depth > DEEPEST:
        return STRING
    if isinstance(schema.get("$ref"), str):
        found = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        return _of_schema(found, root, depth + 1)
    if "const" in schema or schema.get("enum"):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return 1 + Decimal(sum(len(str(value)) for value in values)) / len(values) / BYTES[1]
    branches = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if branches:
        return max(_of_schema(branch, root, depth + 1) for branch in branches)
    kind = schema.get("type", "object")
    kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object":
        inner = (schema.get("properties") or {}).items()
        return sum((2 + len(name) / BYTES[1] + _of_schema(each, root, depth + 1) for name, each in inner), Decimal(2))
    if kind == "array":
        return 2 + ENTRIES * (1 + _of_schema(schema.get("items"), root, depth + 1))
    if kind == "string" and not schema.get("format"):
        return STRING
    return Decimal(8 if kind == "string" else 2)
