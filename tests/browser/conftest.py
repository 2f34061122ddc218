"""The dashboard in a real browser, served by a real web server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from support.browser import served


@pytest.fixture
def dashboard(app: Flask, tmp_path: Path) -> Iterator[str]:
    """The address of the test's own dashboard."""
    with served(app.extensions["batchdesk"].settings, tmp_path / "web.log") as address:
        yield address
