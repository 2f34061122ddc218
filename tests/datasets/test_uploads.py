"""Uploads: what the step `import` makes of them, and how a dataset is refreshed."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture
from support.desk import DeskDriver
from support.uploading import Uploads

from webapp import db
from webapp.batches import leaving
from webapp.batches.steps import StepName
from webapp.datasets import intake, uploads
from webapp.errors import Refused

PEOPLE = b"key,text\na,alpha\nb,beta\nc,gamma\n"
BAD = b"key,text\na,alpha\n,nobody\nb,beta\na,again\n"


@pytest.fixture
def sent(desk: DeskDriver) -> Uploads:
    return Uploads(desk)


def keys(desk: DeskDriver, dataset_id: int) -> list[tuple[str, int, int | None]]:
    """(key, added in, gone in) of all subjects, by position."""
    return [
        tuple(line)
        for line in desk.rows(
            "SELECT key, added_in, gone_in FROM subjects WHERE dataset_id = :id ORDER BY position", id=dataset_id
        )
    ]


def test_a_file_becomes_a_dataset_and_its_bytes_are_gone(desk: DeskDriver, sent: Uploads) -> None:
    upload = sent.imported("people.csv", PEOPLE)

    assert (upload.state, upload.revision, upload.added, upload.problems) == ("imported", 1, 3, 0)
    (dataset,) = desk.rows("SELECT * FROM datasets")
    assert (dataset.id, dataset.name, dataset.source, dataset.subjects) == (
        upload.dataset_id,
        "people",
        "people.csv",
        3,
    )
    assert [key for key, _, _ in keys(desk, dataset.id)] == ["a", "b", "c"]
    assert desk.scalar("SELECT count(*) FROM upload_chunks") == 0
    moves = desk.rows(
        "SELECT from_state, to_state, actor FROM events WHERE target = :id AND kind = 'move' ORDER BY id",
        id=str(upload.id),
    )
    assert [tuple(move) for move in moves] == [("waiting", "importing", "tester"), ("importing", "imported", "worker")]


def test_a_file_of_several_chunks_is_read_whole(desk: DeskDriver, sent: Uploads) -> None:
    lines = b"".join(b'{"key":"k%d","text":"%s"}\n' % (n, b"word " * 300) for n in range(2_000))
    assert len(lines) > 2 * uploads.CHUNK_BYTES

    upload = sent.imported("many.jsonl", lines)
    assert upload.added == 2_000


def test_bad_records_stop_an_import_and_are_listed_with_their_lines(desk: DeskDriver, sent: Uploads) -> None:
    upload = sent.imported("people.csv", BAD)

    assert (upload.state, upload.problems) == ("refused", 2)
    assert upload.reason == "2 records cannot be used, so nothing was imported."
    assert desk.scalar("SELECT count(*) FROM datasets") == 0
    assert desk.scalar("SELECT count(*) FROM subjects") == 0
    problems = desk.rows("SELECT place, fault, remedy, raw FROM upload_problems ORDER BY ordinal")
    assert [(one.place, bytes(one.raw)) for one in problems] == [
        ("people.csv, line 3", b",nobody"),
        ("people.csv, line 5", b"a,again"),
    ]
    assert all("--" not in one.remedy for one in problems)


def test_with_leave_the_rest_is_imported_and_the_bad_ones_stay_listed(desk: DeskDriver, sent: Uploads) -> None:
    refused = sent.imported("people.csv", BAD)
    upload = sent.go_on(refused.id, skip_bad=True)

    assert (upload.state, upload.added, upload.problems) == ("imported", 2, 2)
    assert [key for key, _, _ in keys(desk, upload.dataset_id)] == ["a", "b"]
    assert desk.scalar("SELECT count(*) FROM upload_problems WHERE upload_id = :id", id=upload.id) == 2


def test_only_the_first_problems_are_stored_and_all_are_counted(desk: DeskDriver, sent: Uploads) -> None:
    count = uploads.STORED_PROBLEMS + 7
    upload = sent.imported("people.csv", b"key,text\n" + b",x\n" * count)

    assert upload.problems == count
    assert desk.scalar("SELECT count(*) FROM upload_problems") == uploads.STORED_PROBLEMS


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("people.csv", b"id,text\n1,x\n", 'people.csv has no column "key" (it has "id", "text"); name the columns'),
        ("people.csv", b"\xff\xfek\0e\0y\0", "people.csv: it is encoded in UTF-16"),
        ("docs.zip", b"no archive at all", "docs.zip is no ZIP archive that can be read"),
        ("people.csv", b"key,text\n", "has a header but no records below it"),
    ],
)
def test_a_file_that_is_no_use_is_refused_in_words(
    desk: DeskDriver, sent: Uploads, name: str, content: bytes, words: str
) -> None:
    upload = sent.imported(name, content)

    assert upload.state == "refused"
    assert words in upload.reason
    assert "/" not in upload.reason.replace("CSV/TSV", ""), "our own folder is nobody's business"
    assert "--" not in upload.reason


def test_a_zip_of_images_becomes_a_dataset_of_images(desk: DeskDriver, sent: Uploads) -> None:
    upload = sent.imported("photos.zip", archive({"photos/b.png": image(1), "photos/a.png": image(2)}))

    assert upload.state == "imported", upload.reason
    assert [key for key, _, _ in keys(desk, upload.dataset_id)] == ["a.png", "b.png"]
    assert desk.scalar("SELECT count(*) FROM blobs") == 2
    assert desk.scalar("SELECT DISTINCT kind FROM subjects") == "image"


def test_a_step_that_is_killed_anywhere_makes_the_dataset_once(
    desk: DeskDriver, sent: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the records, before the commit; and after the commit, before the step is given back."""

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    upload_id = sent.store("people.csv", PEOPLE)
    sent.ask(upload_id)
    with monkeypatch.context() as patched:
        patched.setattr(intake, "_settle", die)
        with pytest.raises(Killed):
            desk.perform(StepName.IMPORT, upload_id)
    assert desk.scalar("SELECT count(*) FROM datasets") == 0
    assert desk.scalar("SELECT records FROM upload_progress") == 3, "people see how far it had come"
    desk.lapse()
    desk.perform(StepName.IMPORT, upload_id)
    desk.execute("INSERT INTO steps (step, target_id, due_at) VALUES ('import', :id, now())", id=upload_id)
    desk.perform(StepName.IMPORT, upload_id)
    assert desk.scalar("SELECT count(*) FROM datasets") == 1
    assert desk.scalar("SELECT count(*) FROM steps") == 0


