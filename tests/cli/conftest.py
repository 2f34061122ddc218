"""The command line in the test's own process: a home where nothing runs, and an installation with a worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from support.command_line import CommandLine
from support.desk import DeskDriver
from support.sandbox import API_KEY, Sandbox

from webapp.local import Services


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """Nothing is set and nothing is up; a command that would start something has left a home."""
    monkeypatch.chdir(tmp_path)
    line = CommandLine(tmp_path, {})
    yield line
    assert not line.home.exists(), "it has started something"


@pytest.fixture
def line(
    app: Flask, database_url: str, services: Services, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """Servers of one's own, by DATABASE_URL and REDIS_URL; nobody works."""
    monkeypatch.chdir(tmp_path)
    given = {
        "DATABASE_URL": database_url,
        "REDIS_URL": services.redis_url,
        "BATCHDESK_SECRET_KEY": "only for tests, and long enough",
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": sandbox.url,
    }
    return CommandLine(tmp_path, given)


@pytest.fixture
def worker(desk: DeskDriver) -> Iterator[None]:
    """Somebody performs what is due, in a thread, as a worker would."""
    over = threading.Event()

    def work() -> None:
        with desk.app.app_context():
            while not over.wait(0.02):
                desk.perform_due()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """No command changes the environment of the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
