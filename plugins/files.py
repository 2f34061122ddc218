"""Files of the workers' machines as a source: below the one folder that is allowed, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from webapp.hooks import InputError, Source, file_records, hookimpl

ALLOWED = "BATCHDESK_FILES"


class Where(BaseModel):
    """What to read, and what its members or columns are."""

    path: str = Field(
        description="A .jsonl or .csv file, or a folder of texts or of images, below the folder that may be read from."
    )
    key_field: str = Field("key", min_length=1, description="The member or column that holds a record's key.")
    text_field: str = Field("text", min_length=1, description="The member or column that holds a record's text.")


class Files(Source[Where]):
    """What the command line imports, read by the same readers; images too."""

    name = "files"
    title = "Files"
    Settings = Where

    def records(self, settings: Where) -> Iterator[Any]:
        allowed = os.environ.get(ALLOWED, "")
        if not allowed:
            raise InputError(
                f"Files of the workers' machines are not read: the platform engineer allows a folder with {ALLOWED}."
            )
        top = Path(allowed)
        if not top.is_dir():
            raise InputError(f"{ALLOWED} names {allowed}, which is no folder on the machine of this worker.")
        yield from file_records(
            top / settings.path, key_field=settings.key_field, text_field=settings.text_field, within=top
        )


@hookimpl
def register_sources() -> Iterable[Source[Any]]:
    return [Files()]
