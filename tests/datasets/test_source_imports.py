"""Imports from a plugin's source: what comes in, what is refused in which words, and what a killed worker leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture
from support.desk import DeskDriver
from support.uploading import Uploads

from webapp import PLUGINS, db, wishes
from webapp.batches import leaving
from webapp.batches.naming import new_token
from webapp.datasets import sourcing, uploads
from webapp.errors import BadSettings, InputError, NotFound, Refused
from webapp.hooks import load_plugins

SOURCE = """
import os, time
from pydantic import BaseModel
from webapp.hooks import InputError, Record, Secret, Source, hookimpl


class Few(BaseModel):
    count: int = 3
    odd: str = "pass"
    password: Secret = "env:NOT_THERE"


class Numbers(Source[Few]):
    name = "numbers"
    Settings = Few

    def records(self, settings):
        for n in range(settings.count):
            scope = dict(globals(), n=n, record=Record(f"k{n}", {"text": f"Number {n}", "n": n}))
            exec(settings.odd, scope)
            yield scope["record"]


class Leads(Numbers):
    name = "leads"
    kind = "lead"
    text_field = "about"


@hookimpl
def register_sources():
    return [Numbers(), Leads()]
"""


@pytest.fixture
def source(desk: DeskDriver, tmp_path: Path) -> None:
    desk.use_plugin(tmp_path / "plugins", SOURCE)


@pytest.fixture
def sent(desk: DeskDriver) -> Uploads:
    return Uploads(desk)


def ask(name: str = "numbers", *, skip_bad: bool = False, token: str | None = None, **settings: str) -> int:
    return wishes.ask_source(
        name, settings, dataset_name="mine", actor="ann", token=token or new_token(), skip_bad=skip_bad
    )


def imported(desk: DeskDriver, name: str = "numbers", *, skip_bad: bool = False, **settings: str) -> Any:
    upload_id = ask(name, skip_bad=skip_bad, **settings)
    desk.perform_due()
    return Uploads(desk).row(upload_id)


def places(desk: DeskDriver) -> list[str]:
    found = desk.rows("SELECT place, fault FROM upload_problems ORDER BY ordinal")
    return [f"{one.place}: {one.fault}" for one in found]


def test_records_of_a_source_become_a_dataset_that_remembers_it(desk: DeskDriver, source: None) -> None:
    upload = imported(desk, count="5")

    assert (upload.state, upload.added, upload.problems, upload.name) == ("imported", 5, 0, "Numbers")
    (dataset,) = desk.rows("SELECT * FROM datasets")
    assert (dataset.name, dataset.source, dataset.source_name, dataset.text_field) == (
        "mine",
        "Numbers",
        "numbers",
        "text",
    )
    assert dataset.source_settings == {"count": 5, "odd": "pass", "password": "env:NOT_THERE"}
    subjects = desk.rows("SELECT key, kind, data::text AS data FROM subjects ORDER BY position")
    assert [(one.key, one.kind) for one in subjects] == [(f"k{n}", "document") for n in range(5)]
    assert subjects[4].data == '{"text":"Number 4","n":4}'
    told = desk.rows("SELECT actor, kind, to_state FROM events WHERE target_kind = 'upload' ORDER BY id")
    assert [tuple(one) for one in told] == [
        ("ann", "wish", None),
        ("ann", "move", "importing"),
        ("worker", "move", "imported"),
    ]


def test_a_source_says_of_which_kind_its_records_are(desk: DeskDriver, source: None) -> None:
    imported(desk, "leads")
    assert desk.scalar("SELECT text_field FROM datasets") == "about"
    assert desk.scalar("SELECT min(kind) FROM subjects") == "lead"


def test_to_ask_again_with_the_same_token_is_the_same_import(desk: DeskDriver, source: None) -> None:
    token = new_token()
    assert ask(token=token) == ask(token=token)
    desk.perform_due()
    assert ask(token=token) == 1
    assert desk.scalar("SELECT count(*) FROM datasets") == 1


ODD = {
    "Record('fine', record.data)": "",
    "Record('fine', {'text': 'b'})": 'record 2 (key "fine"): its key is already that of record 1',
    "Record('k', {'text': {1, 2}})": 'record 3 (key "k"): its data at text is of type set, which JSON cannot hold',
    "Record('k', {'text': float('nan')})": 'record 4 (key "k"): its data at text is nan, which JSON has no number for',
    "Record('k', 'text')": 'record 5 (key "k"): its data is text, not a mapping',
    "Record('k', {'body': 'x', 'n': 1})": 'record 6 (key "k"): it has no "text"',
    "Record('k', {'text': ' '})": 'record 7 (key "k"): its text in "text" is empty',
    "Record('k', {'text': 5})": 'record 8 (key "k"): its "text" is a number, not text',
    "Record(None, record.data)": "record 9: it has no key of text or a whole number",
    "Record('', record.data)": 'record 10 (key ""): its key is empty',
    "Record('a\\0b', record.data)": 'record 11 (key "a\\u0000b"): its key holds a NUL character',
    "Record(12, record.data)": "",
}


def test_records_that_cannot_be_used_are_told_by_number_and_key_and_can_be_skipped(
    desk: DeskDriver, source: None, sent: Uploads
) -> None:
    odd = f"record = [{', '.join(f'lambda: {one}' for one in ODD)}][n]()"
    upload = imported(desk, count=str(len(ODD)), odd=odd)
    assert (upload.state, upload.reason) == ("refused", "10 records cannot be used, so nothing was imported.")
    assert places(desk) == [words for words in ODD.values() if words]
    assert desk.scalar("SELECT count(*) FROM datasets") == 0

    sent.ask(upload.id, skip_bad=True)
    desk.perform_due()
    assert (sent.row(upload.id).state, sent.row(upload.id).problems) == ("imported", 10)
    assert [key for (key,) in desk.rows("SELECT key FROM subjects ORDER BY position")] == ["fine", "12"]


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ("if n == 2: raise InputError('The shop is closed.')", 'The shop is closed, after record 2 (key "k1").'),
        ("raise InputError('The shop is closed.')", "The shop is closed."),
        ("if n == 1: raise KeyError('shop')", "Source 'numbers': records raised KeyError: 'shop' ("),
        ("if n == 1: raise SystemExit(3)", "Source 'numbers': records raised SystemExit: 3"),
        ("record = {'key': 'a'}", "Source 'numbers': records gave dict, which is no Record, before its first record."),
        ("if n == 1: os._exit(9)", "Source 'numbers' ended its process (exit status 9)."),
        ("if n == 1: 'x' * (1 << 33)", "Source 'numbers' needed more than 1,024 MB of memory."),
        ("if n == 1: time.sleep(1000)", "Source 'numbers' did not come back within 2 seconds."),
    ],
)
def test_a_source_that_breaks_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str, words: str
) -> None:
    if "sleep" in odd:
        monkeypatch.setattr(sourcing, "SILENT_SECONDS", 2)
    (tmp_path / "testing.py").write_text(SOURCE)
    registry = load_plugins(folder=tmp_path, entry_points=False)
    numbers = registry.source("numbers")
    with pytest.raises(InputError) as caught:
        list(sourcing.spool(numbers, registry.parse_settings(numbers, {"odd": odd}), tmp_path / "given"))
    assert str(caught.value)[: len(words)] == words


def test_a_source_that_breaks_leaves_nothing(desk: DeskDriver, source: None) -> None:
    upload = imported(desk, odd="if n == 1: raise KeyError('shop')")

    assert upload.state == "refused" and "KeyError: 'shop'" in upload.reason
    assert desk.scalar("SELECT (SELECT count(*) FROM subjects) + (SELECT count(*) FROM steps)") == 0


def test_a_refused_import_can_be_tried_again(desk: DeskDriver, source: None, sent: Uploads, tmp_path: Path) -> None:
    flag = tmp_path / "open"
    upload = imported(desk, odd=f"assert os.path.exists({str(flag)!r})")
    assert upload.state == "refused"

    flag.touch()
    sent.ask(upload.id)
    desk.perform_due()
    assert sent.row(upload.id).state == "imported"


def test_a_source_without_records_is_told(desk: DeskDriver, source: None) -> None:
    assert "no usable record" in imported(desk, count="0").reason


def test_a_source_that_is_gone_is_told(desk: DeskDriver, source: None, sent: Uploads) -> None:
    upload_id = ask()
    desk.desk.registry = load_plugins(folder=PLUGINS, entry_points=False)
    desk.perform_due()
    assert "no source 'numbers'" in sent.row(upload_id).reason


def test_bad_settings_and_unknown_sources_are_told_before_anything_is_written(desk: DeskDriver, source: None) -> None:
    with pytest.raises(BadSettings, match="Source 'numbers' cannot run"):
        ask(count="many")
    with pytest.raises(BadSettings) as caught:
        ask(password="hunter2")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(BadSettings, match="Batchdesk's own"):
        ask(password="env:DATABASE_URL")
    with pytest.raises(NotFound, match="Did you mean 'numbers'"):
        ask("number")
    assert desk.scalar("SELECT count(*) FROM uploads") == 0


def test_a_dataset_is_compared_with_what_its_source_gives_now(
    desk: DeskDriver, source: None, sent: Uploads, tmp_path: Path
) -> None:
    now = tmp_path / "now"
    now.write_text("0")
    odd = f"record = Record(record.key, record.data | {{'at': int(open({str(now)!r}).read()) * (n == 1)}})"
    dataset_id = imported(desk, odd=odd).dataset_id
    now.write_text("7")
    upload_id = wishes.ask_source_again(dataset_id, actor="ben", token=new_token())
    desk.perform_due()

    upload = sent.row(upload_id)
    assert (upload.state, upload.added, upload.changed, upload.same, upload.absent) == ("compared", 0, 1, 2, 0)
    assert sent.confirm(upload_id).revision == 2
    assert desk.scalar("SELECT data->>'at' FROM subjects WHERE gone_in IS NULL AND key = 'k1'") == "7"


def test_a_dataset_of_a_file_has_no_source_to_refresh_it_from(desk: DeskDriver, source: None, sent: Uploads) -> None:
    upload = sent.imported("people.csv", b"key,text\na,alpha\n")
    with pytest.raises(Refused, match="does not come from a source"):
        wishes.ask_source_again(upload.dataset_id, actor="ann", token=new_token())
    with pytest.raises(NotFound):
        wishes.ask_source_again(99, actor="ann", token=new_token())


def test_a_worker_that_dies_between_the_chunks_leaves_one_import(
    desk: DeskDriver, source: None, sent: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    upload_id = ask(count="10")
    for name in ("forget", "put_problems"):
        with monkeypatch.context() as patched:
            patched.setattr(uploads, name, lambda *_: (_ for _ in ()).throw(Killed()))
            with pytest.raises(Killed):
                desk.perform_due()
        desk.lapse()
    desk.perform_due()

    assert sent.row(upload_id).state == "imported"
    assert desk.scalar("SELECT count(*) FROM datasets") == 1
    assert desk.scalar("SELECT count(*) FROM subjects") == 10


def test_a_worker_that_is_to_end_does_not_wait_for_the_source(
    desk: DeskDriver, source: None, sent: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sourcing, "CHUNK_RECORDS", 1)
    upload_id = ask(count="1000000000")
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            leaving.ask()
        before()

    before = leaving.look
    with monkeypatch.context() as patched:
        patched.setattr(leaving, "look", look)
        desk.perform_due()
    leaving.stay()
    assert (len(looks), sent.row(upload_id).state) == (3, "importing")
    assert desk.scalar("SELECT starts FROM steps WHERE step = 'import'") == 0


def test_the_source_is_read_before_a_transaction_that_writes_is_open(
    desk: DeskDriver, source: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 8: a source may wait for its network for minutes."""
    opened: list[bool] = []
    spool = sourcing.spool

    def watched(*arguments: Any) -> Any:
        for reached in spool(*arguments):
            with db.transaction() as tx:
                found = db.scalar(
                    tx,
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()",
                )
            opened.append(bool(found))
            yield reached

    monkeypatch.setattr(sourcing, "spool", watched)
    assert imported(desk).state == "imported"
    assert opened == [False]


