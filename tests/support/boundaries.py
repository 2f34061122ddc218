"""The boundaries of a step, and what may happen at one: its worker dies, or the world goes on without it.

A boundary is the beginning, the last moment before the commit and the end of each transaction, and the beginning and
the end of each call of the API. `Boundaries` counts those that the main thread passes and acts at one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from webapp import db
from webapp.gateway import Gateway


class Killed(BaseException):
    """Stands for the worker's death: nothing of ours catches it."""


class Boundaries:
    """Counts boundaries while a step is performed, and at the n-th does what it was told, once."""

    def __init__(self) -> None:
        self._left = -1
        self._deed: Callable[[], None] | None = None
        self._open = 0
        self._real = db.transaction

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """From now on, see every transaction."""
        patch.setattr(db, "transaction", self._transaction)

    def gateway(self, gateway: Gateway) -> Any:
        """A gateway whose calls are boundaries."""
        return _Watched(gateway, self.passed)

    @contextmanager
    def at(self, number: int, deed: Callable[[], None] | None) -> Iterator[None]:
        """Do something at a boundary of what runs within.

        :param deed: None: the worker dies there. Anything else waits for a boundary without an open transaction.
        """
        self._left, self._deed = number, deed
        try:
            yield
        finally:
            self._left = -1
            self._open = 0

    def passed(self) -> None:
        if self._left < 0 or threading.current_thread() is not threading.main_thread():
            return
        if self._left == 0 and self._deed is not None and self._open:
            return
        self._left -= 1
        if self._left >= 0:
            return
        if self._deed is None:
            raise Killed
        self._deed()

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[Any]:
        main = threading.current_thread() is threading.main_thread()
        self.passed()
        with self._real(**options) as tx:
            self._open += main
            try:
                yield tx
                self.passed()
            finally:
                self._open -= main
        self.passed()


class _Watched:
    """Every verb of a gateway, with a boundary before and after it; what it has heard is the gateway's own."""

    def __init__(self, gateway: Gateway, passed: Callable[[], None]) -> None:
        self._gateway, self._passed = gateway, passed

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._gateway, name, value)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._gateway, name)
        if not callable(verb):
            return verb

        def call(*arguments: Any, **named: Any) -> Any:
            self._passed()
            answer = verb(*arguments, **named)
            self._passed()
            return answer

        return call
