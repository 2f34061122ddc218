"""The pages over real runs: what they show, and that nothing a model writes gets out of its text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask import Flask
from PIL import Image
from support.desk import DeskDriver, documents
from support.sandbox import SandboxProcess
from support.visitor import Visitor

from webapp import db
from webapp.batches.states import BatchState, RunState, move_batch, move_run
from webapp.datasets.importing import import_records
from webapp.records.reading import read_records
from webapp.records.record import Record
from webapp.runs import verbs

LONG = 300_000  # bytes of the long answers


class Tags(HTMLParser):
    """What a browser would make of a page: its elements and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def is_harmless(page: str) -> bool:
    """Only our own script by its nonce, no handler, no style, no address elsewhere, no unshowable character."""
    for tag, attributes in Tags(page).found:
        if tag == "script" and not (attributes.get("nonce") and (attributes.get("src") or "").startswith("/static/")):
            return False
        if any(name.startswith("on") or name == "style" for name in attributes):
            return False
        links = [attributes.get(name) or "/" for name in ("href", "src", "action")]
        if any(not link.startswith(("/", "?", "#")) or link.startswith("//") for link in links):
            return False
    return not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", page)


@pytest.fixture
def nasty_run(desk: DeskDriver, sandbox: SandboxProcess) -> int:
    """A run whose answers all give trouble; with a hundred, every kind is among them."""
    sandbox.configure(nasty_share=1, nasty_bytes=LONG)
    return desk.run(documents(100))


def request_ids(desk: DeskDriver) -> Iterator[int]:
    yield from (row.id for row in desk.rows("SELECT id FROM requests ORDER BY id"))


def test_no_answer_gets_out_of_its_text(viewer: Visitor, desk: DeskDriver, nasty_run: int) -> None:
    pages = {request_id: viewer.get(f"/requests/{request_id}/") for request_id in request_ids(desk)}

    for request_id, page in pages.items():
        assert is_harmless(page), request_id
        assert len(page) < 400_000, (request_id, len(page))
    shown = unescape("".join(pages.values()))
    assert "<script>alert('sandbox')</script>" in shown
    assert "\\u0000 and \\u0000" in shown
    assert "\\ud800 alone" in shown
    assert "Only the beginning is shown" in shown
    for path in ("/", "/runs/", "/batches/", "/batches/1/", "/requests/", f"/runs/{nasty_run}/"):
        assert is_harmless(viewer.get(path)), path


def test_an_answer_of_five_megabytes_is_a_small_page_and_a_whole_download(viewer: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(1))
    line = json.loads(desk.scalar("SELECT line::text FROM results"))
    line["result"]["message"]["content"] = [{"type": "text", "text": "<b>long</b> " * 450_000}]
    with db.transaction() as tx:
        text = json.dumps(line)
        db.run(tx, "UPDATE results SET line = CAST(:line AS json), size = :size", line=text, size=len(text))

    page = viewer.get("/requests/1/")
    assert len(page) < 400_000 and is_harmless(page)
    assert "download all 5.4 MB" in page
    assert viewer.open("/requests/1/result.json").data == text.encode()


def test_a_download_is_what_came_byte_for_byte(viewer: Visitor, desk: DeskDriver, nasty_run: int) -> None:
    for request_id in request_ids(desk):
        response = viewer.open(f"/requests/{request_id}/result.json")
        stored = desk.scalar("SELECT line::text FROM results WHERE request_id = :id", id=request_id)
        assert response.data == stored.encode()
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in response.headers["Content-Security-Policy"]
        assert response.mimetype == "application/json"


def test_hostile_keys_names_and_reasons_stay_text(viewer: Visitor, desk: DeskDriver) -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e'\"&"
    run_id = desk.start([{"key": hostile, "text": "alpha"}])
    desk.work_until_over(run_id)
    with db.transaction() as tx:
        db.run(tx, "UPDATE datasets SET name = :name, source = :name", name=hostile)
        db.run(tx, "UPDATE items SET error = :error, failure_class = 'output'", error=hostile)
        db.run(tx, "UPDATE runs SET state = 'paused', reason = :reason, owner = :reason", reason=hostile)
        db.run(tx, "UPDATE batches SET state = 'submit_unknown', reason = :reason, api_id = :reason", reason=hostile)

    for path in ("/", "/runs/", "/runs/1/", "/batches/", "/batches/1/", "/requests/", "/requests/1/"):
        page = viewer.get(path)
        assert is_harmless(page), path
        assert "&lt;img src=x" in page, path


