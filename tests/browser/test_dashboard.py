"""What an operator does at the dashboard, in a browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from support.browser import sign_in
from support.desk import DeskDriver, documents
from support.people import make_person
from support.sandbox import SandboxProcess

pytestmark = pytest.mark.browser


def test_an_operator_signs_in_sees_a_run_and_sends_its_failures_again(
    page: Page, dashboard: str, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    sandbox.configure(invalid_share=0.5)
    run_id = desk.run(documents(20))
    failed = desk.summary(run_id).errored
    assert failed
    sandbox.configure(invalid_share=0)

    sign_in(page, dashboard, make_person("operator"))
    page.get_by_role("link", name=f"classify #{run_id}").click()
    expect(page.get_by_role("img", name=re.compile(f"{failed} errored")).first).to_be_visible()
    page.get_by_role("link", name="Resubmit failures").click()
    # Failures of class fix are not ticked by themselves.
    expect(page.get_by_role("button", name="Resubmit")).to_be_disabled()
    page.get_by_label(re.compile("fix")).check()
    page.get_by_role("button", name=f"Resubmit {failed}").click()
    expect(page.get_by_role("status")).to_contain_text(f"of run {run_id}")

    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 20
    # Nobody reloads: the bar and the state follow by themselves.
    expect(page.get_by_role("img", name="20 of 20 subjects settled: 20 succeeded")).to_be_visible()
    expect(page.locator("h1 .state")).to_have_text("finished")


def test_a_script_in_an_answer_stays_text(
    page: Page, dashboard: str, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    sandbox.configure(nasty_share=1, nasty_bytes=1000)
    desk.run(documents(60))
    wanted = desk.scalar("SELECT min(request_id) FROM results WHERE line::text LIKE '%<script>%'")
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))

    sign_in(page, dashboard, make_person("viewer"))
    page.goto(f"{dashboard}/requests/{wanted}/")
    expect(page.get_by_role("group", name="Answer")).to_contain_text("<script>alert('sandbox')</script>")
    assert page.locator("script").count() == 1, "our own"
    assert page.locator("img[src=x]").count() == 0
    assert dialogs == []


def test_every_page_fits_a_telephone_and_works_by_keyboard(
    page: Page, dashboard: str, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    sandbox.configure(nasty_share=0.5, nasty_bytes=1000)
    desk.run([*documents(20), {"key": "k" * 200, "text": "alpha"}])
    page.set_viewport_size({"width": 360, "height": 740})
    sign_in(page, dashboard, make_person("admin"))

    for path in (
        "/",
        "/runs/",
        "/runs/1/",
        "/runs/1/resubmit",
        "/batches/",
        "/batches/1/",
        "/requests/",
        "/requests/1/",
    ):
        page.goto(dashboard + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    page.goto(dashboard + "/runs/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("main :focus")).to_have_text("All that fit")


def test_without_scripts_every_page_and_action_works(
    page: Page, dashboard: str, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    sandbox.configure(invalid_share=1)
    run_id = desk.run(documents(2))
    browser = page.context.browser
    assert browser is not None
    plain = browser.new_context(java_script_enabled=False).new_page()
    sign_in(plain, dashboard, make_person("operator"))

    plain.goto(f"{dashboard}/runs/{run_id}/resubmit?class=fix")
    plain.get_by_role("button", name="Resubmit").click()
    expect(plain.get_by_role("status")).to_contain_text("2 failures")
    plain.get_by_role("button", name="Sign out").click()
    expect(plain.get_by_role("heading", name="Sign in")).to_be_visible()
