"""Exports: whole, and exact or safe for spreadsheets."""

from __future__ import annotations

import csv
import io
import json

import pytest
from support.desk import DeskDriver, documents
from support.sandbox import SandboxProcess
from support.visitor import Visitor

from webapp.records.exporting import jsonl_line


@pytest.fixture
def run_id(desk: DeskDriver, sandbox: SandboxProcess) -> int:
    sandbox.configure(invalid_share=0.4)
    return desk.run([*documents(20), {"key": "=1+1", "text": "a formula"}])


def test_the_export_of_a_run_is_that_of_the_command_line(viewer: Visitor, desk: DeskDriver, run_id: int) -> None:
    response = viewer.open(f"/runs/{run_id}/export.jsonl")
    assert response.data == b"".join(map(jsonl_line, desk.outputs(run_id)))
    assert response.headers["Content-Disposition"] == f'attachment; filename="batchdesk-run-{run_id}.jsonl"'
    assert "sandbox" in response.headers["Content-Security-Policy"] and "Content-Length" not in response.headers
    rows = list(csv.DictReader(io.StringIO(viewer.open(f"/runs/{run_id}/export.csv").text)))
    assert len(rows) == 21 and rows[-1]["key"] == "'=1+1"
    assert viewer.open("/runs/99/export.csv").status_code == 404
    assert viewer.open(f"/runs/{run_id}/export.exe").status_code == 404


def test_the_export_of_a_list_holds_what_matches_and_says_where_it_is_from(
    viewer: Visitor, desk: DeskDriver, run_id: int
) -> None:
    lines = [json.loads(one) for one in viewer.open("/requests/export.jsonl?state=errored").text.splitlines()]
    assert len(lines) == desk.summary(run_id).errored > 0
    assert {(one["class"], one["run"], one["batch"], one["attempts"], one["output"]) for one in lines} == {
        ("fix", run_id, 1, 1, None)
    }
    assert all(one["error"] and one["custom_id"] for one in lines)
    whole = viewer.open(f"/requests/export.jsonl?run={run_id}").text.splitlines()
    assert len(whole) == 21
    stored = dict(desk.rows("SELECT r.custom_id, o.value::text FROM outputs o JOIN requests r ON r.id = o.request_id"))
    verbatim = {json.loads(one)["custom_id"]: one for one in whole if '"status":"succeeded"' in one}
    assert all(f'"output":{stored[custom_id]},' in line for custom_id, line in verbatim.items()) and verbatim
    rows = list(csv.DictReader(io.StringIO(viewer.open("/requests/export.csv?q==1%2B1").text)))
    assert [one["key"] for one in rows] == ["'=1+1"]
    assert viewer.open("/requests/export.jsonl?state=canceled").data == b""
    for path in (f"/runs/{run_id}/", "/batches/1/", "/requests/?state=errored"):
        page = viewer.get(path)
        assert "export.jsonl" in page and "export.csv" in page, path


def test_the_export_of_a_list_of_outputs_holds_those_that_fit(viewer: Visitor, desk: DeskDriver, run_id: int) -> None:
    whole = [json.loads(one) for one in viewer.open("/outputs/export.jsonl").text.splitlines()]
    assert len(whole) == desk.scalar("SELECT count(*) FROM outputs") > 1
    alpha = [json.loads(one) for one in viewer.open("/outputs/export.jsonl?text=alpha").text.splitlines()]
    assert alpha == [one for one in whole if "alpha" in json.dumps(one["output"])] and 0 < len(alpha) < len(whole)
    assert viewer.open("/outputs/export.jsonl?state=invalid").data == b""
    assert viewer.open("/outputs/export.csv?state=nonsense").status_code == 400
    page = viewer.get("/outputs/?text=alpha")
    assert "/outputs/export.jsonl?text=alpha" in page and "/outputs/export.csv?text=alpha" in page
