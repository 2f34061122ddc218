"""Files and folders of this machine as records, for sources: read by the readers that read everybody else's files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from webapp.errors import InputError

# The readers are imported where they are used: whoever writes a plugin loads none of them by importing the contract.


def file_records(
    path: Path, *, key_field: str = "key", text_field: str = "text", within: Path | None = None
) -> Iterator[Any]:
    """What a file (.jsonl, .csv) or a folder (of texts, or of images) holds, to be passed on by `Source.records`.

    :param key_field: the member or column that holds a record's key.
    :param text_field: the member or column that holds a record's text.
    :param within: a folder that no file read may lie outside of, wherever links lead.
    :raises InputError: it is unusable as a whole, or lies outside.
    """
    from webapp.records.reading import read_records

    if within is not None:
        path = _inside(path, within)
        if path.is_dir():
            _check_links(path, within)
    yield from read_records(path, key_field=key_field, text_field=text_field)


def _inside(path: Path, within: Path) -> Path:
    """Where a path really leads."""
    from webapp.records.escapes import shown

    try:
        found, top = path.resolve(), within.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{shown(path)} cannot be looked for: {error}.") from error
    if not found.is_relative_to(top):
        raise InputError(f"{shown(path)} lies outside of {shown(within)}, the folder that files may be read from.")
    return found


def _check_links(folder: Path, within: Path) -> None:
    for parent, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                # What a linked folder holds is looked at where it lies, so it must lie here.
                _inside(path, folder if path.is_dir() else within)
