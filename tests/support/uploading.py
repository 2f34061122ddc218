"""Uploads without a browser: stored, asked for and imported as the dashboard and the workers do it."""

from __future__ import annotations

import io
from pathlib import PurePath
from typing import Any

from support.desk import DeskDriver

from webapp import db
from webapp.datasets import uploads


class Uploads:
    """What one installation's people upload."""

    def __init__(self, desk: DeskDriver) -> None:
        self._desk = desk

    def row(self, upload_id: int) -> Any:
        (found,) = self._desk.rows("SELECT * FROM uploads WHERE id = :id", id=upload_id)
        return found

    def store(self, name: str, content: bytes, *, dataset_id: int | None = None) -> int:
        """Upload a file; the upload's id."""
        stream = io.BytesIO(content)
        pieces = iter(lambda: stream.read(uploads.CHUNK_BYTES), b"")
        stem = PurePath(name).stem
        with db.transaction() as tx:
            return uploads.store(tx, pieces, name=name, dataset_name=stem, dataset_id=dataset_id, actor="tester")

    def ask(self, upload_id: int, *, text_field: str = "text", skip_bad: bool = False) -> None:
        with db.transaction() as tx:
            uploads.import_upload(
                tx, upload_id, key_field="key", text_field=text_field, skip_bad=skip_bad, actor="tester"
            )

    def go_on(self, upload_id: int, *, skip_bad: bool = False) -> Any:
        """Import, or compare; the row afterwards."""
        self.ask(upload_id, skip_bad=skip_bad)
        self._desk.perform_due()
        return self.row(upload_id)

    def imported(self, name: str, content: bytes, *, dataset_id: int | None = None) -> Any:
        """Upload a file and let it be imported, or compared; the row afterwards."""
        return self.go_on(self.store(name, content, dataset_id=dataset_id))

    def confirm(self, upload_id: int, *, remove_absent: bool = False) -> Any:
        with db.transaction() as tx:
            uploads.apply(tx, upload_id, remove_absent=remove_absent, actor="tester")
        self._desk.perform_due()
        return self.row(upload_id)

    def refreshed(self, dataset_id: int, content: bytes, *, remove_absent: bool = False) -> Any:
        """Refresh a dataset from a CSV file; the upload's row afterwards."""
        upload = self.imported("next.csv", content, dataset_id=dataset_id)
        return self.confirm(upload.id, remove_absent=remove_absent)
