"""Works one chunk ahead: while a chunk is stored or sent, a thread makes the next.
The bulk steps use it where the database and the process would else wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

END: Any = object()


def ahead(made: Iterator[T]) -> Iterator[T]:
    """What an iterator makes, each made while the one before it is in use; never more than one is ready.

    It is made in a thread that sees the caller's context. What the iterator raises is raised here, in its turn.
    """
    context = copy_context()
    maker = ThreadPoolExecutor(1, "ahead")

    def make() -> T:
        return context.run(next, made, END)

    try:
        making = maker.submit(make)
        while (one := making.result()) is not END:
            making = maker.submit(make)
            yield one
    finally:
        # Not waited for: whoever is fenced leaves at once, though the other end of the wire says nothing.
        maker.shutdown(wait=False)