def test_the_request_page_tells_what_was_sent_and_what_came(
    viewer: Visitor, desk: DeskDriver, sandbox: SandboxProcess
) -> None:
    desk.run(documents(1))

    page = unescape(viewer.get("/requests/1/"))
    assert '"text": "Text 0 about beta.' in page  # the subject
    assert '"model": "claude' in page and '"messages": [' in page  # shared and own part as one
    assert '"label": "beta"' in page  # the output
    assert '"type": "succeeded"' in page  # the result
    sent = json.loads(viewer.open("/requests/1/request.json").data)
    assert sent["custom_id"] == sandbox.accepted()[0]["custom_id"]
    assert set(sent["params"]) >= {"model", "max_tokens", "messages"}
    assert json.loads(viewer.open("/requests/1/output.json").data) == {"label": "beta"}
    assert json.loads(viewer.open("/requests/1/subject.json").data)["key"] == "doc-0"


def test_the_run_page_sums_up(viewer: Visitor, desk: DeskDriver, sandbox: SandboxProcess) -> None:
    sandbox.configure(invalid_share=0.3)
    run_id = desk.run(documents(40))
    failed = desk.summary(run_id).errored
    assert 0 < failed < 40

    page = viewer.get(f"/runs/{run_id}/")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert f"40 sent = {40 - failed} succeeded + {failed} errored + 0 cancelled + 0 expired + 0 missing" in text
    assert f'aria-label="40 of 40 subjects settled: {40 - failed} succeeded, {failed} errored"' in page
    assert re.search(rf"fix.*?<b>{failed}</b>", page, re.DOTALL)
    assert "does not add up" not in page
    assert 'title="exactly $' in page
    assert "running" in text and "finished" in text  # the events


def test_attempts_are_shown_in_their_order(viewer: Visitor, desk: DeskDriver, sandbox: SandboxProcess) -> None:
    sandbox.configure(overloaded_share=1)
    run_id = desk.start(documents(1))
    desk.work_until_over(run_id)
    ids = list(request_ids(desk))
    assert len(ids) == 3

    page = viewer.get(f"/requests/{ids[1]}/")
    assert "2 (this one)" in page
    assert f"/requests/{ids[0]}/" in page and f"/requests/{ids[2]}/" in page


