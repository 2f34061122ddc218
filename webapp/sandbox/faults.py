"""The faults the sandbox commits on request: their grammar, and the queue they are taken from, call by call.

The configuration reads the grammar and the routes take from the queues; nothing outside the sandbox does.

A list of faults is text: entries parted by commas, one entry per call, in order; when the list is used up,
calls go well again. An entry is one or more faults joined by ``+``, each ``name`` or ``name:number``, and may
end in ``*N`` (for N calls) or ``*`` (for every call from there on)::

    429:5,500*3,ok,drop_after          # create, retrieve and list
    truncate:4096,duplicate:3+blank*   # results
"""

from __future__ import annotations

import re
import threading
from typing import NamedTuple

#: HTTP statuses that can be asked for by number, with the API's error type and a text.
STATUSES: dict[str, tuple[str, str]] = {
    "400": ("invalid_request_error", "The request was refused by the sandbox, as asked."),
    "401": ("authentication_error", "API key is invalid."),
    "402": ("billing_error", "There is an issue with your billing or payment information."),
    "403": ("permission_error", "Your API key does not have permission to use the specified resource."),
    "404": ("not_found_error", "Not found"),
    "408": ("timeout_error", "Request timed out"),
    "409": ("conflict_error", "The request conflicts with the current state of the resource."),
    "429": ("rate_limit_error", "This request would exceed your organization's rate limit."),
    "500": ("api_error", "Internal server error"),
    "502": ("api_error", "Bad gateway"),
    "503": ("api_error", "Service unavailable"),
    "504": ("timeout_error", "The request timed out while processing."),
    "529": ("overloaded_error", "Overloaded"),
}

#: What any call can meet. ``…_after``: the call is carried out first, so a create is accepted.
#: ``drop_early`` drops the connection before the body, ``drop_before`` once the whole of it was read.
CALL_FAULTS = frozenset(STATUSES) | {
    "ok",
    "413",
    "credit",
    "spend_cap",
    "drop_early",
    "drop_before",
    "drop_after",
    "timeout_after",
    "500_after",
    "529_after",
    "garbled",
}

#: What a results stream can meet besides.
STREAM_FAULTS = frozenset({"truncate", "duplicate", "unknown", "garbage", "blank", "crlf", "missing", "unknown_type"})

_ENTRY = re.compile(r"(?P<faults>[^*]+)(?P<star>\*(?P<times>[0-9]*))?")


class Fault(NamedTuple):
    """One fault of one call; the argument is seconds, bytes or lines, by its name."""

    name: str
    argument: float | None = None


class FaultQueue:
    """Faults that the next calls take in order. Safe to use from several threads."""

    def __init__(self, text: str = "", *, stream: bool = False) -> None:
        """Read a list of faults.

        :param stream: whether faults of a results stream may be among them.
        :raises ValueError: the text names what is wrong with it.
        """
        self._lock = threading.Lock()
        self._allowed = CALL_FAULTS | STREAM_FAULTS if stream else CALL_FAULTS
        #: What is left: faults of one call, and for how many calls (None: for every one).
        self._entries = [self._entry(part.strip()) for part in text.split(",") if part.strip()]

    def take(self) -> list[Fault]:
        """The faults of the next call; an empty list when it is to go well."""
        with self._lock:
            if not self._entries:
                return []
            faults, times = self._entries[0]
            if times == 1:
                del self._entries[0]
            elif times is not None:
                self._entries[0] = (faults, times - 1)
            return [fault for fault in faults if fault.name != "ok"]

    def _entry(self, text: str) -> tuple[list[Fault], int | None]:
        match = _ENTRY.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a fault: write name, name:number, one+another or name*times")
        faults = [self._fault(part.strip()) for part in match["faults"].split("+")]
        if not match["star"]:
            return faults, 1
        return faults, int(match["times"]) if match["times"] else None

    def _fault(self, text: str) -> Fault:
        name, _, argument = text.partition(":")
        if name not in self._allowed:
            raise ValueError(f"{name!r} is not a fault known here: {', '.join(sorted(self._allowed))}")
        if not argument:
            return Fault(name)
        try:
            return Fault(name, float(argument))
        except ValueError:
            raise ValueError(f"{text!r}: what follows the colon must be a number") from None
