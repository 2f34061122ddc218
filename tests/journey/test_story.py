"""The operators' whole story in a real browser, with the real dashboard, worker, clock and API: from a file with bad
rows to an export, and what somebody who may only look sees of it.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.browser import sign_in
from support.desk import DeskDriver
from support.installation import PATIENCE, Command, Installation
from support.sandbox import SandboxProcess

pytestmark = [pytest.mark.journey, pytest.mark.browser]

RECORDS = 120
HARM = "<script>alert('read')</script>"
EMAIL = "admin@example.com"
SOON = PATIENCE * 1000


def people(path: Path) -> Path:
    """A table with a row without a key and one whose key is there already; its texts hold scripts, to be repeated."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["key", "text"])
        rows.writerows([f"doc-{n}", f"Text {n} about {'alpha' if n % 2 else 'beta'}{HARM}."] for n in range(RECORDS))
        rows.writerows([["", "nobody"], ["doc-3", "again"]])
    return path


def test_from_a_file_with_bad_rows_to_an_export(
    shared: Installation, shared_api: SandboxProcess, upped: Command, desk: DeskDriver, page: Page, tmp_path: Path
) -> None:
    base = f"http://127.0.0.1:{shared.port}"
    password = re.search(r"with the password (\S+) \(shown only now\)", upped.err)
    assert password, upped.err
    sign_in(page, base, EMAIL, password[1])

    # A CSV with two bad rows: they are shown with their lines, and left out when that is wanted.
    page.get_by_role("link", name="Datasets").click()
    page.get_by_role("link", name="New dataset").first.click()
    page.get_by_label("File").set_input_files(people(tmp_path / "people.csv"))
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("button", name="Import as shown").click()
    bad = page.get_by_role("group", name="Records that cannot be used")
    for line in (RECORDS + 2, RECORDS + 3):
        expect(bad.get_by_role("rowheader", name=f"people.csv, line {line}")).to_be_visible(timeout=SOON)
    page.get_by_role("button", name="Skip these 2 and import the rest").click()
    page.get_by_role("link", name="Go to the dataset").click(timeout=SOON)

    # A run over it, watched to its end without a reload.
    shared_api.configure(invalid_share=0.2, nasty_share=0.2, nasty_bytes=400, delay=1)
    page.get_by_role("link", name="Start a run").click()
    page.get_by_role("link", name=re.compile("^Summarise")).click()
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("group", name="Request of doc-0")).to_contain_text("Text 0 about beta")
    page.get_by_role("button", name=f"Start {RECORDS} requests").click()
    run = re.search(r"/runs/(\d+)/", page.url)
    assert run, page.url
    page.evaluate("window.kept = true")
    expect(page.locator("h1 .state")).to_have_text("finished", timeout=SOON)
    assert page.evaluate("window.kept"), "nobody reloaded"

    # A failure is opened; its cause is sent again, and the new attempts are watched.
    page.get_by_role("row", name=re.compile("Invalid|invalid")).get_by_role(
        "link", name="Example", exact=True
    ).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("doc-")
    page.go_back()
    shared_api.configure(invalid_share=0, nasty_share=0, delay=0.5)
    failed = desk.scalar("SELECT count(*) FROM items WHERE run_id = :run AND failure_class = 'fix'", run=int(run[1]))
    cause = page.locator("tbody", has=page.get_by_text("fix", exact=True)).get_by_role("row").nth(1)
    of_cause = int(cause.locator("td.num").inner_text())
    cause.get_by_role("link", name="Resubmit").click()
    expect(page.get_by_text("Likely cost")).to_be_visible()
    page.get_by_label(re.compile("fix")).check()
    page.get_by_role("button", name=f"Resubmit {of_cause}").click()
    settled = page.get_by_role("img", name=f"{of_cause} of {of_cause} new attempts settled: {of_cause} succeeded")
    expect(settled.first).to_be_visible(timeout=SOON)
    left = desk.scalar("SELECT count(*) FROM items WHERE run_id = :run AND failure_class = 'fix'", run=int(run[1]))
    assert left == failed - of_cause

    # The export holds each subject once.
    page.goto(f"{base}/runs/{run[1]}/")
    page.get_by_text("Export").click()
    with page.expect_download() as found:
        page.get_by_role("link", name="CSV").click()
    found.value.save_as(tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == [f"doc-{n}" for n in range(RECORDS)]

    _a_viewer_sees_no_action(page, base, int(run[1]), desk)


def _a_viewer_sees_no_action(page: Page, base: str, run_id: int, desk: DeskDriver) -> None:
    page.get_by_role("link", name="Users").click()
    page.get_by_role("link", name="Add a person").click()
    page.get_by_label("Sign-in name").fill("vera@example.com")
    page.get_by_role("radio", name=re.compile("viewer")).check()
    page.get_by_role("button", name="Add", exact=True).click()
    password = page.locator(".password code").inner_text()
    browser = page.context.browser
    assert isinstance(browser, Browser)
    viewer = browser.new_context().new_page()
    dialogs: list[str] = []
    viewer.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    sign_in(viewer, base, "vera@example.com", password)
    viewer.goto(f"{base}/runs/{run_id}/")
    expect(viewer.locator("h1 .state")).to_have_text("finished")
    for name in ("Resubmit", "Cancel", "Rebuild", "Repeat", "Process again"):
        assert viewer.get_by_role("link", name=name).count() == 0, name
    token = viewer.locator("input[name=csrf_token]").first.get_attribute("value")
    for path in (f"/runs/{run_id}/cancel", f"/runs/{run_id}/resubmit", "/requests/resubmit?run=1", "/runs/new"):
        answer = viewer.request.post(base + path, form={"csrf_token": str(token)}, max_redirects=0)
        assert answer.status == 403, path

    # What a model writes stays text: in its answer, and in the output that is made of it.
    wanted = desk.scalar(
        "SELECT r.request_id FROM results r JOIN requests q ON q.id = r.request_id JOIN batches b ON b.id = q.batch_id "
        "JOIN outputs o ON o.request_id = q.id AND o.state = 'ok' "
        "WHERE b.run_id = :run AND r.line::text LIKE '%<script>%' AND o.value::text LIKE '%<script>%' LIMIT 1",
        run=run_id,
    )
    assert wanted is not None, "the sandbox's summaries repeat what they read, scripts and all"
    viewer.goto(f"{base}/requests/{wanted}/")
    expect(viewer.get_by_role("group", name="Answer")).to_contain_text("<script>")
    expect(viewer.get_by_role("group", name="Output")).to_contain_text("<script>")
    assert viewer.locator("script").count() == 1 and dialogs == [], "the script is our own"
    viewer.context.close()
