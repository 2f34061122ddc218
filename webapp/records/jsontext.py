"""JSON text as it was found: checked strictly, parsed fast, never written anew.
The reading of records and whatever reads stored JSON may call it; both parsers of the project meet here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from webapp.records.escapes import one_line
from webapp.records.faults import Fault, not_utf8

_NAME_END = re.compile(rb'"[ \t\r\n]*:')
_MEND = "mend it, or take it out"
_ONE_LINE_EACH = "write each record as one JSON object on one line, for instance with `jq -c`"
_TOO_DEEP = Fault("its JSON is nested too deeply", "flatten it")
# Python refuses to read integers of over 4,300 digits; JSON does not.
_MAX_INT_DIGITS = 4000


def loads(text: str | bytes) -> Any:
    """Any JSON, also with what orjson refuses: lone surrogates as escapes, numbers beyond a double.

    :raises ValueError: it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("depth limit"):
            raise  # beyond it Python's limit differs by version, and PostgreSQL's is near
        # Python would also take other encodings, a byte order mark, and numbers that are none.
        return json.loads(text if isinstance(text, str) else text.decode(), parse_int=_int, parse_constant=_no_number)


def dumps(value: object) -> bytes:
    """Compact JSON in UTF-8; text with lone surrogates, which UTF-8 cannot hold, as ASCII with escapes."""
    try:
        return orjson.dumps(value, default=plain)
    except TypeError:
        return json.dumps(value, default=plain, separators=(",", ":"), allow_nan=False).encode("ascii")


def plain(value: object) -> dict[Any, Any]:
    """What JSON writes for a value that is no plain one: a read-only mapping is an object.

    :raises TypeError: JSON has nothing for it.
    """
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def parse_object(text: bytes, offset: int = 0) -> dict[str, Any] | Fault:
    """The members of one JSON object, or why the text is none.

    Integers beyond 64 bits may come as floats; `parse_exactly` keeps them.

    :param text: one line; surrounding white space is allowed.
    :param offset: where it starts in its file, in bytes, for the words of a fault.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # 1024 levels here. Python's own limit differs by version, and PostgreSQL's is some thousands.
        return _TOO_DEEP if error.msg.startswith("depth limit") else parse_exactly(text, offset)
    if type(value) is not dict:
        return _no_object(value)
    # orjson keeps the last of two members of one name. Each member ends its name with a quote and a colon, so as
    # many of those as members is proof that none was lost; more may also come from quotes within text.
    name_ends = len(_NAME_END.findall(text))
    if name_ends != len(value) and name_ends != _count_members(value):
        return parse_exactly(text, offset)
    return value


def parse_exactly(text: bytes, offset: int = 0) -> dict[str, Any] | Fault:
    """Like `parse_object`, some times slower: sees doubled names and keeps what orjson cannot hold."""
    doubled: list[str] = []
    constants: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            doubled.append(next(name for name in names if names.count(name) > 1))
        return found

    try:
        value = json.loads(text.decode(), object_pairs_hook=members, parse_constant=constants.append, parse_int=_int)
    except UnicodeDecodeError as error:
        return not_utf8(error, offset)
    except json.JSONDecodeError as error:
        complaint = error.msg.removesuffix(" at")
        remedy = _ONE_LINE_EACH if text.strip() in (b"[", b"{") else _MEND
        return Fault(f"it is not JSON: {complaint} at column {error.colno}", remedy)
    except RecursionError:
        return _TOO_DEEP
    if constants:
        return Fault(f"it is not JSON: {constants[0]} is no JSON number", "write null, or leave the member out")
    if doubled:
        return Fault(f'two members of one object are named "{one_line(doubled[0])}"', "give each its own name")
    return value if type(value) is dict else _no_object(value)


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else float(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _count_members(value: dict[str, Any]) -> int:
    count = 0
    rest: list[Any] = [value]
    while rest:
        found = rest.pop()
        if type(found) is dict:
            count += len(found)
            rest.extend(found.values())
        elif type(found) is list:
            rest.extend(found)
    return count


def _no_object(value: object) -> Fault:
    return Fault(f"it is {json_noun(value)}, not a JSON object", _ONE_LINE_EACH)


def json_noun(value: object) -> str:
    """What a parsed JSON value is, in words."""
    nouns = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return nouns.get(type(value), "null")