# -- the shipped source of files ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    monkeypatch.setenv("BATCHDESK_FILES", str(allowed))
    return allowed


def test_files_come_in_as_the_command_line_reads_them_to_the_letter(desk: DeskDriver, folder: Path) -> None:
    (folder / "docs.jsonl").write_text('{"id": 1,  "text": "a", "n": 1.10}\n{"id": 2, "text": "b"}\n')
    upload = imported(desk, "files", path="docs.jsonl", key_field="id")

    assert upload.state == "imported"
    data = desk.rows("SELECT key, data::text AS data FROM subjects ORDER BY position")
    assert [tuple(one) for one in data] == [
        ("1", '{"id": 1,  "text": "a", "n": 1.10}'),
        ("2", '{"id": 2, "text": "b"}'),
    ]


def test_bad_lines_of_a_file_are_told_by_line_and_can_be_skipped(desk: DeskDriver, folder: Path, sent: Uploads) -> None:
    (folder / "docs.csv").write_text("key,text\na,alpha\n,nobody\na,again\n")
    upload = imported(desk, "files", path="docs.csv")
    assert places(desk) == [
        "docs.csv, line 3: its key is empty",
        'docs.csv, line 4: the key "a" is already that of line 2',
    ]

    sent.ask(upload.id, skip_bad=True)
    desk.perform_due()
    assert (sent.row(upload.id).state, sent.row(upload.id).added) == ("imported", 1)


