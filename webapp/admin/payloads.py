"""Stored JSON as pages show it: laid out without being changed, cut when it is too long for a page.
Details call `laid_out`; downloads call `download`, which sends the bytes as they are stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from flask import Response

from webapp.admin.headers import DOWNLOAD
from webapp.records.escapes import visible

MOST_SHOWN = 60_000  # characters of one payload on a page
INDENT = "  "
DEEPEST = 20  # a thousand brackets in a row must not make a page of a million spaces
# A text (also one that was cut off), a bracket or separator, or a bare word.
_PIECE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Payload:
    """Text ready for a page: unshowable characters as escapes; `cut` when there is more than is shown."""

    text: str
    size: int
    cut: bool


def laid_out(json_text: str | None, size: int | None = None) -> Payload | None:
    """JSON text over several lines. Numbers, escapes and doubled members stay as they are stored.

    :param json_text: the text or the beginning of it.
    :param size: its whole length in bytes, when only the beginning is given.
    """
    if json_text is None:
        return None
    shown = json_text[:MOST_SHOWN]
    whole = len(json_text.encode("utf-8", "surrogatepass")) if size is None else size
    cut = len(shown) < len(json_text) or whole > len(json_text.encode("utf-8", "surrogatepass"))
    return Payload(visible("".join(_layout(shown))), whole, cut)


def plain(text: str) -> Payload:
    """Text that is no JSON."""
    return Payload(visible(text[:MOST_SHOWN]), len(text.encode("utf-8", "surrogatepass")), len(text) > MOST_SHOWN)


def _layout(text: str) -> Iterator[str]:
    depth = 0
    pieces = _PIECE.findall(text)
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=False):
        opens, closes_next = piece in ("{", "["), following in ("}", "]")
        depth += opens - closes_next
        yield piece
        if piece == ":":
            yield " "
        elif piece == "," or opens != closes_next:
            yield "\n" + INDENT * min(max(depth, 0), DEEPEST)


def download(content: str | bytes, name: str, media_type: str = "application/json") -> Response:
    """Bytes as a file to keep: no browser runs or shows them on our pages."""
    response = Response(content, mimetype=media_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Content-Security-Policy"] = DOWNLOAD
    return response
