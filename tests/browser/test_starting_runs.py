"""Starting, repeating and scheduling runs, in a browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from support.browser import sign_in
from support.desk import DeskDriver, documents
from support.people import make_person
from support.sandbox import SandboxProcess

pytestmark = pytest.mark.browser


def test_a_run_is_started_from_the_form_and_watched_to_its_end(
    page: Page, dashboard: str, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    desk.run(documents(8), task="summarise")
    sign_in(page, dashboard, make_person("operator"))
    page.get_by_role("link", name="New run").click()
    page.get_by_role("link", name=re.compile("docs #1")).click()
    page.get_by_role("link", name=re.compile("^Classify")).click()
    page.get_by_label("Labels required", exact=True).fill("alpha")
    page.get_by_label("Max tokens", exact=True).fill("300")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("alert")).to_contain_text("at least two labels")
    expect(page.get_by_label("Max tokens", exact=True)).to_have_value("300")
    expect(page.get_by_label("Labels required", exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Labels required", exact=True).fill("alpha\nbeta, and more")
    page.get_by_role("button", name="Preview").click()

    expect(page.get_by_role("heading", name="Start Classify over docs?")).to_be_visible()
    expect(page.get_by_role("group", name="Request of doc-7")).to_contain_text('"max_tokens": 300')
    page.get_by_label("Show the subject with the key").fill("doc-3")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Request of doc-3")).to_contain_text("beta, and more")
    page.get_by_role("button", name="Change settings").click()
    expect(page.get_by_label("Labels required", exact=True)).to_have_value("alpha\nbeta, and more")
    page.get_by_label("Labels required", exact=True).fill("alpha, beta")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Start 8 requests").dblclick()
    expect(page.get_by_role("status")).to_contain_text("Run 2 is started.")

    desk.work_until_over(2)
    assert desk.scalar("SELECT count(*) FROM runs") == 2
    # Nobody reloads: the bar and the state follow by themselves.
    expect(page.get_by_role("img", name="8 of 8 subjects settled: 8 succeeded").first).to_be_visible()
    expect(page.locator("h1 .state")).to_have_text("finished")


def test_only_what_is_older_than_the_settings_is_asked_again(
    page: Page, dashboard: str, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    sandbox.configure(invalid_share=0.5)
    run_id = desk.run(documents(20))
    failed = desk.summary(run_id).errored
    sandbox.configure(invalid_share=0)
    sign_in(page, dashboard, make_person("operator"))
    page.goto(f"{dashboard}/runs/{run_id}/")
    page.get_by_role("link", name="Repeat").click()
    page.get_by_label(re.compile("Only those whose output is older")).check()
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name=f"Start {failed} request").click()
    desk.work_until_over(run_id + 1)
    expect(
        page.get_by_role("img", name=f"{failed} of {failed} subjects settled: {failed} succeeded").first
    ).to_be_visible()

    page.get_by_role("link", name="Schedule", exact=True).click()
    page.get_by_label("Name").fill("Nightly")
    page.get_by_label("Time zone").select_option("Europe/Berlin")
    page.get_by_role("button", name="Show the next times").click()
    expect(page.get_by_role("status")).to_contain_text("The next three times")
    page.get_by_role("button", name="Start the schedule").click()
    expect(page.get_by_role("heading", name="Nightly on")).to_be_visible()
    desk.execute("UPDATE schedules SET next_at = now()")
    desk.hurry()
    desk.perform("repeat", 1)
    # Nobody reloads here either.
    expect(page.get_by_text("Skipped: nothing is new or changed.").first).to_be_visible()


def test_the_pages_fit_a_telephone(page: Page, dashboard: str, desk: DeskDriver, sandbox: SandboxProcess) -> None:
    run_id = desk.run([*documents(3), {"key": "k" * 200, "text": "alpha"}])
    page.set_viewport_size({"width": 360, "height": 740})
    sign_in(page, dashboard, make_person("operator"))

    def fits() -> bool:
        return bool(page.evaluate("document.documentElement.scrollWidth") <= 360)

    for path in (
        "/runs/new",
        "/runs/new?dataset=1",
        f"/runs/new?repeat={run_id}",
        "/schedules/",
        "/schedules/new?repeat=1",
    ):
        page.goto(dashboard + path)
        assert fits(), path
    page.get_by_label("Name").fill("Nightly " * 20)
    page.get_by_role("button", name="Start the schedule").click()
    for path in ("/schedules/", "/schedules/1/", "/schedules/1/delete"):
        page.goto(dashboard + path)
        assert fits(), path
    page.goto(f"{dashboard}/runs/new?repeat={run_id}")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name="What would be sent")).to_be_visible()
    assert fits()
