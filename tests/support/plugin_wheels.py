"""Plugins as packages outside the repository: wheels made of a source, as a builder would."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from webapp import db
from webapp.installed import installs, versions
from webapp.packages import wheels

# A task that says which version of it has made the output.
SOURCE = """
from webapp.hooks import ModelSettings, Task, hookimpl

class Stamp(Task[ModelSettings]):
    name = "stamp"
    version = "{version}"
    Settings = ModelSettings

    def shared_params(self, settings):
        return settings.base_params()

    def request_params(self, subject, settings):
        return {{"messages": [{{"role": "user", "content": subject.require_text()}}]}}

    def process(self, subject, message, settings):
        return {{"version": "{version}", "words": len(message.text.split())}}

@hookimpl
def register_tasks():
    return [Stamp()]
"""
NAME = "batchdesk-stamp"


def wheel(
    version: str = "1.0",
    source: str = SOURCE,
    *,
    name: str = NAME,
    module: str = "stamping",
    requires: Sequence[str] = (),
    metadata: Sequence[str] = (),
    entry_points: str | None = None,
    files: Mapping[str, str | bytes] | None = None,
    record: str | None = None,
    pure: str = "true",
) -> bytes:
    """The bytes of a wheel.

    :param source: of its one module; ``{version}`` is filled in.
    :param files: others, by path.
    :param record: the list of its files, where it is not to be true.
    """
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    points = f"[batchdesk.plugins]\n{module} = {module}\n" if entry_points is None else entry_points
    headers = [f"Name: {name}", f"Version: {version}", "Summary: Stamps each record.", *metadata]
    headers += [f"Requires-Dist: {one}" for one in requires]
    held: dict[str, bytes] = {
        f"{module}.py": (source.format(version=version) if "{version}" in source else source).encode(),
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", *headers, "", "Words.\n"]).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {pure}\nTag: py3-none-any\n".encode(),
        f"{info}/entry_points.txt": points.encode(),
    }
    for path, content in (files or {}).items():
        held[path] = content if isinstance(content, bytes) else content.encode()
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in held.items()]
    held[f"{info}/RECORD"] = ("\n".join([*lines, f"{info}/RECORD,,"]) if record is None else record).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in held.items():
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


@contextmanager
def unloaded(*modules: str) -> Iterator[None]:
    """Nothing of plugins that were loaded meanwhile is left in this process."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in modules or ("stamping",):
        sys.modules.pop(name, None)


def file_name(version: str = "1.0", name: str = NAME) -> str:
    return f"{name.replace('-', '_')}-{version}-py3-none-any.whl"


def keep(actor: str) -> None:
    """A plugin in two versions, disabled so that nobody loads it; one that waits for a person, one that was refused."""
    with db.transaction() as tx:
        for version in ("1.0", "1.1"):
            versions.put(tx, wheels.read(wheel(version), file_name(version)), [], actor=actor)
        versions.set_enabled(tx, NAME, False, actor=actor)
        waiting = installs.ask(tx, f"{NAME}==1.2", None, actor=actor)
        needy = wheel("1.2", requires=["pydantic>=2", "anyio"], metadata=["Author: Ann"])
        installs.looked_into(tx, waiting, wheels.read(needy, file_name("1.2")), actor=actor)
        broken = installs.ask(tx, file_name("1.3"), b"no wheel", actor=actor)
        installs.refuse(tx, broken, "It cannot be installed: it is no zip file.", actor=actor, traceback="Traceback: 1")
        db.run(tx, "DELETE FROM steps WHERE step = 'install'")


def write(folder: Path, content: bytes, version: str = "1.0", name: str = NAME) -> Path:
    """A wheel as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(version, name)
    path.write_bytes(content)
    return path


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
