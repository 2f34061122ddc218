"""Characters that no screen can show, made visible as the escapes JSON would use.
Anything that puts foreign text before people's eyes, or into a text column, may call it.
"""

from __future__ import annotations

import re
from pathlib import Path

# C0 and C1 controls and DEL, and lone surrogates (bytes of a file name that are not UTF-8, or `\ud800` in JSON).
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REVERSING = re.compile("[\u202a-\u202e\u2066-\u2069]")
# In one line of a message also what would break the line or reverse the reading order.
_NOT_ON_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with unshowable characters as ``\\u0000``; tabs and line ends stay."""
    return _UNSHOWABLE.sub(_escape, text)


def readable(text: str) -> str:
    """The text fit for a message of several lines: like `visible`, and nothing in it reverses the reading order."""
    return _REVERSING.sub(_escape, visible(text))


def storable(text: str) -> str:
    """The text fit for a text column, which holds neither NUL nor lone surrogates: those as escapes."""
    return _UNSTORABLE.sub(_escape, text)


def one_line(text: str, limit: int = 200) -> str:
    """The text fit for the inside of one line of a message: escaped, and cut with an ellipsis at `limit` characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return _NOT_ON_A_LINE.sub(_escape, cut)


def shown(path: Path) -> str:
    """A path as messages name it."""
    return one_line(str(path), 1000)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
