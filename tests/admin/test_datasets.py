"""Datasets at the dashboard: uploaded, seen before they are imported, imported, refreshed, looked through."""

from __future__ import annotations

import io
import json
import re
import zipfile

import pytest
from PIL import Image as Picture
from support.desk import DeskDriver, documents
from support.uploading import Uploads
from support.visitor import Visitor
from werkzeug.test import TestResponse

from webapp.admin import uploads as pages
from webapp.datasets import uploads

PEOPLE = b"name,id,body\nAnn,a,alpha\nBob,b,beta\nCy,c,gamma\n"
BAD = b"key,text\na,alpha\n,nobody\nb,beta\na,again\n"


def send(person: Visitor, name: str, content: bytes, path: str = "/datasets/new") -> TestResponse:
    response = person.send(path, file=(io.BytesIO(content), name))
    response.request.environ["wsgi.input"].close()  # the client's own copy, on the disk when it is large
    return response


def uploaded(person: Visitor, name: str, content: bytes, path: str = "/datasets/new") -> str:
    """Upload a file; the address of its upload."""
    response = send(person, name, content, path)
    assert response.status_code == 303, response.text
    return str(response.headers["Location"])


def mapped(page: str) -> tuple[str, str]:
    """The key and the text that an import would use."""
    found = re.search(r'name="key" value="([^"]*)"><input type="hidden" name="text" value="([^"]*)"', page)
    assert found, page
    return found[1], found[2]


@pytest.fixture
def sent(desk: DeskDriver) -> Uploads:
    return Uploads(desk)


# -- uploads -------------------------------------------------------------------------------------------------------


def test_a_file_is_seen_before_it_is_imported(operator: Visitor, desk: DeskDriver) -> None:
    at = uploaded(operator, "people.csv", PEOPLE)
    page = operator.get(at)

    assert mapped(page) == ("id", "body")
    assert "alpha" in page and "name: Ann" in page
    assert desk.scalar("SELECT count(*) FROM datasets") == 0
    assert desk.scalar("SELECT count(*) FROM steps") == 0

    told = operator.post(f"{at}import", key="id", text="body", name="The people")
    assert "Its records are being read" in told
    desk.perform_due()
    assert "3 records imported" in operator.get(at)
    (dataset,) = desk.rows("SELECT * FROM datasets")
    assert (dataset.name, dataset.subjects, dataset.text_field, dataset.source) == (
        "The people",
        3,
        "body",
        "people.csv",
    )


def test_another_column_draws_the_preview_anew(operator: Visitor) -> None:
    at = uploaded(operator, "people.csv", PEOPLE)
    page = operator.get(f"{at}?key=name&text=id")

    assert mapped(page) == ("name", "id")
    assert '<span class="key">Ann</span>' in page
    assert mapped(operator.get(f"{at}?key=nonsense&text=%00")) == ("id", "body")


@pytest.mark.parametrize(
    ("name", "content", "mapping"),
    [
        ("a.tsv", b"ID\tText\n1\tx\n", ("ID", "Text")),
        ("a.csv", b"ref;said\n1;x\n", ("ref", "said")),
        ("a.csv", b"one,two,three\n1,2,3\n", ("one", "three")),
        ("a.jsonl", b'{"n":1}\n{"id":"a","content":"x","n":2}\n', ("id", "content")),
    ],
)
def test_the_columns_are_guessed(operator: Visitor, name: str, content: bytes, mapping: tuple[str, str]) -> None:
    assert mapped(operator.get(uploaded(operator, name, content))) == mapping


def test_a_preview_shows_the_first_ten_and_what_is_wrong_with_them(operator: Visitor) -> None:
    page = operator.get(uploaded(operator, "bad.csv", BAD))
    assert "bad.csv, line 3" in page and "its key is empty" in page and "is already that of line 2" in page

    many = b"key,text\n" + b"".join(b"k%d,x\n" % n for n in range(200_000))
    page = operator.get(uploaded(operator, "many.csv", many))
    assert page.count('<span class="key">k') == 10


def test_a_preview_of_a_file_that_cannot_be_read_says_why(operator: Visitor) -> None:
    page = operator.get(uploaded(operator, "a.csv", b"\xff\xfea\0b\0"))
    assert "encoded in UTF-16" in page and "/import" not in page
    page = operator.get(uploaded(operator, "a.zip", b"none"))
    assert "is no ZIP archive" in page


