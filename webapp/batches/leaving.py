"""Whether this process has been asked to end: long steps look between their chunks, and stop there.
The worker asks; a step that stops has committed all it did, and another worker goes on from there.
"""

from __future__ import annotations

import time

from webapp.errors import Leaving


class _Process:
    """What this process is about to do; plain values, since a signal's handler sets them."""

    asked_at: float | None = None
    finishing = False


def ask() -> None:
    """Say that this process is to end soon. May be repeated, from a signal's handler too."""
    if _Process.asked_at is None:
        _Process.asked_at = time.monotonic()


def asked() -> bool:
    """Whether somebody wants this process to end."""
    return _Process.asked_at is not None


def asked_for() -> float:
    """Seconds since that was asked; 0.0 when it was not."""
    return 0.0 if _Process.asked_at is None else time.monotonic() - _Process.asked_at


def look() -> None:
    """Between two chunks: may the step go on?

    :raises Leaving: this process is to end.
    """
    if asked():
        raise Leaving("The worker was asked to end; another goes on from here.")


def begin() -> None:
    """A step begins: nothing of it has to be finished yet."""
    _Process.finishing = False


def must_finish() -> None:
    """The step is past the point where it may be stopped: its POST may have created something."""
    _Process.finishing = True


def finishing() -> bool:
    """Whether the present step has to be waited for."""
    return _Process.finishing


def stay() -> None:
    """Forget that anybody asked; for tests, which go on in one process."""
    _Process.asked_at = None