def test_a_folder_of_images_comes_in_with_its_pictures(desk: DeskDriver, folder: Path) -> None:
    (folder / "pictures").mkdir()
    for n in range(3):
        Picture.new("RGB", (8, 8), (n, n, n)).save(folder / "pictures" / f"{n}.png")
    assert imported(desk, "files", path="pictures").state == "imported"
    assert desk.scalar("SELECT count(*) FROM subjects s JOIN blobs b ON b.sha256 = s.image WHERE s.kind = 'image'") == 3


def test_nothing_outside_of_the_folder_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"key": "a", "text": "secret"}\n')
    (folder / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    for name in ("fine", "inner"):
        (folder / name).mkdir()
        (folder / name / "fine.txt").write_text("fine")
    (folder / "inner" / "link.txt").symlink_to(tmp_path / "secret.jsonl")
    (folder / "fine" / "again.txt").symlink_to(folder / "fine" / "fine.txt")
    (folder / "around").mkdir()
    (folder / "around" / "inner").symlink_to(folder / "inner")
    registry = load_plugins(folder=PLUGINS, entry_points=False)
    files = registry.source("files")

    def read(path: str) -> str:
        try:
            return str([one.key for one in files.records(registry.parse_settings(files, {"path": path}))])
        except InputError as error:
            return str(error)

    for path in ("../secret.jsonl", "/etc/passwd", "link.jsonl", "inner", "around", ".."):
        assert "lies outside of" in read(path), path
    assert "There is no file" in read("missing.jsonl")
    assert "cannot be looked for" in read("a\0b")
    assert read("fine") == "['again.txt', 'fine.txt']"


def test_without_a_folder_the_source_is_off(desk: DeskDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHDESK_FILES", raising=False)
    assert "the platform engineer allows a folder with BATCHDESK_FILES" in imported(desk, "files", path="x.csv").reason
    monkeypatch.setenv("BATCHDESK_FILES", os.devnull)
    assert "no folder on the machine" in imported(desk, "files", path="x.csv").reason
