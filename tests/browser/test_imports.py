"""What an operator does with files at the dashboard, in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.browser import sign_in
from support.desk import DeskDriver
from support.people import make_person
from support.uploading import Uploads

pytestmark = pytest.mark.browser

PEOPLE = "Name,Ref,Body\nAnn,a,alpha\nNobody,,nothing\nBob,b,beta\nAgain,a,twice\nCy,c,gamma\n"
NEXT = "Name,Ref,Body\nBob,b,beta two\nAnn,a,alpha\nDee,d,delta\n"


def test_an_operator_imports_a_file_with_two_bad_rows_and_refreshes_it(
    page: Page, dashboard: str, desk: DeskDriver, tmp_path: Path
) -> None:
    people, following = tmp_path / "people.csv", tmp_path / "next.csv"
    people.write_text(PEOPLE)
    following.write_text(NEXT)
    sign_in(page, dashboard, make_person("operator"))

    page.get_by_role("link", name="Datasets").click()
    page.get_by_role("link", name="New dataset").first.click()
    page.get_by_label("File").set_input_files(people)
    page.get_by_role("button", name="Upload").click()

    # The columns are guessed; choosing another draws the preview anew, without a click.
    rows = page.get_by_role("group", name="The first records")
    key = page.get_by_label(re.compile("^Key"))
    expect(page.get_by_label(re.compile("^Text"))).to_have_value("Body")
    page.wait_for_load_state()  # until then no script hears of the choice
    key.select_option("Name")
    expect(rows.get_by_role("rowheader", name="Nobody")).to_be_visible()
    page.wait_for_load_state()
    key.select_option("Ref")
    expect(rows).to_contain_text("people.csv, line 3")
    page.get_by_label("Name of the dataset").fill("The people")
    page.get_by_role("button", name="Import as shown").click()
    expect(page.get_by_text("Its records are being read")).to_be_visible()

    # Nobody reloads: what came of it is told by itself.
    desk.perform_due()
    expect(page.get_by_text("2 records cannot be used, so nothing was imported.").first).to_be_visible()
    bad = page.get_by_role("group", name="Records that cannot be used")
    expect(bad.get_by_role("rowheader", name="people.csv, line 3")).to_be_visible()
    expect(bad.get_by_role("rowheader", name="people.csv, line 5")).to_be_visible()
    page.get_by_role("button", name="Skip these 2 and import the rest").click()
    desk.perform_due()
    page.get_by_role("link", name="Go to the dataset").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("The people")
    expect(page.get_by_role("link", name="Start a run")).to_have_attribute(
        "href", re.compile(r"/runs/new\?dataset=\d+")
    )

    page.get_by_role("link", name="Refresh").click()
    page.get_by_label("File").set_input_files(following)
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("button", name="Compare with the dataset").click()
    desk.perform_due()
    changes = page.locator(".changes")
    for words in (r"new\s*1\s*d", r"changed\s*1\s*b", r"the same\s*1", r"not in the file\s*1\s*c"):
        expect(changes).to_contain_text(re.compile(words))
    expect(page.get_by_label(re.compile("are kept"))).to_be_checked()
    page.get_by_label(re.compile("are gone")).check()
    page.get_by_role("button", name="Refresh to revision 2").click()
    desk.perform_due()
    page.get_by_role("link", name="Go to the dataset").click()
    expect(page.get_by_text("1 new, 1 changed, 1 gone")).to_be_visible()
    assert desk.rows("SELECT key FROM subjects WHERE gone_in IS NULL ORDER BY key") == [("a",), ("b",), ("d",)]


def test_the_pages_of_datasets_fit_a_telephone_and_work_without_scripts(
    page: Page, dashboard: str, desk: DeskDriver
) -> None:
    sent = Uploads(desk)
    waiting = sent.store("waiting.csv", b"key,text,more\n" + b"k" * 200 + b",alpha," + b"x" * 300 + b"\n")
    sent.imported("people.csv", b"key,text\n" + b"k" * 200 + b",alpha\nb,beta\n")
    refused = sent.imported("bad.csv", b"key,text\n," + b"y" * 200 + b"\n")
    compared = sent.imported("next.csv", b"key,text\nc," + b"z" * 200 + b"\n", dataset_id=1)
    browser = page.context.browser
    assert browser is not None
    plain = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 740}).new_page()
    sign_in(plain, dashboard, make_person("operator"))

    for path in (
        "/datasets/",
        "/datasets/new",
        "/datasets/1/",
        "/datasets/1/refresh",
        "/datasets/1/subjects/",
        "/datasets/1/subjects/1/",
        *(f"/datasets/uploads/{one}/" for one in (waiting, refused.id, compared.id)),
        f"/datasets/uploads/{waiting}/discard",
    ):
        plain.goto(dashboard + path)
        widest = plain.locator("body > main").bounding_box()
        assert widest is not None and widest["width"] <= 360, path
        assert plain.locator("h1").count() == 1, path

    plain.goto(f"{dashboard}/datasets/uploads/{waiting}/")
    plain.get_by_label(re.compile("^Key")).select_option("more")
    plain.get_by_role("button", name="Show it so").click()
    expect(plain.get_by_label(re.compile("^Key"))).to_have_value("more")
    plain.get_by_role("button", name="Import as shown").click()
    desk.perform_due()
    plain.reload()
    expect(plain.get_by_text("1 record imported")).to_be_visible()
