"""From where somebody acts, for the events that this writes: the room of pages says it before each request, the
command line before each command. `books` and `states` read it; steps act from nowhere.
"""

from __future__ import annotations

from contextvars import ContextVar

COMMAND_LINE = "command line"

_address: ContextVar[str | None] = ContextVar("address", default=None)


def act_from(address: str | None) -> None:
    """What is done from now on in this thread is done from there; None: from nowhere in particular."""
    _address.set(address)


def address() -> str | None:
    """From where this thread acts."""
    return _address.get()
