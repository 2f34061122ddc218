"""One batch from click to result in a real browser, with the real dashboard, worker, clock and API."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from support.browser import sign_in
from support.desk import DeskDriver, documents
from support.installation import PATIENCE, Command, Installation
from support.sandbox import SandboxProcess

pytestmark = [pytest.mark.journey, pytest.mark.browser]

RECORDS = 200
EMAIL = "admin@example.com"


def password_of(up: Command) -> str:
    """The first admin's, as `batchdesk up` shows it once."""
    found = re.search(r"with the password (\S+) \(shown only now\)", up.err)
    assert found, up.err
    return found[1]


def test_failures_are_seen_resubmitted_and_watched_to_their_end(
    shared: Installation,
    shared_api: SandboxProcess,
    upped: Command,
    desk: DeskDriver,
    page: Page,
) -> None:
    shared_api.configure(invalid_share=0.1)
    done = shared.classify(shared.write("docs.jsonl", documents(RECORDS)))
    assert done.status == 3, done.err
    failed, run = done.summary["errored"], str(done.summary["run"])
    shared_api.configure(invalid_share=0, delay=2)
    run_page = re.compile(rf"/runs/{run}/?$")

    sign_in(page, f"http://127.0.0.1:{shared.port}", EMAIL, password_of(upped))
    page.goto(f"http://127.0.0.1:{shared.port}/runs/")
    page.get_by_role("link", name=f"classify #{run}").click()
    expect(page).to_have_url(run_page)
    page.get_by_role("link", name="Example", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("doc-")
    expect(page.get_by_text("Output blocked by content filtering policy").first).to_be_visible()

    page.go_back()
    page.get_by_role("link", name="Resubmit failures").click()
    # A request that the API finds invalid will fail the same way again: that class is not ticked beforehand.
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Resubmit").click()
    expect(page).to_have_url(run_page)
    expect(page.get_by_text(f"{failed} failures of run {run} go out again")).to_be_visible()

    # The page follows by itself, without a reload.
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("finished", ignore_case=True, timeout=PATIENCE * 1000)
    expect(page.get_by_role("link", name="Resubmit failures")).to_have_count(0)
    again = shared.run("status", run, "--json")
    assert again.summary["succeeded"] == RECORDS
