"""The pages of an upload, from the file that somebody chooses to the dataset that it makes or refreshes.
The page of datasets takes them over by inheritance. Nothing is imported before a person has seen the first records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from flask import Flask, Response, abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import FileStorage

from webapp import db, wishes
from webapp.admin import history, previews
from webapp.admin.access import actor, acts
from webapp.admin.frame import Page, act, expose, reading
from webapp.admin.headers import DOWNLOAD
from webapp.batches.states import UploadState
from webapp.datasets import uploads
from webapp.datasets.derived import run_named
from webapp.packages.wheels import MOST_BYTES
from webapp.records.escapes import one_line
from webapp.records.jsontext import dumps

MOST_UPLOADED = 1_000_000_000  # bytes
TAKE_FILES = frozenset({"datasets.new", "datasets.refresh"})
TAKES_WHEELS = "plugins.install"
MOST_WHEEL = MOST_BYTES + 100_000  # with what is sent around it
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".zip")
HINTS = {
    ".xlsx": "Save the sheet as CSV UTF-8.",
    ".xls": "Save the sheet as CSV UTF-8.",
    ".json": "Write one object on each line, and name it .jsonl.",
    ".gz": "Unpack it first.",
}
LONGEST_NAME = 200
CHOOSING = (UploadState.WAITING, UploadState.REFUSED, UploadState.COMPARED)
PROBLEMS_SHOWN = 100


def init_app(app: Flask) -> None:
    """Let the pages that take files take more than forms do. To be called after the check of who may."""
    app.before_request(_room)


def _room() -> None:
    if request.endpoint in TAKE_FILES:
        if (request.content_length or 0) > MOST_UPLOADED:
            abort(413, f"A file may have {MOST_UPLOADED // 10**6:,} MB; cut it into several, and upload one by one.")
        request.max_content_length = MOST_UPLOADED
    elif request.endpoint == TAKES_WHEELS:
        if (request.content_length or 0) > MOST_WHEEL:
            abort(413, f"A wheel may have {MOST_BYTES // 10**6:,} MB.")
        request.max_content_length = MOST_WHEEL


class UploadPages(Page):
    """What people do with uploads."""

    @expose("/new", methods=("GET", "POST"))
    @acts
    def new(self) -> ResponseReturnValue:
        if request.method == "POST":
            return self._take(None, url_for(".new"))
        return self.render("desk/new_dataset.html", dataset=None, endings=ENDINGS, most=MOST_UPLOADED)

    @expose("/<row:dataset_id>/refresh", methods=("GET", "POST"))
    @acts
    def refresh(self, dataset_id: int) -> ResponseReturnValue:
        dataset = db.row(reading(), "SELECT id, name, text_field FROM datasets WHERE id = :id", id=dataset_id)
        if dataset is None:
            abort(404, f"There is no dataset {dataset_id}.")
        if request.method == "POST":
            return self._take(dataset, url_for(".refresh", dataset_id=dataset_id))
        return self.render("desk/new_dataset.html", dataset=dataset, endings=ENDINGS, most=MOST_UPLOADED)

    def _take(self, dataset: Any, again: str) -> ResponseReturnValue:
        """Store the file of a form, and go on to its upload."""
        file = request.files.get("file")
        name = one_line(PurePosixPath(((file and file.filename) or "").replace("\\", "/")).name, LONGEST_NAME)
        fault = _fault(file, name)
        if fault or file is None:
            flash(fault or "", "error")
            return redirect(again, 303)
        with db.transaction() as tx:
            upload_id = uploads.store(
                tx,
                _pieces(file),
                name=name,
                dataset_name=dataset.name if dataset else PurePosixPath(name).stem,
                dataset_id=dataset.id if dataset else None,
                actor=actor(),
            )
        return redirect(url_for(".upload", upload_id=upload_id), 303)

    @expose("/uploads/<row:upload_id>/")
    def upload(self, upload_id: int) -> ResponseReturnValue:
        tx = reading()
        row = uploads.found(tx, upload_id)
        shown = None
        if row.state in CHOOSING and row.source_name is None:
            shown = previews.preview(tx, row, _chosen("key"), _chosen("text"))
        return self.render(
            "desk/upload.html",
            row=row,
            preview=shown,
            may_discard=row.state in CHOOSING,
            source_run=run_named(row.source_name or ""),
            at=previews.uploading(tx, [upload_id])[0],
            problems=uploads.problems(tx, upload_id),
            shown_problems=PROBLEMS_SHOWN,
            history=history.of(tx, "upload_id", upload_id, None),
            stamp=history.stamp(tx, "upload_id", upload_id),
        )

    @expose("/uploads/<row:upload_id>/import", methods=("POST",))
    def import_(self, upload_id: int) -> ResponseReturnValue:
        key, text = request.form.get("key", ""), request.form.get("text", "")
        name = one_line(request.form.get("name", "").strip(), LONGEST_NAME)
        skip = bool(request.form.get("skip"))

        def deed() -> str:
            wishes.ask_import(
                upload_id,
                key_field=_storable(key),
                text_field=_storable(text),
                dataset_name=name or None,
                skip_bad=skip,
                actor=actor(),
            )
            return "Its records are being read. This page goes on by itself."

        return act(url_for(".upload", upload_id=upload_id), deed)

    @expose("/uploads/<row:upload_id>/apply", methods=("POST",))
    def apply(self, upload_id: int) -> ResponseReturnValue:
        remove = request.form.get("absent") == "gone"

        def deed() -> str:
            wishes.ask_refresh(upload_id, remove_absent=remove, actor=actor())
            return "The dataset is being refreshed. This page goes on by itself."

        return act(url_for(".upload", upload_id=upload_id), deed)

    @expose("/uploads/<row:upload_id>/discard", methods=("GET", "POST"))
    @acts
    def discard(self, upload_id: int) -> ResponseReturnValue:
        row = uploads.found(reading(), upload_id)
        if request.method == "POST":

            def deed() -> str:
                wishes.ask_discard_upload(upload_id, actor=actor())
                return f"{row.name} is discarded."

            return act(url_for(".index"), deed)
        return self.render("desk/discard_upload.html", row=row, back=url_for(".upload", upload_id=upload_id))

    @expose("/uploads/<row:upload_id>/problems.jsonl")
    def problems(self, upload_id: int) -> Response:
        tx = reading()
        uploads.found(tx, upload_id)
        response = Response(b"".join(_lines(uploads.problems(tx, upload_id))), mimetype="application/jsonl")
        response.headers["Content-Disposition"] = f'attachment; filename="upload-{upload_id}-problems.jsonl"'
        response.headers["Content-Security-Policy"] = DOWNLOAD
        return response

    @expose("/uploads/<row:upload_id>/picture/<row:number>")
    def picture(self, upload_id: int, number: int) -> Response:
        """One of the images of the preview, in a format that every browser shows."""
        tx = reading()
        row = uploads.found(tx, upload_id)
        seen = row.state in CHOOSING and row.source_name is None and number <= previews.ROWS
        image = previews.picture(tx, row, number) if seen else None
        if image is None:
            abort(404, "There is no such image.")
        response = Response(image.content, mimetype=image.media_type)
        response.headers["Content-Security-Policy"] = DOWNLOAD
        response.headers["Cache-Control"] = "private, max-age=3600"
        return response


def _fault(file: FileStorage | None, name: str) -> str | None:
    """Why a file cannot be taken."""
    if file is None or not name:
        return "Choose a file first."
    ending = PurePosixPath(name).suffix.lower()
    if ending not in ENDINGS:
        return f"{name} cannot be read: {HINTS.get(ending, 'its name must end in ' + ', '.join(ENDINGS) + '.')}"
    if not file.stream.read(1):
        return f"{name} is empty: it must hold at least one record."
    file.stream.seek(0)
    return None


def _pieces(file: FileStorage) -> Iterator[bytes]:
    """The file as it was spooled to the disk, chunk by chunk."""
    while piece := file.stream.read(uploads.CHUNK_BYTES):
        yield piece


def _chosen(name: str) -> str | None:
    return request.args.get(name) or None


def _storable(text: str) -> str:
    return text.replace("\0", "")[:LONGEST_NAME]


def _lines(found: Iterable[Any]) -> Iterator[bytes]:
    """As `records.exporting` sets problems aside: bytes that are no UTF-8 as lone surrogates."""
    for one in found:
        line: dict[str, object] = {"where": one.place, "fault": one.fault, "remedy": one.remedy}
        line["record"] = bytes(one.raw).decode("utf-8", "surrogateescape")
        if one.cut:
            line["record_cut"] = True
        yield dumps(line) + b"\n"
