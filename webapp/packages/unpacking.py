"""Unpacked wheels: one folder per version below the home, made whole or not at all, whoever makes it first.
Whoever loads installed plugins calls it; several processes, and machines with a home in common, may do so at once.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from webapp.errors import PluginError

HALF_MADE_SECONDS = 3600.0  # after which nobody is at it any more
_BEING_MADE = ".making-"


def folder_name(name: str, version: str, sha256: str) -> str:
    """The name of a version's folder."""
    return f"{name}-{version}-{sha256[:12]}"


def unpacked(home: Path, name: str, version: str, sha256: str, wheel: Callable[[], bytes]) -> Path:
    """The folder of a version; made when it is not there.

    :param sha256: of the wheel, which must have it.
    :param wheel: gets the wheel, when it is needed; it was looked into before it was stored.
    :raises PluginError: the wheel is not the one that was installed, or cannot be written here.
    """
    folder = home / "plugins" / folder_name(name, version, sha256)
    if folder.is_dir():
        return folder
    content = wheel()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PluginError(f"The wheel of {name} {version} is not the one that was installed: its sha256 differs.")
    try:
        _make(folder, content)
    except OSError as error:
        raise PluginError(f"{name} {version} cannot be unpacked in {folder.parent}: {error.strerror}.") from error
    return folder


def _make(folder: Path, content: bytes) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=_BEING_MADE, dir=folder.parent))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(making)  # every path was checked before the wheel was stored
        # Somebody else may have been faster, with the same.
        with suppress(OSError):
            making.rename(folder)
        if not folder.is_dir():
            raise OSError(None, "it cannot be put in place")
    finally:
        shutil.rmtree(making, ignore_errors=True)


def present(home: Path) -> set[str]:
    """The names of the folders that there are; to be asked before what is kept is, so that none is missed there."""
    with suppress(OSError):
        return {folder.name for folder in (home / "plugins").iterdir()}
    return set()


def forget(home: Path, names: Collection[str]) -> None:
    """Remove folders of versions that are not kept any more, and what killed processes have left half-made."""
    for name in names:
        folder = home / "plugins" / name
        with suppress(OSError):
            if not name.startswith(_BEING_MADE) or time.time() - folder.stat().st_mtime > HALF_MADE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
