"""Every page there is, in a browser: no accessibility violation, nothing wider than a telephone, all of it by keyboard.

With SCREENSHOTS set to a folder, a picture of each page is kept there (`make screenshots`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page
from support.browser import PATIENCE, served, sign_in
from support.desk import DeskDriver
from support.people import make_person
from support.sandbox import SandboxProcess
from support.showcase import Address, addresses, fill

from webapp.settings import PluginInstall

pytestmark = pytest.mark.browser

PICTURES = os.environ.get("SCREENSHOTS")
# How a page is seen: (colour scheme, width). All four when pictures are taken.
SEEN = (("light", 1280), ("dark", 360), *((("dark", 1280), ("light", 360)) if PICTURES else ()))
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
MOST_TABS = 400


@pytest.fixture
def pages(app: Flask, desk: DeskDriver, sandbox: SandboxProcess, tmp_path: Path) -> Iterator[tuple[str, list[Address]]]:
    """The address of a filled dashboard, and all its pages."""
    given = app.extensions["batchdesk"].settings  # before filling changes some
    settings = given.model_copy(update={"plugin_install": PluginInstall.WEB})
    fill(desk, sandbox, tmp_path / "images")
    with served(settings, tmp_path / "web.log") as dashboard:
        yield dashboard, list(addresses(app, desk))


def seen(chromium: Browser, scheme: Any, width: int) -> BrowserContext:
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
        timezone_id="Europe/Berlin",
    )
    context.set_default_timeout(PATIENCE * 1000)
    return context


def test_every_page_passes_axe_and_fits_the_screen(chromium: Browser, pages: tuple[str, list[Address]]) -> None:
    dashboard, walked = pages
    email = make_person("admin")
    told: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and "404" not in message.text and "net::" not in message.text:
            told.append(f"console: {message.text}")

    for scheme, width in SEEN:
        context = seen(chromium, scheme, width)
        page = context.new_page()
        page.on("console", listen)
        told += look(page, dashboard, Address("sign-in", "/login"), scheme, width)
        sign_in(page, dashboard, email)
        for address in walked:
            told += look(page, dashboard, address, scheme, width)
        context.close()
    assert not told, "\n".join(told)


def look(page: Page, dashboard: str, address: Address, scheme: str, width: int) -> list[str]:
    """What is wrong with a page; its picture is kept, if that is wanted."""
    where = f"{address.path} ({scheme}, {width})"
    response = page.goto(dashboard + address.path)
    assert response is not None
    told = [f"{where}: status {response.status}"] if response.status >= 500 else []
    if PICTURES:
        folder = Path(PICTURES) / f"{scheme}-{width}"
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", address.path).strip("-") or "home"
        page.screenshot(path=folder / f"{name}.png", full_page=True)
    broad = page.evaluate("document.documentElement.scrollWidth")
    if broad > width:
        told.append(f"{where}: {broad} pixels wide")
    for violation in Axe().run(page, options=RULES).response["violations"]:
        nodes = [node["html"][:200] + " | " + _why(node) for node in violation["nodes"][:3]]
        told.append(f"{where}: {violation['id']}: {violation['help']}: {json.dumps(nodes, indent=1)}")
    return told


def _why(node: dict[str, Any]) -> str:
    return "; ".join(check["message"] for kind in ("any", "all", "none") for check in node[kind])[:300]


# What can be clicked or filled in, seen and not switched off, in the order of the page.
REACHABLE = """
() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
  .filter((node) => !node.disabled && node.checkVisibility({visibilityProperty: true})
                    && !(node.type === "radio" && !node.checked)).length
"""
FOCUSED = """
() => {
  const node = document.activeElement;
  if (!node || node === document.body) return null;
  const style = getComputedStyle(node);
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== "none";
  node.dataset.tabbed = "yes";
  return {ring, what: node.outerHTML.slice(0, 120)};
}
"""
MISSED = """
() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
  .filter((node) => !node.disabled && !node.dataset.tabbed && node.checkVisibility({visibilityProperty: true})
                    && !(node.type === "radio" && !node.checked)
                    && !(node.type === "radio" && document.querySelector(`input[name="${node.name}"][data-tabbed]`)))
  .map((node) => node.outerHTML.slice(0, 120))
"""


def test_everything_on_every_page_is_reached_by_the_tab_key_and_seen_to_be(
    chromium: Browser, pages: tuple[str, list[Address]]
) -> None:
    dashboard, walked = pages
    context = seen(chromium, "light", 1280)
    page = context.new_page()
    sign_in(page, dashboard, make_person("admin"))
    told = []
    for address in walked:
        page.goto(dashboard + address.path)
        page.evaluate("document.body.focus()")
        for pressed in range(min(page.evaluate(REACHABLE) + 30, MOST_TABS)):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            if focused is None:
                break
            if not pressed and "Skip to the content" not in focused["what"]:
                told.append(f"{address.path}: the first stop is {focused['what']}")
            if not focused["ring"]:
                told.append(f"{address.path}: nothing shows that this has the focus: {focused['what']}")
        missed = page.evaluate(MISSED)
        if missed:
            told.append(f"{address.path}: not reached: {missed[:3]}")
    context.close()
    assert not told, "\n".join(dict.fromkeys(told))
