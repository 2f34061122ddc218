"""Every page there is, in a browser: no accessibility violation, nothing wider than a telephone.

With SCREENSHOTS set to a folder, a picture of each page is kept there (`make screenshots`).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page
from support.browser import HEIGHT, seen, sign_in
from support.people import make_person
from support.showcase import Address

pytestmark = pytest.mark.browser

PICTURES = os.environ.get("SCREENSHOTS")
# How a page is seen, one after the other: (colour scheme, width). All four when pictures are taken.
SEEN: tuple[tuple[Literal["light", "dark"], int], ...] = (
    ("light", 1280),
    ("dark", 360),
    *((("dark", 1280), ("light", 360)) if PICTURES else ()),
)
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],  # nothing else is read
}


def test_every_page_passes_axe_and_fits_the_screen(chromium: Browser, pages: tuple[str, list[Address]]) -> None:
    dashboard, walked = pages
    email = make_person("admin")
    told: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and "404" not in message.text and "net::" not in message.text:
            told.append(f"console: {message.text}")

    context = seen(chromium, *SEEN[0])
    page = context.new_page()
    page.on("console", listen)
    told += look(page, dashboard, Address("sign-in", "/login"))
    sign_in(page, dashboard, email)
    for address in walked:
        told += look(page, dashboard, address)
    context.close()
    assert not told, "\n".join(told)


def look(page: Page, dashboard: str, address: Address) -> list[str]:
    """What is wrong with a page, however it is seen: loaded once, for scripts do not ask how wide or dark it is."""
    response = page.goto(dashboard + address.path)
    assert response is not None
    told = [f"{address.path}: status {response.status}"] if response.status >= 500 else []
    page.evaluate(Axe().axe_script)
    for scheme, width in SEEN:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.emulate_media(color_scheme=scheme)
        told += wrong(page, address.path, scheme, width)
    return told


def wrong(page: Page, path: str, scheme: str, width: int) -> list[str]:
    """What is wrong with a page as it is seen now; its picture is kept, if that is wanted."""
    where = f"{path} ({scheme}, {width})"
    told = []
    if PICTURES:
        folder = Path(PICTURES) / f"{scheme}-{width}"
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", path).strip("-") or "home"
        page.screenshot(path=folder / f"{name}.png", full_page=True)
    broad = page.evaluate("document.documentElement.scrollWidth")
    if broad > width:
        told.append(f"{where}: {broad} pixels wide")
    for violation in page.evaluate("rules => axe.run(rules).then(found => found.violations)", RULES):
        nodes = [node["html"][:200] + " | " + _why(node) for node in violation["nodes"][:3]]
        told.append(f"{where}: {violation['id']}: {violation['help']}: {json.dumps(nodes, indent=1)}")
    return told


def _why(node: dict[str, Any]) -> str:
    return "; ".join(check["message"] for kind in ("any", "all", "none") for check in node[kind])[:300]
