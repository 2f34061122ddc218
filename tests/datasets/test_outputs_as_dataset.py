"""The outputs of a run become a dataset: those that are of use, each with the record it is about, to the letter."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image as Picture
from support.desk import DeskDriver, documents
from support.sandbox import Sandbox
from support.uploading import Uploads

from webapp import wishes
from webapp.batches.naming import new_token
from webapp.batches.reprocessing import Which
from webapp.errors import NotFound
from webapp.records.jsontext import loads


def outputs_of(desk: DeskDriver, run_id: int) -> int:
    """Make a dataset; the id of its import."""
    upload_id = wishes.ask_outputs(run_id, actor="ann", token=new_token())
    desk.perform_due()
    return upload_id


def test_usable_outputs_become_records_and_the_others_are_left_out(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(invalid_share=0.3, errored_share=0.2)
    run_id = desk.run(documents(30))
    usable = {row.key: row.output_json for row in desk.outputs(run_id) if row.status == "succeeded"}
    assert 0 < len(usable) < 30

    upload = Uploads(desk).row(outputs_of(desk, run_id))
    assert (upload.state, upload.added, upload.name) == ("imported", len(usable), f"Outputs of run {run_id} (classify)")
    (dataset,) = desk.rows("SELECT * FROM datasets WHERE id = :id", id=upload.dataset_id)
    assert (dataset.source_name, dataset.subjects, dataset.text_field) == (f"run:{run_id}", len(usable), "output")
    found = desk.rows(
        "SELECT key, kind, position, size, content_hash, data::text AS data FROM subjects WHERE dataset_id = :id "
        "ORDER BY position",
        id=upload.dataset_id,
    )
    assert [one.position for one in found] == list(range(len(usable)))
    records = {one["key"]: one for one in documents(30)}
    for one in found:
        data = loads(one.data)
        assert one.kind == "output" and data["record"] == records[one.key]
        assert data["output"] == loads(usable[one.key] or "")
        assert (data["run"], data["task"], data["model"]) == (run_id, "classify", "claude-haiku-5-5")
        assert one.size == len(one.data.encode())
        assert bytes(one.content_hash) == hashlib.sha256(one.data.encode()).digest()


def test_records_stay_to_the_letter_and_images_go_along(desk: DeskDriver, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Picture.new("RGB", (8, 8), (1, 2, 3)).save(folder / "a.png")
    run_id = desk.start_folder(folder, "alt_text")
    desk.work_until_over(run_id)
    outputs_of(desk, run_id)
    (made,) = desk.rows("SELECT image, data::text AS data FROM subjects WHERE kind = 'output'")
    (first,) = desk.rows("SELECT image, data::text AS data FROM subjects WHERE kind = 'image'")
    assert bytes(made.image) == bytes(first.image) and made.data.startswith(f'{{"record":{first.data},"output":')


def test_a_dataset_of_outputs_is_refreshed_when_there_are_more(desk: DeskDriver, sandbox: Sandbox) -> None:
    sandbox.configure(errored_share=1.0)
    run_id = desk.start(documents(4))
    desk.work_until_over(run_id)
    sandbox.configure(errored_share=0)
    upload_id = outputs_of(desk, run_id)
    sent = Uploads(desk)
    assert "no output that is of use" in sent.row(upload_id).reason

    wishes.ask_rebuild(run_id, None, {"labels": "alpha,beta"}, actor="ann", token=new_token())
    child = desk.scalar("SELECT max(id) FROM runs")
    desk.work_until_over(child)
    dataset_id = sent.row(outputs_of(desk, child)).dataset_id
    wishes.ask_reprocess(child, Which.ALL, version="1", actor="ann")
    desk.perform_due()
    again = wishes.ask_source_again(dataset_id, actor="ann", token=new_token())
    desk.perform_due()
    row = sent.row(again)
    assert (row.state, row.added, row.changed, row.same, row.absent) == ("compared", 0, 0, 4, 0)


def test_a_run_that_is_not_there_has_no_outputs(desk: DeskDriver) -> None:
    with pytest.raises(NotFound, match="no run 7"):
        wishes.ask_outputs(7, actor="ann", token=new_token())
