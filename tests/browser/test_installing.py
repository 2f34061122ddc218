"""An admin installs a plugin from its wheel, sees every process take it up, and takes it away again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Page, expect
from support.browser import served, sign_in
from support.desk import DeskDriver
from support.people import make_person
from support.plugin_wheels import NAME, file_name, wheel

from webapp.settings import PluginInstall

pytestmark = pytest.mark.browser


@pytest.fixture
def dashboard(app: Flask, desk: DeskDriver, tmp_path: Path) -> Iterator[str]:
    """A dashboard that lets admins install; wheels are unpacked in the test's own folder."""
    given = app.extensions["batchdesk"].settings.model_copy(update={"plugin_install": PluginInstall.WEB})
    desk.change(home=tmp_path / "home", plugin_install=PluginInstall.WEB)
    path = list(sys.path)
    with served(given, tmp_path / "web.log", BATCHDESK_HOME=str(tmp_path / "web")) as address:
        yield address
    sys.path[:] = path


def test_a_wheel_is_installed_and_removed(page: Page, dashboard: str, desk: DeskDriver) -> None:
    sign_in(page, dashboard, make_person("admin"))
    page.get_by_role("link", name="Plugins").click()
    page.get_by_role("link", name="Install a plugin").click()
    file = {"name": file_name(), "mimeType": "application/zip", "buffer": wheel(requires=["pydantic>=2"])}
    page.get_by_label("Its wheel").set_input_files(file)
    page.get_by_role("button", name="Look into it").click()
    expect(page.get_by_role("heading", name="It is being looked into")).to_be_visible()

    desk.perform_due()
    expect(page.get_by_role("heading", name="Install it?")).to_be_visible()  # by itself
    for told in ("pydantic>=2", "register_tasks", str(desk.scalar("SELECT sha256 FROM plugin_installs"))):
        expect(page.get_by_text(told).first).to_be_visible()
    page.get_by_role("button", name="Install", exact=True).click()
    expect(page.get_by_role("heading", name="It is being tried")).to_be_visible()

    desk.perform_due()
    expect(page.get_by_role("heading", name=f"{NAME} 1.0 is there")).to_be_visible()
    expect(page.get_by_text("the plugins as they are now (set 1)")).to_be_visible()
    page.get_by_role("link", name="Go to the plugin").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("on")
    expect(page.get_by_role("heading", name="task Stamp")).to_be_visible()

    page.get_by_role("link", name="Remove").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("status")).to_contain_text(f"{NAME} is removed.")
    assert desk.scalar("SELECT count(*) FROM plugins") == 0
