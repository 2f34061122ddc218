"""Datasets from a source at the dashboard: choose, fill in, import, see what is wrong, refresh with a click."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from support.desk import DeskDriver, documents
from support.visitor import Visitor

from webapp.batches.naming import new_token


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    monkeypatch.setenv("BATCHDESK_FILES", str(allowed))
    (allowed / "docs.csv").write_text("key,text\na,alpha\nb,beta\n")
    return allowed


@pytest.fixture
def ann(person: Callable[[str | None], Visitor]) -> Visitor:
    return person("operator")


def start(ann: Visitor, path: str, **more: str) -> str:
    """Ask for an import of files; the address of its page."""
    fields = {"set-path": path, "set-key_field": "key", "set-text_field": "text", "token": new_token(), "name": "Mine"}
    response = ann.send("/datasets/sources/files", **(fields | more))
    assert response.status_code == 303, response.text
    return str(response.headers["Location"])


def test_a_dataset_is_made_of_a_source_and_refreshed_with_a_click(desk: DeskDriver, ann: Visitor, folder: Path) -> None:
    assert "SQL query" in ann.open("/datasets/sources/").text
    form = ann.open("/datasets/sources/files").text
    assert all(f'name="set-{name}"' in form for name in ("path", "key_field", "text_field"))

    page = start(ann, "docs.csv")
    assert "Waiting for a worker" in ann.open(page).text
    desk.perform_due()
    assert "2 records imported as" in ann.open(page).text

    dataset = ann.open("/datasets/1/").text
    assert "Mine" in dataset and "docs.csv" in dataset and "Refresh from its source" in dataset
    (folder / "docs.csv").write_text("key,text\na,changed\nc,gamma\n")
    response = ann.send("/datasets/1/source", token=new_token())
    desk.perform_due()
    compared = ann.open(response.headers["Location"]).text
    assert "What would change" in compared and "not there any more" in compared
    assert "Refresh to revision 2" in compared


def test_a_refused_import_says_why_and_can_be_read_again_or_with_other_settings(
    desk: DeskDriver, ann: Visitor, folder: Path
) -> None:
    (folder / "bad.csv").write_text("key,text\na,alpha\n,nobody\n")
    page = start(ann, "bad.csv")
    desk.perform_due()
    told = ann.open(page).text
    assert "bad.csv, line 3" in told and "Skip this 1 and import the rest" in told
    link = re.search(r'href="(/datasets/sources/files\?upload=1)"', told)
    assert link and 'value="bad.csv"' in ann.open(link[1]).text

    (folder / "bad.csv").write_text("key,text\na,alpha\n")
    assert ann.send("/datasets/uploads/1/import", text="text").status_code == 303
    desk.perform_due()
    assert "1 record imported as" in ann.open(page).text


def test_bad_settings_come_back_with_the_form(ann: Visitor, desk: DeskDriver) -> None:
    response = ann.send(
        "/datasets/sources/sql_query", **{"set-database": "postgresql://me:hunter2@host/", "token": new_token()}
    )
    assert response.status_code == 200
    assert "Write env:NAME" in response.text and "Is required" in response.text
    assert "hunter2" not in response.text
    assert desk.scalar("SELECT count(*) FROM uploads") == 0


def test_a_double_click_makes_one_import(desk: DeskDriver, ann: Visitor, folder: Path) -> None:
    token = new_token()
    assert start(ann, "docs.csv", token=token) == start(ann, "docs.csv", token=token)


def test_what_is_not_there_is_not_found(ann: Visitor, desk: DeskDriver) -> None:
    assert ann.open("/datasets/sources/nonsense").status_code == 404
    assert ann.open("/datasets/sources/files?dataset=99").status_code == 404
    assert ann.open("/datasets/sources/files?dataset=x").status_code == 200
    for path in ("/datasets/99/source", "/datasets/of-run/99"):
        assert ann.send(path, token=new_token()).status_code == 404
        assert ann.send(path).status_code == 404, "what is not there comes before what the form lacks"
    run_id = desk.start(documents(1))
    for path in ("/datasets/1/source", f"/datasets/of-run/{run_id}"):
        assert ann.send(path).status_code == 400, "it is there, and the form lacks its token"


def test_a_dataset_is_made_of_the_outputs_of_a_run(desk: DeskDriver, ann: Visitor) -> None:
    run_id = desk.run(documents(3))
    assert "Make a dataset of its outputs" in ann.open(f"/runs/{run_id}/").text
    response = ann.send(f"/datasets/of-run/{run_id}", token=new_token())
    desk.perform_due()
    assert "3 records imported as" in ann.open(response.headers["Location"]).text
    made = ann.open("/datasets/2/").text
    assert f"run #{run_id}" in made and "Refresh from its run" in made


def test_a_file_refreshes_a_dataset_of_a_source_no_differently(desk: DeskDriver, ann: Visitor, folder: Path) -> None:
    start(ann, "docs.csv")
    desk.perform_due()
    assert "Refresh with a file" in ann.open("/datasets/1/").text
    assert ann.open("/datasets/1/refresh").status_code == 200


def test_viewers_see_where_a_dataset_comes_from_and_no_button(
    app: Flask, desk: DeskDriver, ann: Visitor, person: Callable[[str | None], Visitor], folder: Path
) -> None:
    start(ann, "docs.csv")
    desk.perform_due()
    seen = person("viewer").open("/datasets/1/").text
    assert "docs.csv" in seen and "Refresh from its source" not in seen and "other settings" not in seen
