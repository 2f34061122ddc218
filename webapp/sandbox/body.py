"""Takes the body of a create apart while it arrives, one request at a time, and spills it to disk as it is.

The intake of a batch reads through it. Memory holds one window of the body, never more than a few requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import orjson

_BLANK = re.compile(rb"[ \t\r\n]*")
_BRACKET_OR_QUOTE = re.compile(rb'["{}\[\]]')
_SCALAR = re.compile(rb"[^,\]}\s]+")
_FIRST_KEY = re.compile(rb'\{\s*"[^"\\]*"')

_BACKSLASH = ord("\\")
_LEAST_READ = 1 << 20
_MOST_READ = 1 << 24


class InvalidJson(ValueError):
    """The body is not JSON."""


class BodyTooLarge(ValueError):
    """The body is longer than allowed."""


class Element(NamedTuple):
    """One element of ``requests``: its value, and where its text stands in the body."""

    value: Any
    offset: int
    length: int


def loads(text: bytes) -> Any:
    """Parse JSON; what orjson refuses though it is JSON (lone surrogate escapes) takes the slow road."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidJson(str(error)) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _next_mark(data: bytes, start: int) -> int:
    """Where the next bracket or quote ends, or -1."""
    found = _BRACKET_OR_QUOTE.search(data, start)
    return found.end() if found else -1


def _closing_quote(data: bytes, start: int) -> int:
    """Where the string that is open at `start` ends, or -1. `start` is not inside of an escape."""
    at = start
    while (at := data.find(b'"', at)) >= 0:
        first = at
        while first > start and data[first - 1] == _BACKSLASH:
            first -= 1
        if (at - first) % 2 == 0:
            return at + 1
        at += 1
    return -1


def _cut_escape(data: bytes) -> int:
    """How many backslashes the data ends in."""
    return len(data) - len(data.rstrip(b"\\"))


class _Window:
    """The part of the body that is looked at: ``data`` from ``position`` on, ``base`` bytes into the body."""

    def __init__(self, read: Callable[[int], bytes], spill: BinaryIO, limit: int) -> None:
        self._read, self._spill, self._limit = read, spill, limit
        self.data = b""
        self.position = 0
        self.base = 0

    def more(self) -> bool:
        """Read on; drops what is before ``position``. False at the end of the body."""
        # A long element is read in growing steps, so that looking at it again stays linear.
        size = min(max(_LEAST_READ, len(self.data) - self.position), _MOST_READ)
        chunk = self._read(size)
        if not chunk:
            return False
        self._spill.write(chunk)
        self.base += self.position
        self.data = self.data[self.position :] + chunk
        self.position = 0
        if self.base + len(self.data) > self._limit:
            raise BodyTooLarge
        return True

    def peek(self) -> bytes:
        """The next byte that is not blank, not yet taken; empty at the end of the body."""
        while True:
            match = _BLANK.match(self.data, self.position)
            assert match is not None
            self.position = match.end()
            if self.position < len(self.data):
                return self.data[self.position : self.position + 1]
            if not self.more():
                return b""

    def take(self, length: int) -> bytes:
        taken = self.data[self.position : self.position + length]
        self.position += length
        return taken

    def expect(self, byte: bytes) -> None:
        found = self.peek()
        if found != byte:
            where = self.base + self.position
            what = f"found {found.decode(errors='replace')!r}" if found else "the body ended"
            raise InvalidJson(f"expected {byte.decode()!r} but {what}: (byte {where})")
        self.position += 1


