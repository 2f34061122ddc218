"""A real browser and a real web server for tests. The root `conftest.py` registers its fixtures.

Where no chromium is found the tests are skipped by name, with the reason; where `CI` is set they fail instead.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright
from pydantic import SecretStr
from support.people import PASSWORD

from webapp.settings import Settings, variable

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 30.0  # seconds
HEIGHT = 900


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, started once."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        reason = f"needs a browser: none of {', '.join(NAMES)} is on the PATH"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A fresh window. Whatever a page complains of (a script that broke or was blocked) fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE * 1000)
    expect.set_options(timeout=PATIENCE * 1000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if _is_complaint(message) else None)
    yield page
    context.close()
    if complaints:
        raise AssertionError(f"the page complained: {complaints}")


def _is_complaint(message: ConsoleMessage) -> bool:
    """An error that the page made; not that the server, whose test is over, no longer answers its look at progress."""
    return message.type == "error" and "Failed to load resource: net::" not in message.text


def seen(chromium: Browser, scheme: Literal["light", "dark"], width: int) -> BrowserContext:
    """Cookies of their own, for pages in that colour scheme and so many pixels wide."""
    context = chromium.new_context(
        viewport={"width": width, "height": HEIGHT},
        color_scheme=scheme,
        reduced_motion="reduce",
        timezone_id="Europe/Berlin",
    )
    context.set_default_timeout(PATIENCE * 1000)
    return context


def sign_in(page: Page, base: str, email: str, password: str = PASSWORD) -> None:
    """Open the dashboard and sign in."""
    page.goto(base)
    page.get_by_label("Name or e-mail").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


@contextmanager
def served(settings: Settings, log: Path, **more: str) -> Iterator[str]:
    """The dashboard by gunicorn, in a process of its own; its address.

    :param log: where its output goes; shown when it does not start.
    :param more: variables of its environment.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--worker-class", "gthread"]
        command += [
            "--threads",
            "8",
            "--graceful-timeout",
            "1",
            "--bind",
            f"fd://{listener.fileno()}",
            "webapp:create_app()",
        ]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(settings) | more,
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            _wait(process, address, log)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def environment(settings: Settings) -> dict[str, str]:
    """The environment that `load` would read these settings from; only what is given."""
    values = {}
    for field in settings.model_fields_set - {"poll_schedule", "home"}:
        value = getattr(settings, field)
        values[variable(field)] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return {"PATH": os.environ["PATH"]} | values


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=PATIENCE) as response:
                response.read()
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError(f"the web server did not start:\n{log.read_text()}")