def test_a_worker_that_is_asked_to_end_leaves_the_import_to_another(
    desk: DeskDriver, sent: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = sent.store("people.csv", PEOPLE)
    sent.ask(upload_id)
    real = intake.read_records

    def asked(*arguments: Any, **options: Any) -> Iterator[Any]:
        found = real(*arguments, **options)
        yield next(found)
        leaving.ask()
        yield from found

    with monkeypatch.context() as patched:
        patched.setattr(intake, "read_records", asked)
        desk.perform(StepName.IMPORT, upload_id)
    leaving.stay()
    assert desk.rows("SELECT failures, lease_until FROM steps") == [(0, None)]
    assert desk.scalar("SELECT count(*) FROM subjects") == 0

    desk.perform(StepName.IMPORT, upload_id)
    assert sent.row(upload_id).added == 3


def test_what_a_killed_worker_has_left_in_the_temporary_folder_is_deleted(
    desk: DeskDriver, sent: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "temporary"
    top.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(top))
    with subprocess.Popen(("true",)) as gone:
        gone.wait()
    for name in (f"batchdesk-import-{gone.pid}-a", f"batchdesk-import-{os.getppid()}-b", "of-somebody-else"):
        (top / name).mkdir()
    (top / f"batchdesk-import-{gone.pid}-a" / "large.csv").write_bytes(b"x")

    sent.imported("people.csv", PEOPLE)
    assert {path.name for path in top.iterdir()} == {f"batchdesk-import-{os.getppid()}-b", "of-somebody-else"}


def test_two_workers_at_once_make_the_dataset_once(
    desk: DeskDriver, sent: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one takes over while the first reads; the first is fenced at its end."""
    upload_id = sent.store("people.csv", PEOPLE)
    sent.ask(upload_id)
    real = intake.read_records

    def overtaken(*arguments: Any, **options: Any) -> Iterator[Any]:
        monkeypatch.setattr(intake, "read_records", real)
        desk.lapse()
        desk.perform(StepName.IMPORT, upload_id)
        assert sent.row(upload_id).state == "imported"
        return real(*arguments, **options)

    monkeypatch.setattr(intake, "read_records", overtaken)
    desk.perform(StepName.IMPORT, upload_id)
    assert desk.scalar("SELECT count(*) FROM datasets") == 1
    assert desk.scalar("SELECT count(*) FROM subjects") == 3


def test_an_upload_that_is_over_cannot_be_imported_again(desk: DeskDriver, sent: Uploads) -> None:
    upload = sent.imported("people.csv", PEOPLE)

    with pytest.raises(Refused, match="is imported"):
        sent.ask(upload.id)
    with pytest.raises(Refused, match="is imported"), db.transaction() as tx:
        uploads.discard(tx, upload.id, actor="tester")
    assert desk.scalar("SELECT count(*) FROM steps") == 0


def test_what_nobody_goes_on_with_is_cleared(desk: DeskDriver, sent: Uploads) -> None:
    old, young = sent.store("old.csv", PEOPLE), sent.store("young.csv", PEOPLE)
    desk.execute("UPDATE uploads SET state_since = now() - interval '8 days' WHERE id = :id", id=old)

    sent.imported("other.csv", PEOPLE)
    assert (sent.row(old).state, sent.row(young).state) == ("discarded", "waiting")
    assert desk.rows("SELECT DISTINCT upload_id FROM upload_chunks") == [(young,)]


# -- refreshing ----------------------------------------------------------------------------------------------------

NEXT = b"key,text\nd,delta\nb,beta two\na,alpha\n"  # d is new, b has changed, c is not in it


def test_a_refresh_says_what_is_new_changed_and_not_there_before_anything_changes(
    desk: DeskDriver, sent: Uploads
) -> None:
    dataset = sent.imported("people.csv", PEOPLE).dataset_id
    upload = sent.imported("next.csv", NEXT, dataset_id=dataset)

    assert upload.state == "compared"
    assert (upload.added, upload.changed, upload.same, upload.absent, upload.against) == (1, 1, 1, 1, 1)
    assert upload.examples == {"added": ["d"], "changed": ["b"], "absent": ["c"]}
    assert keys(desk, dataset) == [("a", 1, None), ("b", 1, None), ("c", 1, None)]


@pytest.mark.parametrize(("remove", "of_c", "count"), [(False, None, 4), (True, 2, 3)])
def test_a_refresh_makes_one_revision_of_what_was_confirmed(
    desk: DeskDriver, sent: Uploads, remove: bool, of_c: int | None, count: int
) -> None:
    dataset = sent.imported("people.csv", PEOPLE).dataset_id
    upload = sent.refreshed(dataset, NEXT, remove_absent=remove)

    assert (upload.state, upload.revision) == ("imported", 2)
    assert keys(desk, dataset) == [("a", 1, None), ("b", 1, 2), ("c", 1, of_c), ("d", 2, None), ("b", 2, None)]
    assert desk.rows("SELECT revision, subjects FROM datasets") == [(2, count)]
    assert desk.scalar("SELECT count(*) FROM upload_records") == 0
    assert desk.scalar("SELECT count(*) FROM upload_chunks") == 0


def test_a_record_that_comes_back_is_a_new_subject(desk: DeskDriver, sent: Uploads) -> None:
    dataset = sent.imported("people.csv", PEOPLE).dataset_id
    sent.refreshed(dataset, b"key,text\na,alpha\nb,beta\n", remove_absent=True)
    sent.refreshed(dataset, PEOPLE)

    assert keys(desk, dataset) == [("a", 1, None), ("b", 1, None), ("c", 1, 2), ("c", 3, None)]


def test_a_refresh_that_changes_nothing_makes_no_revision(desk: DeskDriver, sent: Uploads) -> None:
    dataset = sent.imported("people.csv", PEOPLE).dataset_id
    upload = sent.imported("again.csv", b"key,text\nb,beta\na,alpha\n", dataset_id=dataset)

    with pytest.raises(Refused, match="changes nothing"):
        sent.confirm(upload.id)
    assert desk.rows("SELECT revision, subjects FROM datasets") == [(1, 3)]


def test_the_second_of_two_refreshes_at_once_is_compared_with_what_the_first_made(
    desk: DeskDriver, sent: Uploads
) -> None:
    dataset = sent.imported("people.csv", PEOPLE).dataset_id
    first = sent.imported("one.csv", NEXT, dataset_id=dataset)
    second = sent.imported("two.csv", NEXT + b"e,epsilon\n", dataset_id=dataset)
    for one in (first, second):
        with db.transaction() as tx:
            uploads.apply(tx, one.id, remove_absent=False, actor="tester")
    desk.perform_due()

    assert sent.row(first.id).state == "imported"
    again = sent.row(second.id)
    assert (again.state, again.against, again.added, again.changed, again.same) == ("compared", 2, 1, 0, 3)
    assert "refreshed in between" in again.reason
    assert sent.confirm(second.id).revision == 3
    assert [key for key, _, gone in keys(desk, dataset) if gone is None] == ["a", "c", "d", "b", "e"]


def test_a_run_that_is_being_planned_keeps_its_subjects_while_its_dataset_is_refreshed(
    desk: DeskDriver, sent: Uploads
) -> None:
    run_id = desk.start({"key": key, "text": text} for key, text in (("a", "alpha"), ("b", "beta"), ("c", "gamma")))
    dataset = desk.scalar("SELECT dataset_id FROM runs")
    sent.refreshed(dataset, NEXT, remove_absent=True)

    desk.work_until_over(run_id)
    assert [row.key for row in desk.outputs(run_id)] == ["a", "b", "c"]
    assert desk.summary(run_id).succeeded == 3


def test_a_dataset_of_texts_is_not_refreshed_with_images(desk: DeskDriver, sent: Uploads) -> None:
    dataset = sent.imported("people.csv", PEOPLE).dataset_id
    upload = sent.imported("photos.zip", archive({"a.png": image(1)}), dataset_id=dataset)

    assert upload.state == "refused"
    assert "records of kind image" in upload.reason
    assert desk.scalar("SELECT count(*) FROM upload_records") == 0


def test_a_refresh_reads_the_text_where_the_dataset_has_it(desk: DeskDriver, sent: Uploads) -> None:
    dataset = sent.imported("people.csv", PEOPLE).dataset_id
    upload = sent.store("next.csv", b"key,text,body\na,alpha,x\n", dataset_id=dataset)
    sent.ask(upload, text_field="body")
    desk.perform_due()

    assert sent.row(upload).text_field == "text"


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return stream.getvalue()


def image(shade: int) -> bytes:
    stream = io.BytesIO()
    Picture.new("RGB", (8, 8), (shade, shade, shade)).save(stream, "PNG")
    return stream.getvalue()