class RequestSplitter:
    """Iterates over the elements of ``requests`` in a body ``{"requests": [ … ]}`` that is being read.

    :param read: gives at most so many bytes of the body, none at its end.
    :param spill: gets every byte read.
    :param limit: the most bytes a body may have.

    Iterating raises InvalidJson or BodyTooLarge. Afterwards `keys` holds the names of the top level, and
    `shape` says what stood in place of a list of requests, if something did.
    """

    def __init__(self, read: Callable[[int], bytes], spill: BinaryIO, limit: int) -> None:
        self._window = _Window(read, spill, limit)
        #: What stands between the end of an element and the first key of the next, learned from the first.
        self._seam = b""
        self._first_key = b""
        self.keys: list[str] = []
        self.shape = "object"

    def __iter__(self) -> Iterator[Element]:
        window = self._window
        if window.peek() == b"{":
            yield from self._object()
        else:
            self._skip_value()
            self.shape = "other"
        if window.peek():
            raise InvalidJson(f"unexpected text after the end of the document: (byte {window.base + window.position})")

    def _object(self) -> Iterator[Element]:
        window = self._window
        window.expect(b"{")
        if window.peek() == b"}":
            window.take(1)
            return
        while True:
            if window.peek() != b'"':
                window.expect(b'"')
            key = loads(window.take(self._measure()))
            window.expect(b":")
            if key == "requests" and key not in self.keys and window.peek() == b"[":
                yield from self._list()
            else:
                if key == "requests":
                    self.shape = "no list"
                self._skip_value()
            self.keys.append(key)
            if window.peek() != b",":
                window.expect(b"}")
                return
            window.take(1)

    def _list(self) -> Iterator[Element]:
        window = self._window
        window.expect(b"[")
        if window.peek() == b"]":
            window.take(1)
            return
        after_comma = 0
        while True:
            if not window.peek():
                window.expect(b"{")
            if not self._seam:
                self._learn_seam(after_comma)
            yield self._element()
            if window.peek() != b",":
                window.expect(b"]")
                return
            window.take(1)
            after_comma = window.base + window.position

    def _element(self) -> Element:
        window = self._window
        quick = self._quick_element()
        if quick is not None:
            return quick
        length = self._measure()
        offset = window.base + window.position
        text = window.take(length)
        first_key = _FIRST_KEY.match(text)
        self._first_key = first_key.group() if first_key else b""
        return Element(loads(text), offset, length)

    def _quick_element(self) -> Element | None:
        """Guess the end from the look of the seam. If the text up to there parses, the guess is right:
        no JSON object is the beginning of another."""
        window, searched = self._window, 0
        if not self._seam:
            return None
        while (at := window.data.find(self._seam, window.position + searched)) < 0:
            searched = max(0, len(window.data) - window.position - len(self._seam))
            if not window.more():
                return None
        length = at + 1 - window.position
        try:
            value = orjson.loads(window.data[window.position : at + 1])
        except orjson.JSONDecodeError:
            return None
        offset = window.base + window.position
        window.position += length
        return Element(value, offset, length)

    def _learn_seam(self, after_comma: int) -> None:
        """Called at the start of the second element; `after_comma` is where the comma before it ended."""
        window = self._window
        blanks = window.base + window.position - after_comma
        if self._first_key and window.position >= blanks:
            blank = window.data[window.position - blanks : window.position]
            self._seam = b"}," + blank + self._first_key

    def _skip_value(self) -> None:
        if not self._window.peek():
            raise InvalidJson("the body ended where a value was expected")
        loads(self._window.take(self._measure()))

    def _measure(self) -> int:
        """The length of the value at the window's position, found by counting brackets outside of strings."""
        window, length, depth, in_string = self._window, 0, 0, False
        if window.peek() not in (b"{", b"[", b'"'):
            return self._measure_scalar()
        while True:
            start = window.position + length
            end = _closing_quote(window.data, start) if in_string else _next_mark(window.data, start)
            if end < 0:
                # Where the search goes on; not inside of an escape that may be cut here.
                length = max(
                    length, len(window.data) - window.position - (_cut_escape(window.data) if in_string else 0)
                )
                if not window.more():
                    raise InvalidJson("the body ended inside of a value")
                continue
            length = end - window.position
            mark = window.data[end - 1 : end]
            if mark == b'"':
                in_string = not in_string
            else:
                depth += 1 if mark in b"{[" else -1
            if depth == 0 and not in_string:
                return length

    def _measure_scalar(self) -> int:
        window = self._window
        while True:
            match = _SCALAR.match(window.data, window.position)
            if match is None:
                return 1
            if match.end() < len(window.data) or not window.more():
                return match.end() - window.position