def test_what_is_no_input_is_not_taken(operator: Visitor, desk: DeskDriver) -> None:
    for name, content, words in (
        ("sheet.xlsx", b"PK", "Save the sheet as CSV"),
        ("a.exe", b"MZ", "must end in .csv"),
        ("a.csv", b"", "is empty"),
        ("", b"", "Choose a file first"),
    ):
        response = send(operator, name, content)
        assert response.headers["Location"] == "/datasets/new"
        assert words in operator.get("/datasets/new"), name
    assert desk.scalar("SELECT count(*) FROM uploads") == 0


def test_a_file_may_be_larger_than_a_form_and_not_larger_than_the_limit(
    operator: Visitor, desk: DeskDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"key,text\n" + b"".join(b"k%d,%s\n" % (n, b"x" * 300) for n in range(10_000))
    at = uploaded(operator, "large.csv", large)
    assert desk.scalar("SELECT size FROM uploads") == len(large) > 3_000_000
    assert desk.scalar("SELECT count(*) FROM upload_chunks") == -(-len(large) // uploads.CHUNK_BYTES)
    assert operator.get(at)

    monkeypatch.setattr(pages, "MOST_UPLOADED", 2_000_000)
    response = send(operator, "large.csv", large)
    assert response.status_code == 413
    assert "A file may have 2 MB" in response.text
    too_long_a_form = operator.open("/runs/1/cancel", "POST", data={"x": "y" * 1_500_000})
    assert too_long_a_form.status_code == 413


def test_a_viewer_sees_uploads_and_can_do_nothing_with_them(
    operator: Visitor, viewer: Visitor, desk: DeskDriver
) -> None:
    at = uploaded(operator, "people.csv", PEOPLE)

    page = viewer.get(at)
    assert "alpha" in page and f"{at}import" not in page and "/discard" not in page
    for path in ("/datasets/new", f"{at}discard"):
        viewer.get(path, 403)
    assert send(viewer, "people.csv", PEOPLE).status_code == 403
    for verb in ("import", "apply", "discard"):
        assert viewer.send(f"{at}{verb}").status_code == 403
    assert desk.scalar("SELECT state FROM uploads") == "waiting"


def test_bad_records_are_listed_and_can_be_skipped(operator: Visitor, desk: DeskDriver) -> None:
    at = uploaded(operator, "people.csv", BAD)
    operator.post(f"{at}import", key="key", text="text", name="people")
    desk.perform_due()

    page = operator.get(at)
    assert "2 records cannot be used, so nothing was imported." in page
    assert "people.csv, line 3" in page and "people.csv, line 5" in page
    assert "Skip these 2 and import the rest" in page
    lines = [json.loads(line) for line in operator.get(f"{at}problems.jsonl").splitlines()]
    assert [(line["where"], line["record"]) for line in lines] == [
        ("people.csv, line 3", ",nobody"),
        ("people.csv, line 5", "a,again"),
    ]
    assert all(line["fault"] and line["remedy"] for line in lines)

    operator.post(f"{at}import", key="key", text="text", skip="1")
    desk.perform_due()
    assert "2 records imported" in operator.get(at)
    page = operator.get(f"/datasets/{desk.scalar('SELECT id FROM datasets')}/")
    assert "2 records of" in page and f"{at}problems.jsonl" in page


def test_the_progress_of_an_import_is_told_while_it_goes_on(operator: Visitor, desk: DeskDriver) -> None:
    at = uploaded(operator, "people.csv", PEOPLE)
    operator.post(f"{at}import", key="id", text="body", name="people")
    before = json.loads(operator.get("/live?upload=1&stamp_upload_id=1", Accept="application/json"))
    desk.execute("INSERT INTO upload_progress (upload_id, fetched, records) VALUES (1, 49, 12345)")
    page = operator.get(at)
    live = json.loads(operator.get("/live?upload=1&stamp_upload_id=1", Accept="application/json"))

    assert "12,345" in live["bars"]["upload-1"] and "12,345" in page
    assert before["stamp"] == live["stamp"] and f'data-stamp="{live["stamp"]}"' in page
    desk.perform_due()
    after = json.loads(operator.get("/live?upload=1&stamp_upload_id=1", Accept="application/json"))
    assert after["stamp"] > live["stamp"]


def test_an_upload_can_be_discarded(operator: Visitor, desk: DeskDriver) -> None:
    at = uploaded(operator, "people.csv", PEOPLE)
    assert "people.csv" in operator.get("/datasets/")
    assert "Discard people.csv?" in operator.get(f"{at}discard")

    assert "people.csv is discarded" in operator.post(f"{at}discard")
    assert desk.scalar("SELECT count(*) FROM upload_chunks") == 0
    assert "people.csv" not in operator.get("/datasets/")
    assert "is discarded" in operator.post(f"{at}import", key="id", text="body")


def test_a_zip_shows_its_files_with_thumbnails(operator: Visitor, desk: DeskDriver) -> None:
    at = uploaded(operator, "photos.zip", archive({f"photos/{n:02}.png": image(n) for n in range(12)}))
    page = operator.get(at)

    assert "12 files" in page and page.count(f'src="{at}picture/') == 10
    with operator.open(f"{at}picture/3") as picture:
        assert (picture.status_code, picture.mimetype) == (200, "image/png")
        assert picture.data == image(2)
    operator.get(f"{at}picture/11", 404)

    operator.post(f"{at}import", key="key", text="text", name="photos")
    desk.perform_due()
    assert "12 records imported" in operator.get(at)
    assert "/requests/image/" in operator.get("/datasets/1/")


def test_a_zip_of_texts_shows_their_first_words(operator: Visitor) -> None:
    page = operator.get(uploaded(operator, "docs.zip", archive({"a.txt": b"Hello\n  world", "b/c.md": b"# More"})))
    assert "Hello world" in page and "b/c.md" in page and "# More" in page


@pytest.mark.parametrize("name", ["../../evil.txt", "/etc/evil.txt"])
def test_an_archive_that_reaches_outside_is_shown_to_nobody(operator: Visitor, name: str) -> None:
    page = operator.get(uploaded(operator, "docs.zip", archive({name: b"x"})))
    assert "would land outside its folder" in page and "/import" not in page


def test_what_a_file_holds_is_shown_as_text(operator: Visitor) -> None:
    page = operator.get(uploaded(operator, "<b>.csv", b"key,text,<i>\n<script>1</script>,<script>2</script>,\x1b[0m\n"))
    assert "<script>1" not in page and "<script>2" not in page and "<i>" not in page and "<b>.csv" not in page
    assert "\x1b" not in page


# -- refreshing ----------------------------------------------------------------------------------------------------


def test_a_refresh_shows_what_would_change_and_waits_for_a_yes(
    operator: Visitor, desk: DeskDriver, sent: Uploads
) -> None:
    sent.imported("people.csv", b"key,text\na,alpha\nb,beta\nc,gamma\n")
    at = uploaded(operator, "next.csv", b"key,text\nb,beta two\na,alpha\nd,delta\n", "/datasets/1/refresh")
    assert "as in the dataset" in operator.get(at)
    operator.post(f"{at}import", key="key", text="text")
    desk.perform_due()

    page = operator.get(at)
    assert re.findall(r"<dt>([^<]*)</dt><dd>(\d+)", page) == [
        ("new", "1"),
        ("changed", "1"),
        ("the same", "1"),
        ("not in the file", "1"),
    ]
    assert "<code>d</code>" in page and "Refresh to revision 2" in page
    assert re.search(r'value="kept" checked', page), "adding the day's records takes none away"
    assert desk.scalar("SELECT revision FROM datasets") == 1

    operator.post(f"{at}apply", absent="gone")
    desk.perform_due()
    assert "is at revision 2 with it" in operator.get(at)
    page = operator.get("/datasets/1/")
    assert "1 new, 1 changed, 1 gone" in page
    assert desk.rows("SELECT revision, subjects FROM datasets") == [(2, 3)]


def test_a_refresh_that_changes_nothing_says_so(operator: Visitor, desk: DeskDriver, sent: Uploads) -> None:
    sent.imported("people.csv", b"key,text\na,alpha\n")
    upload = sent.imported("again.csv", b"key,text\na,alpha\n", dataset_id=1)

    page = operator.get(f"/datasets/uploads/{upload.id}/")
    assert "it stays at revision 1" in page and "/apply" not in page
    assert "changes nothing" in operator.post(f"/datasets/uploads/{upload.id}/apply")
    assert desk.scalar("SELECT revision FROM datasets") == 1


# -- looking -------------------------------------------------------------------------------------------------------


def test_the_list_shows_datasets_with_their_last_run_and_finds_them_by_name(
    viewer: Visitor, desk: DeskDriver, sent: Uploads
) -> None:
    assert "No dataset yet" in viewer.get("/datasets/")
    sent.imported("Invoices 2026.csv", b"key,text\na,alpha\n")
    run_id = desk.run(documents(3))

    page = viewer.get("/datasets/")
    assert "Invoices 2026" in page and f"classify #{run_id}" in page and "/datasets/new" not in page
    page = viewer.get("/datasets/?q=voices")
    assert "Invoices 2026" in page and "classify" not in page
    assert "No dataset has this" in viewer.get("/datasets/?q=%25")


def test_a_long_list_goes_on_over_pages(viewer: Visitor, desk: DeskDriver) -> None:
    desk.execute(
        "INSERT INTO datasets (name, source, text_field, created_by) "
        "SELECT 'set ' || n, 'x.csv', 'text', 't' FROM generate_series(1, 120) n"
    )
    page = viewer.get("/datasets/")
    assert "set 120 " in page and "set 70 " not in page
    following = re.search(r'rel="next" href="([^"]*)"', page)
    assert following
    assert "set 70 " in viewer.get(following[1])


def test_a_dataset_leads_to_its_subjects_and_its_runs(operator: Visitor, desk: DeskDriver) -> None:
    run_id = desk.run(documents(60))
    page = operator.get("/datasets/1/")
    assert f"/runs/{run_id}/" in page and "/runs/new?dataset=1" in page and "Imported" not in page

    first = operator.get("/datasets/1/subjects/")
    assert "doc-0<" in first and "doc-49<" in first and "doc-50<" not in first
    following = re.search(r'rel="next" href="([^"]*)"', first)
    assert following
    second = operator.get(following[1].replace("&amp;", "&"))
    assert "doc-50<" in second and "doc-59<" in second and 'rel="next"' not in second
    back = re.search(r'rel="prev" href="([^"]*)"', second)
    assert back and "doc-0<" in operator.get(back[1].replace("&amp;", "&"))


def test_a_subject_is_found_by_how_its_key_begins(viewer: Visitor, sent: Uploads) -> None:
    rows = b"".join(b"%s,x\n" % key for key in (b"a_1", b"ab1", b"A_1", b"b", b"a%1"))
    sent.imported("keys.csv", b"key,text\n" + rows)

    for words, keys in (("a", ["a_1", "ab1", "a%1"]), ("a_", ["a_1"]), ("a%", ["a%1"]), ("b", ["b"]), ("z", [])):
        page = viewer.get(f"/datasets/1/subjects/?q={words.replace('%', '%25')}")
        assert re.findall(r'class="title key"[^>]*>([^<]*)<', page) == keys, words
    assert "No key is or begins" in viewer.get("/datasets/1/subjects/?q=z")


def test_a_subject_shows_its_record_its_revisions_and_all_that_was_asked_of_it(
    viewer: Visitor, desk: DeskDriver, sent: Uploads
) -> None:
    run_id = desk.run([{"key": "a", "text": "alpha"}])
    request = desk.scalar("SELECT id FROM requests")
    sent.refreshed(1, b"key,text\na,alpha two\n")
    new = desk.scalar("SELECT max(id) FROM subjects")

    former = viewer.get("/datasets/1/subjects/1/")
    assert "holds this no more since revision 2" in former and f"/subjects/{new}/" in former
    page = viewer.get(f"/datasets/1/subjects/{new}/")
    assert "alpha two" in page and "/subjects/1/" in page
    assert f"/requests/{request}/" in page and f"classify #{run_id}" in page and "of subject 1" in page
    assert viewer.get(f"/datasets/1/subjects/{new}/data.json") == '{"key":"a","text":"alpha two"}'


def test_what_is_not_there_is_not_found_and_bad_filters_are_told(viewer: Visitor, sent: Uploads) -> None:
    sent.imported("people.csv", b"key,text\na,alpha\n")
    for path in (
        "/datasets/2/",
        "/datasets/x/",
        "/datasets/2/subjects/",
        "/datasets/1/subjects/99/",
        "/datasets/2/subjects/1/",
        "/datasets/1/subjects/99/data.json",
        "/datasets/uploads/99/",
        "/datasets/uploads/99/problems.jsonl",
        "/datasets/uploads/1/picture/1",
        f"/datasets/{10**30}/",
    ):
        viewer.get(path, 404)
    assert "it is a number" in viewer.get("/datasets/1/subjects/?after=x")
    assert "Nothing here" in viewer.get(f"/datasets/1/subjects/?after={10**17}")
    viewer.get("/datasets/1/subjects/?q=%00")
    viewer.get("/datasets/?older=-1&q=" + "x" * 600)


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
