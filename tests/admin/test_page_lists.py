"""Lists: filters, searches and pages, and that none of them counts or reads more than it must."""

from __future__ import annotations

import re

import pytest
from support.desk import DeskDriver, documents
from support.sandbox import SandboxProcess
from support.visitor import Visitor

from webapp.admin import looking


def ids(page: str, noun: str) -> list[int]:
    """The rows of a list, in its order."""
    return [int(found) for found in re.findall(rf'<a class="title[^"]*" href="/{noun}/(\d+)/"', page)]


@pytest.fixture
def mixed(desk: DeskDriver, sandbox: SandboxProcess) -> None:
    """Run 1 with failures of two kinds, run 2 with none; two batches each."""
    sandbox.configure(invalid_share=0.4)
    desk.run(documents(60))
    sandbox.configure(invalid_share=0)
    desk.run([*documents(30), {"key": "needle", "text": "alpha"}])


def test_requests_are_filtered_by_state_class_run_and_batch(viewer: Visitor, desk: DeskDriver, mixed: None) -> None:
    def expected(where: str) -> list[int]:
        found = desk.rows(
            f"SELECT r.id FROM requests r JOIN batches b ON b.id = r.batch_id WHERE {where} ORDER BY r.id DESC LIMIT 50"
        )
        return [row.id for row in found]

    cases = {
        "": "true",
        "state=errored": "r.state = 'errored'",
        "state=errored&class=fix": "r.failure_class = 'fix'",
        "class=retry": "r.failure_class = 'retry'",
        "run=1": "b.run_id = 1",
        "run=1&state=errored": "b.run_id = 1 AND r.state = 'errored'",
        "run=2&class=fix": "b.run_id = 2 AND r.failure_class = 'fix'",
        "batch=1": "b.id = 1",
        "batch=1&state=succeeded": "b.id = 1 AND r.state = 'succeeded'",
        "batch=1&run=2": "b.id = 1 AND b.run_id = 2",
    }
    for query, where in cases.items():
        assert ids(viewer.get(f"/requests/?{query}"), "requests") == expected(where), query


def test_answers_that_are_no_use_are_found_by_their_class(
    viewer: Visitor, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    sandbox.configure(nasty_share=1, nasty_bytes=1000)
    run_id = desk.run(documents(40))
    invalid = {row.request_id for row in desk.rows("SELECT request_id FROM outputs WHERE state = 'invalid'")}
    assert invalid

    for query in ("class=output", f"class=output&run={run_id}"):
        assert set(ids(viewer.get(f"/requests/?{query}"), "requests")) == invalid


def test_a_request_is_found_by_key_and_by_custom_id(viewer: Visitor, desk: DeskDriver, mixed: None) -> None:
    row = desk.rows(
        "SELECT r.id, r.custom_id FROM requests r JOIN items i ON i.id = r.item_id "
        "JOIN subjects s ON s.id = i.subject_id WHERE s.key = 'needle'"
    )[0]

    subject, token, _ = row.custom_id.split("-")
    for words in ("needle", row.custom_id, f"{subject}-{token[:4]}", f"{subject}-"):
        assert ids(viewer.get("/requests/?q=" + words), "requests") == [row.id], words
    assert ids(viewer.get("/requests/?run=1&q=needle"), "requests") == []
    assert len(ids(viewer.get("/requests/?q=doc-1"), "requests")) == 2, "one of each run"
    assert "No request fits" in viewer.get("/requests/?q=doc-")


def test_pages_lead_through_every_row_once_and_back(viewer: Visitor, desk: DeskDriver, mixed: None) -> None:
    walked: list[int] = []
    path, pages = "/requests/", []
    while path:
        page = viewer.get(path)
        pages.append(path)
        walked += ids(page, "requests")
        found = re.search(r'rel="next" href="([^"]+)"', page)
        path = found[1].replace("&amp;", "&") if found else ""
    assert walked == [row.id for row in desk.rows("SELECT id FROM requests ORDER BY id DESC")]
    assert len(pages) == 2

    page = viewer.get(pages[-1])
    newer = re.search(r'rel="prev" href="([^"]+)"', page)
    assert newer
    assert ids(viewer.get(newer[1]), "requests") == walked[:50]
    assert ids(viewer.get("/requests/?newer=0"), "requests") == walked[-50:]


def test_a_filter_over_everything_stops_after_its_window_and_goes_on_when_asked(
    viewer: Visitor, desk: DeskDriver, mixed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "WINDOW", 20)
    wanted = [row.id for row in desk.rows("SELECT id FROM requests WHERE state = 'errored' ORDER BY id DESC")]

    walked: list[int] = []
    path = "/requests/?state=errored"
    for _ in range(10):
        page = viewer.get(path)
        walked += ids(page, "requests")
        found = re.search(r'<a href="([^"]+)">Look further</a>', page)
        if not found:
            break
        path = found[1].replace("&amp;", "&")
    assert walked == wanted


def test_runs_and_batches_are_filtered(viewer: Visitor, desk: DeskDriver, mixed: None) -> None:
    desk.start(documents(1), task="summarise")
    assert ids(viewer.get("/runs/"), "runs") == [3, 2, 1]
    assert ids(viewer.get("/runs/?state=finished"), "runs") == [2, 1]
    assert ids(viewer.get("/runs/?task=summarise"), "runs") == [3]
    assert ids(viewer.get("/runs/?task=summarise&state=finished"), "runs") == []

    batches = desk.rows("SELECT id, run_id, api_id FROM batches ORDER BY id DESC")
    assert ids(viewer.get("/batches/?state=done"), "batches") == [row.id for row in batches]
    assert ids(viewer.get("/batches/?run=2"), "batches") == [row.id for row in batches if row.run_id == 2]
    assert ids(viewer.get(f"/batches/?q={batches[0].api_id}"), "batches") == [batches[0].id]
    assert "No batch fits" in viewer.get("/batches/?state=planned")


BAD = [
    "/runs/?state=flying",
    "/runs/?task=nothing",
    "/runs/?older=abc",
    "/runs/?newer=-1",
    "/runs/?older=" + "9" * 400,
    "/runs/1/?before=x",
    "/batches/?state=%00",
    "/batches/?run=1.5",
    "/batches/?q=" + "x" * 2000,
    "/requests/?batch=²",
    "/requests/?run=1%27%20OR%201=1",
    "/requests/?q=%00",
    "/requests/?class=<script>",
    "/requests/?from=<script>",
    "/requests/?error=%00",
    "/requests/?cause=" + "x" * 2000,
    "/requests/?sort=<script>",
    "/runs/?owner=nobody",
    "/batches/?account=7",
    "/outputs/?state=errored",
    "/outputs/?text=%00",
    "/outputs/?run=x",
]


def test_a_filter_that_makes_no_sense_is_left_out_with_a_sentence(viewer: Visitor, desk: DeskDriver) -> None:
    desk.start(documents(1))

    for path in BAD:
        page = viewer.get(path)
        assert "It was left out." in page and "<script>" not in page, path
