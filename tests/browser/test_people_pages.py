"""What admins and people do about who may sign in, in a browser."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from support.browser import sign_in
from support.desk import DeskDriver, documents
from support.people import make_person

from webapp.admin import tries

pytestmark = pytest.mark.browser


def fresh(page: Page, **options: bool) -> Page:
    """A window of somebody else."""
    browser = page.context.browser
    assert isinstance(browser, Browser)
    return browser.new_context(**options).new_page()  # type: ignore[arg-type]


def test_a_person_is_added_signs_in_and_takes_another_password(page: Page, dashboard: str, desk: DeskDriver) -> None:
    sign_in(page, dashboard, make_person("admin"))
    page.get_by_role("link", name="Users").click()
    page.get_by_role("link", name="Add a person").click()
    page.get_by_label("Sign-in name").fill("ann@example.com")
    page.get_by_role("radio", name=re.compile("acts on runs and batches")).check()
    page.get_by_role("button", name="Add", exact=True).click()
    password = page.locator(".password code").inner_text()
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("ann@example.com")
    assert password not in page.content()

    other = fresh(page)
    sign_in(other, dashboard, "ann@example.com", password)
    other.get_by_role("link", name="ann@example.com").click()
    other.get_by_role("link", name="Change password").click()
    other.get_by_label("Your password now").fill(password)
    other.get_by_label("The new one", exact=True).fill("a fine long one")
    other.get_by_label("The new one again").fill("a fine long one")
    other.get_by_role("button", name="Change it").click()
    expect(other.get_by_role("status")).to_contain_text("Your password is changed")

    page.reload()
    page.get_by_role("link", name="Deactivate").click()
    page.get_by_role("button", name="Deactivate").click()
    expect(page.get_by_role("status")).to_contain_text("ann@example.com is deactivated")
    other.reload()
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_locked_name_is_told_so_and_unlocked_without_scripts(page: Page, dashboard: str, desk: DeskDriver) -> None:
    name = make_person("viewer", "bob")
    for _ in range(10):
        tries.charge(name, "127.0.0.1")
    plain = fresh(page, java_script_enabled=False)
    plain.goto(dashboard)
    plain.get_by_label("Name or e-mail").fill(name)
    plain.get_by_label("Password").fill("x")
    plain.get_by_role("button", name="Sign in").click()
    expect(plain.get_by_role("alert")).to_contain_text("Too many wrong tries. Wait 15 minutes")

    admin = fresh(page, java_script_enabled=False)
    sign_in(admin, dashboard, make_person("admin"))
    admin.goto(f"{dashboard}/users/")
    admin.get_by_role("row", name=name).get_by_role("link").click()
    admin.get_by_role("button", name="Unlock").click()
    expect(admin.get_by_role("status")).to_contain_text("locked nowhere")
    sign_in(plain, dashboard, name)


PAGES = ("/users/", "/users/1/", "/users/2/", "/users/add", "/users/1/deactivate", "/users/2/password", "/account/",
         "/account/password", "/events/", "/events/?kind=sign_in&since=2026-01-01", "/events/?who=nobody")  # fmt: skip


def test_the_pages_of_people_are_for_everybody(page: Page, dashboard: str, desk: DeskDriver) -> None:
    """No violation that axe finds, by day and by night; and nothing wider than a telephone."""
    desk.run(documents(3))
    sign_in(page, dashboard, make_person("admin"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        for path in PAGES:
            page.set_viewport_size({"width": 1280, "height": 800})
            page.goto(dashboard + path)
            found = Axe().run(page)
            assert found.violations_count == 0, (scheme, path, found.generate_report())
            page.set_viewport_size({"width": 360, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


def test_events_are_narrowed_by_keyboard_alone(page: Page, dashboard: str, desk: DeskDriver) -> None:
    desk.run(documents(2))
    sign_in(page, dashboard, make_person("viewer"))
    page.goto(f"{dashboard}/events/")
    page.get_by_label("Run").focus()
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"[?&]run=1(&|$)"))
    expect(page.get_by_role("row").nth(1)).to_contain_text("finished")
    expect(page.get_by_role("group", name="Events")).not_to_contain_text("Signed in.")
