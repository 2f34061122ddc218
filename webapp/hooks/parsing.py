"""Turns settings as people write them (`--set labels=a,b`, form fields) into the model of whoever they are for.
Called through `Registry.parse_settings`; every fault is reported at once, in words, and by field for forms.
"""

from __future__ import annotations

import csv
import types
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from webapp.errors import BadSettings, PluginError
from webapp.hooks.configured import Configured

_LISTS = {list, tuple, set, frozenset}
_NOUNS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}


def parse_settings(owner: Configured[Any], raw: Mapping[str, Any]) -> BaseModel:
    """The settings of a task, a source, a sink or a plugin; strings are read as their field's type, lists as
    comma-separated values.

    :raises BadSettings: names every field at fault, the fault, and what is allowed.
    :raises PluginError: a check of the plugin's own broke.
    """
    fields = owner.Settings.model_fields
    faults = [("", _unknown(name, fields)) for name in raw if name not in fields]
    values: dict[str, Any] = {}
    unreadable: set[str] = set()
    for name in [name for name in fields if name in raw]:
        try:
            values[name] = _read(raw[name], fields[name])
        except ValueError as error:
            unreadable.add(name)
            faults.append((name, f"setting '{name}': {error}. {_allowed(owner, name)}"))
    try:
        settings = _validate(owner, values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        faults += [_fault(owner, detail) for detail in details if unreadable.isdisjoint(detail["loc"])]
    else:
        if not faults:
            return settings
    raise BadSettings(f"{owner.noun} '{owner.name}' cannot run with these settings", faults)


def _validate(owner: Configured[Any], values: Mapping[str, Any]) -> BaseModel:
    model: type[BaseModel] = owner.Settings
    try:
        # By name: people write the field's name, whatever alias a plugin uses for its own ends.
        return model.model_validate(values, by_name=True, by_alias=False)
    except ValidationError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise PluginError(f"{owner.noun} '{owner.name}': checking its settings raised {kind}: {error}.") from error


def _unknown(name: str, fields: Mapping[str, FieldInfo]) -> str:
    close = get_close_matches(name, fields, n=1)
    meant = f" Did you mean '{close[0]}'?" if close else ""
    return f"setting '{name}' is unknown.{meant} Known settings: {', '.join(fields) or 'none'}."


def _read(value: Any, field: FieldInfo) -> Any:
    if not isinstance(value, str):
        return value
    kinds = _kinds(field.annotation)
    if not value.strip() and type(None) in kinds:
        return None  # an empty form field stands for "not set"
    return _split(value) if kinds & _LISTS and str not in kinds else value


def _kinds(annotation: Any) -> set[Any]:
    """The plain types behind an annotation: ``list[str] | None`` is {list, NoneType}."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return set().union(*(_kinds(part) for part in get_args(annotation)))
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    return {origin or annotation}


def _split(value: str) -> list[str]:
    """Comma-separated values, trimmed; a value that holds a comma is written in double quotes."""
    if not value.strip():
        return []
    try:
        parts = [part.strip() for part in next(csv.reader([value.strip()], skipinitialspace=True, strict=True))]
    except csv.Error:
        raise ValueError(f"{value!r} is not a comma-separated list on one line, with quotes in pairs") from None
    if "" in parts:
        raise ValueError(f"'{value}' has an empty value between its commas")
    return parts


def _fault(owner: Configured[Any], detail: ErrorDetails) -> tuple[str, str]:
    """(the field, or nothing where several do not go together; the fault)."""
    name, *inside = (str(part) for part in detail["loc"]) if detail["loc"] else ("",)
    if not name:
        return "", _sentence(detail)
    if detail["type"] == "missing" and not inside:
        return name, f"setting '{name}' is required. {_allowed(owner, name)}"
    given = detail["input"]
    shown = "" if detail["type"] == "value_error" else f" is {given!r}"
    where = f" ({'.'.join(inside)})" if inside else ""
    return name, f"setting '{name}'{where}{shown}: {_sentence(detail)}. {_allowed(owner, name)}"


def _sentence(detail: ErrorDetails) -> str:
    """pydantic's words, without the prefix it puts before those that a plugin's own validator raised."""
    return detail["msg"].removeprefix("Value error, ").rstrip(".")


def _allowed(owner: Configured[Any], name: str) -> str:
    """What a field takes, drawn from its JSON schema."""
    schema = owner.Settings.model_json_schema(by_alias=False)
    return f"Allowed: {_describe(schema['properties'][name], schema.get('$defs', {}))}."


def _describe(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """A field's JSON schema in words: its type, choices, bounds and default."""
    words = _describe_type(schema, defs)
    if "default" not in schema:
        return words
    default = schema["default"]
    return f"{words}; default {'empty' if default in (None, '', []) else default}"


def _describe_type(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _describe_type(defs.get(schema["$ref"].rsplit("/", 1)[-1], {}), defs)
    if "anyOf" in schema:
        return " or ".join(_describe_type(part, defs) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "null":
        return "empty"
    if kind == "array":
        return "a comma-separated list of " + _describe_type(schema.get("items", {}), defs) + _bounds(schema)
    return _NOUNS.get(str(kind), "a value") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    least, most = "at least {}", "at most {}"
    phrases = {
        "minimum": least,
        "exclusiveMinimum": "more than {}",
        "maximum": most,
        "exclusiveMaximum": "less than {}",
        "minItems": least + " of them",
        "maxItems": most + " of them",
        "minLength": least + " character(s)",
        "maxLength": most + " character(s)",
        "pattern": "matching the pattern {}",
    }
    found = [phrase.format(schema[key]) for key, phrase in phrases.items() if key in schema]
    return "".join(f", {phrase}" for phrase in found)
