"""The dashboard in a real browser, served by a real web server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from support.browser import served
from support.desk import DeskDriver
from support.sandbox import SandboxProcess
from support.showcase import Address, addresses, fill

from webapp.settings import PluginInstall


@pytest.fixture
def dashboard(app: Flask, tmp_path: Path) -> Iterator[str]:
    """The address of the test's own dashboard."""
    with served(app.extensions["batchdesk"].settings, tmp_path / "web.log") as address:
        yield address


@pytest.fixture
def pages(app: Flask, desk: DeskDriver, sandbox: SandboxProcess, tmp_path: Path) -> Iterator[tuple[str, list[Address]]]:
    """The address of a filled dashboard, and all its pages."""
    given = app.extensions["batchdesk"].settings  # before filling changes some
    settings = given.model_copy(update={"plugin_install": PluginInstall.WEB})
    fill(desk, sandbox, tmp_path / "images")
    with served(settings, tmp_path / "web.log") as dashboard:
        yield dashboard, list(addresses(app, desk))
