"""Acting on a selection, in a browser: a cause sent again, a list exported, a click done twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.browser import sign_in
from support.desk import DeskDriver, documents
from support.people import make_person
from support.sandbox import SandboxProcess

pytestmark = pytest.mark.browser


@pytest.fixture
def run_id(desk: DeskDriver, sandbox: SandboxProcess) -> int:
    desk.change(max_attempts=1)
    sandbox.configure(invalid_share=0.3, overloaded_share=0.4)
    found = desk.run(documents(30))
    sandbox.configure(invalid_share=0, overloaded_share=0)
    return found


def of_class(desk: DeskDriver, kind: str) -> int:
    return int(desk.scalar("SELECT count(*) FROM items WHERE failure_class = :kind", kind=kind))


def test_a_cause_is_sent_again_and_its_progress_moves_by_itself(
    page: Page, dashboard: str, desk: DeskDriver, run_id: int
) -> None:
    retry, fix = of_class(desk, "retry"), of_class(desk, "fix")
    sign_in(page, dashboard, make_person("operator"))
    page.goto(f"{dashboard}/runs/{run_id}/")
    page.get_by_role("row", name=re.compile("overloaded_error")).get_by_role("link", name="Resubmit").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Resubmit failures of classify #{run_id}?")
    expect(page.get_by_label(re.compile("retry"))).to_be_checked()
    expect(page.get_by_text("Likely cost")).to_be_visible()
    page.get_by_role("button", name=f"Resubmit {retry}").click()
    expect(page.get_by_role("status")).to_contain_text("out again as new attempts")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Resubmission of {retry} failures")
    expect(page.get_by_role("img", name=f"0 of {retry} new attempts settled").first).to_be_visible()

    desk.work_until_over(run_id)
    # Nobody reloads.
    expect(page.get_by_role("img", name=f"{retry} of {retry} new attempts settled").first).to_be_visible()
    page.get_by_role("link", name="Back").click()
    expect(page.get_by_role("heading", name="Sent again")).to_be_visible()
    assert of_class(desk, "fix") == fix


def test_a_double_click_is_one_click(page: Page, dashboard: str, desk: DeskDriver, run_id: int) -> None:
    sign_in(page, dashboard, make_person("operator"))
    page.goto(f"{dashboard}/requests/?class=retry")
    page.get_by_role("link", name="Resubmit the failures that match").click()
    page.get_by_role("button", name="Resubmit").dblclick()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Resubmission of")
    assert desk.scalar("SELECT count(*) FROM resubmissions") == 1
    page.go_back()  # and once more, asked afresh before anything was sent
    page.get_by_role("button", name="Resubmit").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Resubmission of")
    desk.work_until_over(run_id)
    assert desk.scalar("SELECT max(attempts) FROM items") == 2


def test_a_viewer_exports_what_matches(
    page: Page, dashboard: str, desk: DeskDriver, run_id: int, tmp_path: Path
) -> None:
    sign_in(page, dashboard, make_person("viewer"))
    page.goto(f"{dashboard}/requests/?class=fix")
    assert page.get_by_role("link", name="Resubmit").count() == 0
    page.get_by_text("Export").focus()
    page.keyboard.press("Enter")  # by keyboard
    with page.expect_download() as found:
        page.get_by_role("link", name="JSONL").click()
    found.value.save_as(tmp_path / "found.jsonl")
    assert found.value.suggested_filename == "batchdesk-requests.jsonl"
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert len(lines) == of_class(desk, "fix") and {line["class"] for line in lines} == {"fix"}
    page.goto(f"{dashboard}/runs/{run_id}/")
    page.get_by_text("Export").click()
    with page.expect_download() as found:
        page.get_by_role("link", name="CSV").click()
    found.value.save_as(tmp_path / "found.csv")
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 31


def test_the_pages_fit_a_telephone(page: Page, dashboard: str, desk: DeskDriver, run_id: int) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    sign_in(page, dashboard, make_person("operator"))
    one = desk.scalar("SELECT min(id) FROM requests WHERE failure_class = 'retry'")
    page.goto(f"{dashboard}/requests/resubmit?run={run_id}")
    page.get_by_role("button", name="Resubmit").click()
    for path in (
        "/resubmissions/",
        "/resubmissions/1/",
        f"/runs/{run_id}/",
        "/batches/1/",
        f"/requests/{one}/",
        "/requests/?class=fix",
        "/requests/resubmit?class=fix",
        f"/requests/rebuild?run={run_id}",
        f"/requests/reprocess?run={run_id}",
    ):
        page.goto(dashboard + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        for menu in page.get_by_text("Export", exact=True).all():
            menu.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
