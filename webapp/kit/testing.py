"""Fixtures for the tests of plugins: `sandbox` and `run_task`. pytest loads them wherever Batchdesk is installed.
A `conftest.py` with a fixture of the same name has its own; nothing is imported before a test asks for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from webapp.kit.playing import Answers, Given, Outcome
    from webapp.kit.sandboxes import Sandbox


class RunTask(Protocol):
    """What the fixture `run_task` is: see `webapp.kit.playing.play`."""

    def __call__(
        self, task: Given, records: Iterable[Any], *, answers: Answers | None = None, **settings: Any
    ) -> list[Outcome]: ...


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A Message Batches API of the test's own, over HTTP, whose batches end at once: no key, no money.

    Its ``url`` is its address; ``configure(name=value)`` makes it fail on request, ``bill()`` says what was used.
    """
    from webapp.kit.sandboxes import SandboxThread

    with SandboxThread(tmp_path_factory.mktemp("sandbox"), delay=0, cancel_delay=0) as server:
        yield server


@pytest.fixture
def run_task(sandbox: Sandbox) -> RunTask:
    """Runs a task over some records in the sandbox and returns what became of each, in order.

    ``run_task(task, records, answers={key: text}, **settings)``
    """

    def run(task: Given, records: Iterable[Any], *, answers: Answers | None = None, **settings: Any) -> list[Outcome]:
        from webapp.kit.playing import play

        return play(sandbox.url, task, records, answers, settings)

    return run
