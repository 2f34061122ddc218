"""Every page there is, in a browser, by keyboard alone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser
from support.browser import seen, sign_in
from support.people import make_person
from support.showcase import Address

pytestmark = pytest.mark.browser

MOST_TABS = 400

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
