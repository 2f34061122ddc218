"""A plugin's wheel as it is looked into before anybody trusts it: what it is, what it needs and which hooks it brings.
Nothing of it runs or is unpacked; whatever it says of itself is checked against what it holds.
"""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import io
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import asdict, dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import PurePosixPath
from typing import Any

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from webapp.errors import InputError
from webapp.records.escapes import one_line

MOST_BYTES = 20_000_000
MOST_UNPACKED = 100_000_000
MOST_FILES = 5_000
GROUP = "batchdesk.plugins"
_ENCRYPTED = 0x1
# Machine code, and what makes Python run or find something at its start.
_COMPILED = (".so", ".pyd", ".dll", ".dylib")
_UNSIGNED = ("RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True, slots=True)
class About:
    """What a wheel is, read from its files.

    :param name: of the distribution, normalized.
    :param requires: what it needs, as its metadata writes it, extras left out.
    :param entry_points: (name, module:attribute) of each in the group of plugins.
    :param modules: the top-level modules that it brings.
    :param hooks: the names of its functions that are marked as hooks.
    """

    name: str
    version: str
    summary: str
    author: str
    license: str
    requires: tuple[str, ...]
    requires_python: str
    entry_points: tuple[tuple[str, str], ...]
    modules: tuple[str, ...]
    hooks: tuple[str, ...]
    files: int
    size: int  # bytes, unpacked

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that was looked into and is sound."""

    file_name: str
    content: bytes
    sha256: str
    about: About


def read(content: bytes, file_name: str) -> Wheel:
    """Look into a wheel.

    :param file_name: as wheels are named, ``name-version-py3-none-any.whl``.
    :raises InputError: it is none, or no plugin, or holds what a plugin must not bring; says what.
    """
    try:
        about = _read(content, file_name)
    except InputError as error:
        raise InputError(f"{one_line(file_name)} cannot be installed: {error}") from None
    return Wheel(file_name, content, hashlib.sha256(content).hexdigest(), about)


def _read(content: bytes, file_name: str) -> About:
    name, version = _named(file_name)
    if len(content) > MOST_BYTES:
        raise InputError(f"it has {len(content):,} bytes; a plugin has {MOST_BYTES:,} at most.")
    files = _files(content)
    info = _info_folder(files, name, version)
    _check_record(files, info)
    wheel = _headers(files, f"{info}/WHEEL")
    if str(wheel.get("Root-Is-Purelib", "")).strip().lower() != "true":
        raise InputError("it is made for one kind of machine; only pure Python is installed here.")
    metadata = _headers(files, f"{info}/METADATA")
    _check_same(metadata, name, version)
    code = {path: files[path] for path in files if not path.startswith(f"{info}/")}
    modules = _modules(code)
    return About(
        name=name,
        version=version,
        summary=_text(metadata, "Summary"),
        author=_text(metadata, "Author") or _text(metadata, "Author-email"),
        license=_text(metadata, "License-Expression") or _text(metadata, "License")[:200],
        requires=tuple(one_line(str(one)) for one in metadata.get_all("Requires-Dist", ())),
        requires_python=_text(metadata, "Requires-Python"),
        entry_points=_entry_points(files.get(f"{info}/entry_points.txt"), code),
        modules=modules,
        hooks=_hooks(code),
        files=len(files),
        size=sum(len(one) for one in files.values()),
    )


def _named(file_name: str) -> tuple[str, str]:
    try:
        name, version, _, tags = parse_wheel_filename(file_name)
    except (InvalidWheelFilename, InvalidVersion) as error:
        raise InputError(f"its name is not that of a wheel ({one_line(str(error))}).") from None
    if not any(tag.interpreter.startswith("py3") for tag in tags) or {(tag.abi, tag.platform) for tag in tags} != {
        ("none", "any")
    }:
        raise InputError("it is no pure wheel for Python 3: the name of one ends in py3-none-any.whl.")
    return str(canonicalize_name(name)), str(version)


def _files(content: bytes) -> dict[str, bytes]:
    """Each file by its path, once every path is known to stay within the folder it is unpacked into."""
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if len(infos) > MOST_FILES:
                raise InputError(f"it holds {len(infos):,} files; a plugin has {MOST_FILES:,} at most.")
            left = MOST_UNPACKED
            for info in infos:
                _check_path(info)
                if info.filename.casefold() in seen:
                    raise InputError(f"it holds {one_line(info.filename)} twice.")
                seen.add(info.filename.casefold())
                with archive.open(info) as stream:
                    data = stream.read(left + 1)  # what an archive says of its own sizes is not believed
                left -= len(data)
                if left < 0:
                    raise InputError(f"it has more than {MOST_UNPACKED:,} bytes when it is unpacked.")
                found[info.filename] = data
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise InputError(f"it is no ZIP archive that can be read ({one_line(str(error))}).") from None
    return found


def _check_path(info: zipfile.ZipInfo) -> None:
    name, shown = info.filename, one_line(info.filename)
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in name or not name.isprintable() or {"", ".", ".."} & set(parts):
        raise InputError(f"it holds a file that would land outside its folder ({shown}).")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError(f"it holds a link ({shown}).")
    if info.flag_bits & _ENCRYPTED:
        raise InputError(f"it is protected by a password ({shown}).")
    lower = name.lower()
    if lower.endswith(".pth"):
        raise InputError(f"it holds {shown}, which would change how Python starts.")
    if lower.endswith(_COMPILED):
        raise InputError(f"it holds {shown}, which is machine code; only pure Python is installed here.")
    if parts[0].lower().endswith(".data"):
        raise InputError(f"it holds {shown}, which would be put outside its folder, as scripts are.")


def _info_folder(files: Mapping[str, bytes], name: str, version: str) -> str:
    folders = {path.partition("/")[0] for path in files if path.partition("/")[0].endswith(".dist-info")}
    if len(folders) != 1:
        raise InputError("it has no folder .dist-info, or several.")
    (folder,) = folders
    which, _, at = folder.removesuffix(".dist-info").partition("-")
    try:
        same = canonicalize_name(which) == name and Version(at) == Version(version)
    except InvalidVersion:
        same = False
    if not same:
        raise InputError(f"its folder {one_line(folder)} is of another package than its name says.")
    return folder


def _check_record(files: Mapping[str, bytes], info: str) -> None:
    """Each file is as the list of files says, and none is missing."""
    path = f"{info}/RECORD"
    if path not in files:
        raise InputError("it has no list of its files (RECORD).")
    try:
        lines = [line for line in csv.reader(io.StringIO(files[path].decode())) if line]
        listed = {line[0]: line[1] for line in lines}
    except (UnicodeDecodeError, IndexError, csv.Error):
        raise InputError("the list of its files (RECORD) cannot be read.") from None
    for name, content in files.items():
        if name == path or name in [f"{info}/{one}" for one in _UNSIGNED]:
            continue
        if name not in listed:
            raise InputError(f"it holds {one_line(name)}, which is not in the list of its files (RECORD).")
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        if listed[name] != f"sha256={digest}":
            raise InputError(f"{one_line(name)} is not what the list of its files (RECORD) says: it was changed.")
    gone = sorted(set(listed) - set(files))
    if gone:
        raise InputError(f"{one_line(gone[0])} is in the list of its files (RECORD) and not there.")


def _headers(files: Mapping[str, bytes], path: str) -> Message:
    if path not in files:
        raise InputError(f"it has no {path.rpartition('/')[2]}.")
    return BytesParser().parsebytes(files[path], headersonly=True)


def _text(metadata: Message, field: str) -> str:
    return one_line(str(metadata.get(field, "")).strip())


def _check_same(metadata: Message, name: str, version: str) -> None:
    try:
        same = canonicalize_name(_text(metadata, "Name")) == name and Version(_text(metadata, "Version")) == Version(
            version
        )
    except InvalidVersion:
        same = False
    if not same:
        raise InputError("its METADATA is of another package or version than its name says.")


def _modules(code: Mapping[str, bytes]) -> tuple[str, ...]:
    """The top-level modules that are importable from it."""
    found = set()
    for path in code:
        top, slash, _ = path.partition("/")
        if slash:
            found.add(top)
        elif top.endswith(".py"):
            found.add(top.removesuffix(".py"))
    return tuple(sorted(one for one in found if one.isidentifier()))


def _entry_points(listed: bytes | None, code: Mapping[str, bytes]) -> tuple[tuple[str, str], ...]:
    parser = ConfigParser(delimiters=("=",), interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names keep their letters
    try:
        parser.read_string((listed or b"").decode())
    except (ConfigError, UnicodeDecodeError) as error:
        raise InputError(f"its entry points cannot be read ({one_line(str(error))}).") from None
    if not parser.has_section(GROUP) or not parser.items(GROUP):
        raise InputError(
            f"it has no entry point in the group {GROUP}, so it is no plugin of Batchdesk. In its pyproject.toml: "
            f'[project.entry-points."{GROUP}"].'
        )
    found = []
    for name, value in parser.items(GROUP):
        module = value.partition(":")[0].partition("[")[0].strip()
        inner = PurePosixPath(*module.split(".")) if module else PurePosixPath("nothing")
        if f"{inner}.py" not in code and f"{inner}/__init__.py" not in code:
            raise InputError(f"its entry point '{one_line(name)}' leads to {one_line(value)}, which it does not hold.")
        found.append((name, value.strip()))
    return tuple(found)


def _hooks(code: Mapping[str, bytes]) -> tuple[str, ...]:
    """The functions that are marked with `hookimpl`, wherever they are."""
    found = set()
    for path, source in code.items():
        if not path.endswith(".py"):
            continue
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None)
            at = f", line {line}" if line else ""
            raise InputError(f"{one_line(path)}{at} is no Python ({one_line(str(error))}).") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _marked(node.decorator_list):
                found.add(node.name)
    return tuple(sorted(found))


def _marked(decorators: Sequence[ast.expr]) -> bool:
    for one in decorators:
        called = one.func if isinstance(one, ast.Call) else one
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == "hookimpl":
            return True
    return False