def test_an_image_is_shown_and_its_download_holds_it(
    app: Flask, viewer: Visitor, desk: DeskDriver, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(folder / "red.png")
    registry = app.extensions["batchdesk"].registry
    task = registry.task("alt_text")
    with db.transaction() as tx:
        records = (one for one in read_records(folder) if isinstance(one, Record))
        dataset, _ = import_records(tx, records, name="p", source=folder, text_field="text", owner="tester")
        settings = registry.parse_settings(task, {})
        run_id = verbs.start_run(tx, dataset_id=dataset, task=task, settings=settings, owner="tester")
    desk.work_until_over(run_id)

    page = viewer.get("/requests/1/")
    source = next(
        attributes["src"] for tag, attributes in Tags(page).found if tag == "img" and "image" in str(attributes)
    )
    image = viewer.open(str(source))
    assert image.mimetype == "image/png" and image.data.startswith(b"\x89PNG")
    assert image.headers["X-Content-Type-Options"] == "nosniff"
    assert b'"data":"iVBOR' in viewer.open("/requests/1/request.json").data


def test_a_blob_that_is_no_image_is_not_served(viewer: Visitor, desk: DeskDriver) -> None:
    with db.transaction() as tx:
        db.run(
            tx,
            "INSERT INTO blobs (sha256, media_type, size, content) VALUES "
            "(decode(repeat('ab', 32), 'hex'), 'text/html', 8, '<script>'), "
            "(decode(repeat('cd', 32), 'hex'), 'image/svg+xml', 5, '<svg>')",
        )

    for sha256 in ("ab" * 32, "cd" * 32, "00" * 32, "zz" * 32):
        viewer.get(f"/requests/image/{sha256}", 404)


def test_home_names_what_needs_a_person(operator: Visitor, desk: DeskDriver, sandbox: SandboxProcess) -> None:
    sandbox.configure(delay=3600)
    paused, failed, held = (desk.start(documents(2)) for _ in range(3))
    for _ in range(4):
        desk.perform_due()
    with db.transaction() as tx:
        move_run(tx, paused, RunState.PAUSED, actor="submit", reason="The credit is used up.")
        ids = {run: db.scalar(tx, "SELECT id FROM batches WHERE run_id = :run", run=run) for run in (failed, held)}
        db.run(tx, "UPDATE batches SET state = 'submitting' WHERE id = ANY(:ids)", ids=list(ids.values()))
        move_batch(tx, ids[failed], BatchState.FAILED, actor="submit", reason="It cannot be taken.")
        move_batch(tx, ids[held], BatchState.SUBMIT_UNKNOWN, actor="submit", reason="Nobody knows.")

    page = operator.get("/")
    assert "Needs a person" in page
    for words in ("The credit is used up.", "It cannot be taken.", "Nobody knows."):
        assert words in page
    assert f"/runs/{paused}/resume?back=/" in page


def test_home_names_alarms_until_they_are_over(operator: Visitor, desk: DeskDriver, sandbox: SandboxProcess) -> None:
    """I9, I12: nothing came of a batch, or nothing was billed for it, and nobody was told. And what will vanish."""
    sandbox.configure(invalid_share=1)
    desk.run(documents(3))
    sandbox.configure(invalid_share=0)
    free = desk.run(documents(2))
    desk.bill("0", run_id=free)
    sandbox.configure(delay=3600)
    desk.start(documents(4))
    desk.perform_until("in_progress")
    desk.execute("UPDATE batches SET api_created_at = now() - interval '26 days' WHERE state = 'in_progress'")
    page = operator.get("/")
    assert "None of its 3 requests was answered. The first says: invalid_request_error" in page
    assert "all of them together cost nothing" in page
    assert "In 3 days the API no longer has the results" in page

    desk.execute("UPDATE batches SET state_since = now() - interval '30 days', api_created_at = now()")
    desk.execute("UPDATE runs SET state_since = now() - interval '30 days'")
    assert "Needs a person" not in operator.get("/")


NOWHERE = [
    "/runs/999/",
    "/runs/0/",
    "/runs/abc/",
    "/runs/-1/",
    "/runs/1,2/",
    "/runs/99999999999999999999999/",
    "/runs/" + "9" * 5000 + "/",
    "/runs/999/cancel",
    "/batches/999/",
    "/batches/999/cancel",
    "/batches/999/refetch",
    "/requests/999/",
    "/requests/999/request.json",
    "/requests/999/result.json",
    "/requests/1/secrets.json",
    "/requests/image/short",
    "/nowhere",
]


def test_what_does_not_exist_is_not_found(operator: Visitor) -> None:
    for path in NOWHERE:
        page = operator.get(path, 404)
        assert "Not found" in page and "Traceback" not in page, path


def test_an_error_of_ours_is_a_page_without_a_traceback(app: Flask, viewer: Visitor, desk: DeskDriver) -> None:
    with db.transaction() as tx:
        db.run(tx, "ALTER TABLE runs RENAME COLUMN owner TO boss")

    page = viewer.get("/runs/", 500)
    assert "Something broke" in page
    assert "Traceback" not in page and "SELECT" not in page and "owner" not in page


def test_only_what_is_asked_of_an_address_is_done(operator: Visitor) -> None:
    assert "Not possible this way" in operator.send("/runs/").text
    assert operator.open("/runs/1/", "DELETE").status_code in (400, 405)


def test_a_run_is_shown_from_its_first_moment(operator: Visitor, desk: DeskDriver, sandbox: SandboxProcess) -> None:
    sandbox.configure(delay=3600)
    run_id = desk.start(documents(3))
    page = operator.get(f"/runs/{run_id}/")
    assert "The requests are being built" in page and "0 of 3 subjects settled: 3 pending" in page
    assert "of which nothing has been sent" in operator.get(f"/runs/{run_id}/cancel")

    desk.perform_due()
    page = operator.get("/batches/1/")
    assert "Nothing of this batch has been sent yet" in page
    assert "Not answered yet. Its batch is planned." in operator.get("/requests/1/")
    desk.perform_due()
    assert "3</b> pending" in operator.get("/batches/1/")
