"""A folder of text files or of images read file by file, in the order of their names.
Called by `records` alone.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

from webapp.errors import InputError
from webapp.records.escapes import one_line, shown
from webapp.records.faults import Fault, foreign_content, not_utf8
from webapp.records.images import MAX_FILE_BYTES, fit_image
from webapp.records.images import SUFFIXES as IMAGE_SUFFIXES
from webapp.records.record import MAX_RECORD_BYTES, RAW_BYTES, UTF8_MARK, Problem, Record, key_fault

TEXT_SUFFIXES = frozenset(
    {".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".log", ".html", ".htm", ".xml"}
)


class _File(NamedTuple):
    """A file of the folder by its path in it (with slashes), or why that path leads to none."""

    name: str
    fault: Fault | None = None


class _Kind(NamedTuple):
    """What a folder's files are to be: how they are named, how large one may be, what makes a record of one."""

    noun: str
    suffixes: frozenset[str]
    max_bytes: int
    record: Callable[[int, str, bytes], Record | Fault]


def folder_records(folder: Path, key_field: str, text_field: str) -> Iterator[Record | Problem]:
    """Each file, of sub-folders too, as a record whose key is its path in the folder; hidden ones are passed over.

    :raises InputError: the folder holds no files of a kind that is read, or of both kinds.
    """

    def text(position: int, name: str, content: bytes) -> Record | Fault:
        found = _text(content)
        if isinstance(found, Fault):
            return found
        data = orjson.dumps({"file": name, key_field: name, text_field: found})
        return Record(position, name, "document", data)

    def picture(position: int, name: str, content: bytes) -> Record | Fault:
        image = fit_image(content)
        if isinstance(image, Fault):
            return image
        shape = {"width": image.width, "height": image.height, "media_type": image.media_type}
        return Record(position, name, "image", orjson.dumps({"file": name, **shape, key_field: name}), image)

    texts = _Kind("text files", TEXT_SUFFIXES, MAX_RECORD_BYTES, text)
    images = _Kind("images", IMAGE_SUFFIXES, MAX_FILE_BYTES, picture)
    yield from _records(folder, _kind_of(folder, texts, images))


def _records(folder: Path, kind: _Kind) -> Iterator[Record | Problem]:
    title = one_line(folder.name or folder.resolve().name)
    position = 0
    for file in _walk(folder):
        found = file.fault or _name_fault(file.name) or _read(folder, file.name, kind, position)
        if isinstance(found, Record):
            position += 1
            yield found
        else:
            where = f"{title}/{one_line(file.name, 1000)}"
            yield Problem(where, found.fault, found.remedy, os.fsencode(file.name)[:RAW_BYTES])


def _kind_of(folder: Path, *kinds: _Kind) -> _Kind:
    """The one kind its files are of: a first walk, so that a mixed folder is refused before anything is taken."""
    samples: dict[_Kind | None, str] = {}
    for file in _walk(folder):
        suffix = _suffix(file.name)
        of = next((kind for kind in kinds if suffix in kind.suffixes), None)
        samples.setdefault(of, file.name)
        if all(kind in samples for kind in kinds):
            both = " and ".join(f"{kind.noun} ({one_line(samples[kind])})" for kind in kinds)
            raise InputError(f"The folder {shown(folder)} holds {both}; move one kind to a folder of its own.")
    for kind in kinds:
        if kind in samples:
            return kind
    endings = " ".join(sorted(itertools.chain(*(kind.suffixes for kind in kinds))))
    other = f", only others ({one_line(samples[None])})" if samples else ""
    raise InputError(
        f"The folder {shown(folder)} holds no text files or images{other}; the endings read are {endings}."
    )


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name of a million; no Path is made for it


def _name_fault(name: str) -> Fault | None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return Fault("its name is not UTF-8, so it cannot be a key", "rename the file")
    return key_fault(name)


def _read(folder: Path, name: str, kind: _Kind, position: int) -> Record | Fault:
    if _suffix(name) not in kind.suffixes:
        ending = f"ending {_suffix(name)}" if _suffix(name) else "no ending"
        endings = " ".join(sorted(kind.suffixes))
        return Fault(f"a file with {ending} among {kind.noun}", f"move it away, or convert it to one of {endings}")
    try:
        with (folder / name).open("rb") as stream:
            content = stream.read(kind.max_bytes + 1)
    except OSError as error:
        return Fault(f"it cannot be read: {error.strerror}", "check the file and its permissions")
    if len(content) > kind.max_bytes:
        return Fault(f"it is larger than {kind.max_bytes >> 20} MB", "cut it into smaller files, or remove it")
    if not content:
        return Fault("it is empty", "fill it, or remove it")
    return kind.record(position, name, content)


def _text(content: bytes) -> str | Fault:
    foreign = foreign_content(content[:4])
    if foreign:
        return foreign
    start = len(UTF8_MARK) if content.startswith(UTF8_MARK) else 0
    try:
        text = content[start:].decode()
    except UnicodeDecodeError as error:
        return not_utf8(error, start)
    if not text or text.isspace():
        return Fault("it is empty", "fill it, or remove it")
    return text


def _walk(folder: Path) -> Iterator[_File]:
    """All files in the order of their names, folder by folder; only the names on the present path are held."""
    root = os.fspath(folder)
    try:
        rest = [("", iter(_names(root)), frozenset({_identity(os.stat(root))}))]  # noqa: PTH116 - text is enough, a Path each is slow
    except OSError as error:
        raise InputError(
            f"The folder {shown(folder)} cannot be read: {error.strerror}; check its permissions."
        ) from error
    while rest:
        prefix, names, above = rest[-1]
        name = next(names, None)
        if name is None:
            rest.pop()
            continue
        inner = prefix + name
        path = os.path.join(root, inner)  # noqa: PTH118 - text is enough, a Path each is slow
        try:
            status = os.stat(path)  # noqa: PTH116 - text is enough, a Path each is slow
            if stat.S_ISDIR(status.st_mode):
                if _identity(status) in above:
                    yield _File(inner, Fault("this link leads back to a folder it is in", "remove the link"))
                else:
                    rest.append((inner + "/", iter(_names(path)), above | {_identity(status)}))
            elif stat.S_ISREG(status.st_mode):
                yield _File(inner)
            else:
                yield _File(inner, Fault("it is no regular file", "remove it"))
        except OSError as error:
            yield _File(inner, Fault(f"it cannot be read: {error.strerror}", "mend its permissions, or remove it"))


def _names(folder: str) -> list[str]:
    """The names in a folder but hidden ones; sorted by their bytes, so the order is one on every machine."""
    return sorted((name for name in os.listdir(folder) if not name.startswith(".")), key=os.fsencode)  # noqa: PTH208 - text is enough, a Path each is slow


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
