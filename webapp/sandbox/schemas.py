"""What JSON schemas structured outputs take, and how to walk one.

The checks ask what is wrong with a schema, the answers walk it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .body import loads
from .tokens import dumps

_MOST_DEPTH = 40
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")

#: Keywords that structured outputs refuse, by the type whose values they would narrow.
_REFUSED = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength"),
    "array": ("maxItems", "uniqueItems"),
    "object": ("minProperties", "maxProperties", "patternProperties"),
}


def schema_problem(schema: dict[str, Any]) -> str | None:
    """The first thing structured outputs would refuse in a schema, or None."""
    return _remembered_problem(dumps(schema))


@lru_cache(maxsize=32)
def _remembered_problem(text: bytes) -> str | None:
    # A batch mostly asks for one schema in all of its requests.
    schema = loads(text)
    if not is_well_formed(schema):
        return "The schema is not a valid JSON schema"
    return _problem(schema, schema, ())


def is_well_formed(schema: Any, depth: int = 0) -> bool:
    """Whether a schema is one by the shape of the keywords that are looked at here."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or depth > _MOST_DEPTH:
        return False
    kinds = schema.get("type", "object")
    shapes = (
        all(kind in _TYPES for kind in (kinds if isinstance(kinds, list) and kinds else [kinds])),
        isinstance(schema.get("required", []), list),
        all(isinstance(name, str) for name in schema.get("required") or ()),
        isinstance(schema.get("enum", [0]), list) and bool(schema.get("enum", [0])),
        isinstance(schema.get("$ref", ""), str),
        isinstance(schema.get("format", ""), str),
    )
    return all(shapes) and all(is_well_formed(inner, depth + 1) for inner in _inner_schemas(schema))


def _inner_schemas(schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas inside of one; something that is none where one should be."""
    for keyword in ("properties", "$defs", "definitions"):
        inner = schema.get(keyword, {})
        yield from inner.values() if isinstance(inner, dict) else [None]
    for keyword in ("anyOf", "allOf", "oneOf"):
        inner = schema.get(keyword, [True])
        yield from inner if isinstance(inner, list) and inner else [None]
    for keyword in ("items", "additionalProperties"):
        yield schema.get(keyword, True)


def resolve(schema: Any, root: dict[str, Any]) -> dict[str, Any]:
    """The schema that a local ``$ref`` names, or the schema itself; an empty one when it names nothing."""
    for _ in range(_MOST_DEPTH):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                schema = schema.get(step, {}) if isinstance(schema, dict) else {}
    return {}


def main_type(schema: dict[str, Any]) -> str:
    """The type to answer with: the first that is not null, or what the keywords tell."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _problem(schema: Any, root: dict[str, Any], parents: tuple[str, ...]) -> str | None:
    if not isinstance(schema, dict):
        return None
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if not reference.startswith("#"):
            return f"External schema reference not supported: {reference}"
        if reference in parents or len(parents) > _MOST_DEPTH:
            return "Recursive schemas are not supported"
        return _problem(resolve(schema, root), root, (*parents, reference))
    return _own_problem(schema) or _inner_problem(schema, root, parents)


def _own_problem(schema: dict[str, Any]) -> str | None:
    kind = main_type(schema)
    if kind == "object" and "type" in schema and schema.get("additionalProperties") is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    refused = [keyword for keyword in _REFUSED.get(kind, ()) if keyword in schema]
    if refused:
        return f"For '{kind}' type, properties {', '.join(refused)} are not supported"
    if kind == "array" and schema.get("minItems", 0) not in (0, 1):
        return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return None


def _inner_problem(schema: dict[str, Any], root: dict[str, Any], parents: tuple[str, ...]) -> str | None:
    for inner in _inner_schemas(schema):
        problem = _problem(inner, root, parents)
        if problem:
            return problem
    return None
