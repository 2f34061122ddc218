"""Settings of several lines, each `name: what it is`: how people declare fields, criteria and definitions.
Plugins use it in the validators of their settings; the forms draw such a setting with room for its lines.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Annotated, NamedTuple

from pydantic import WithJsonSchema

# A text of several lines, in a form as with `--set "name=$(cat FILE)"`.
Lines = Annotated[str, WithJsonSchema({"type": "string", "format": "textarea"})]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_BREAK = re.compile(r"\r\n|\r|\n")


class Line(NamedTuple):
    """One line that declares something.

    :param number: in the text, from 1.
    :param name: what stands before the colon.
    :param rest: what stands behind it; never empty.
    """

    number: int
    name: str
    rest: str


def named_lines(text: str, names: Collection[str] = ()) -> list[Line]:
    """The lines of a declaration; empty ones are passed over.

    :param names: those that may be declared; they may hold anything. Without it a name is a letter or _, then letters,
        digits and _, at most 64.
    :raises ValueError: a line is not ``name: words``, or a name is there twice; says which line.
    """
    found: dict[str, Line] = {}
    for number, written in enumerate(_BREAK.split(text), 1):
        line = written.strip()
        if not line:
            continue
        if not line.replace("\t", " ").isprintable():
            raise ValueError(f"line {number} holds a control character")
        name = _name(number, line, names)
        rest = line[len(name) :].lstrip().removeprefix(":").strip()
        if not rest:
            raise ValueError(f"line {number} says nothing of '{name}': write '{name}: what it is'")
        if name in found:
            raise ValueError(f"'{name}' is there twice, on lines {found[name].number} and {number}")
        found[name] = Line(number, name, rest)
    return list(found.values())


def _name(number: int, line: str, names: Collection[str]) -> str:
    before, colon, _ = line.partition(":")
    before = before.rstrip()
    if not colon:
        raise ValueError(f"line {number}, {line[:60]!r}, has no colon: write 'name: what it is'")
    if not names:
        if not _NAME.fullmatch(before):
            raise ValueError(
                f"line {number}: {before[:60]!r} is no name: use a letter or _, then letters, digits and _, at most 64"
            )
        return before
    # A known name may hold a colon itself: the longest that the line begins with is meant.
    meant = [one for one in names if line.startswith(one) and line[len(one) :].lstrip().startswith(":")]
    if meant:
        return max(meant, key=len)
    close = get_close_matches(before, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ValueError(f"line {number}: there is no '{before[:60]}'.{hint} There are: {', '.join(names)}")
