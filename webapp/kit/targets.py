"""Finds the plugins that a path stands for: a file, the folder of a package, a wheel; and loads each of them alone.
The command `plugins check` and the fixture `run_task` look here; the desk itself loads by `webapp.hooks.loading`.
"""

from __future__ import annotations

import sys
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

from webapp.errors import InputError
from webapp.hooks import Registry
from webapp.hooks.loading import ENTRY_POINTS, load_file, load_plugin


@dataclass(frozen=True, slots=True)
class Target:
    """One plugin to be loaded by itself.

    :param source: where it is, as people are told.
    :param value: the module that an entry point names; empty for a file.
    :param folder: what Python must look into for that module.
    """

    name: str
    source: str
    version: str = ""
    value: str = ""
    folder: str = ""

    def load(self) -> Registry:
        """What it brings, or its problem."""
        if not self.value:
            return load_file(Path(self.source))
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        load: Callable[[], object] = EntryPoint(self.name, self.value, ENTRY_POINTS).load
        return load_plugin(self.name, load, source=self.source, version=self.version)


def find(path: Path, unpacked: Path | None = None) -> list[Target]:
    """The plugins of a path.

    :param unpacked: an empty folder for what is in a wheel.
    :raises InputError: there is none; says why.
    """
    path = path.resolve()
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    if path.suffix == ".py":
        return [Target(path.stem, str(path))]
    if path.suffix == ".whl" and unpacked is not None:
        return _in_wheel(path, unpacked)
    raise InputError(f"{path} is no plugin: give a .py file, the folder of a package, or its wheel.")


def _in_folder(folder: Path) -> list[Target]:
    described = folder / "pyproject.toml"
    if not described.is_file():
        raise InputError(f"{folder} has no pyproject.toml: give the folder of a package, or the path of a .py file.")
    try:
        project = tomllib.loads(described.read_text("utf-8")).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{described} cannot be read: {error}.") from None
    named = project.get("entry-points", {}).get(ENTRY_POINTS, {})
    find_folder = partial(_folder_of, folder)
    return _targets(str(folder), named, str(project.get("version", "")), str(described), find_folder)


def _folder_of(folder: Path, value: str) -> Path:
    """Where the module of an entry point begins: in `src`, or beside the project's description."""
    first = value.partition(":")[0].partition(".")[0].strip()
    for place in (folder / "src", folder):
        if (place / f"{first}.py").is_file() or (place / first).is_dir():
            return place
    raise InputError(f"{folder} has no module '{first}', which its entry point names, neither in src nor beside it.")


def _in_wheel(wheel: Path, unpacked: Path) -> list[Target]:
    _, _, tags = wheel.stem.rpartition("-")
    if tags != "any" or "-none-" not in wheel.stem:
        raise InputError(
            f"{wheel.name} is built for one system: a plugin is a pure wheel, whose name ends in none-any."
        )
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{wheel} cannot be read: {error}.") from None
    parser = ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    try:
        parser.read(unpacked.glob("*.dist-info/entry_points.txt"), "utf-8")
    except ConfigError as error:
        raise InputError(f"{wheel.name}: its entry_points.txt cannot be read: {error}.") from None
    named = dict(parser[ENTRY_POINTS]) if ENTRY_POINTS in parser else {}
    _, version, *_ = [*wheel.stem.split("-"), "", ""]
    return _targets(wheel.name, named, version, wheel.name, lambda _: unpacked)


def _targets(
    source: str, named: Mapping[str, str], version: str, where: str, folder_of: Callable[[str], Path]
) -> list[Target]:
    if not named:
        raise InputError(f'{where} names no plugin: it needs a table [project.entry-points."{ENTRY_POINTS}"].')
    return [Target(name, source, version, value, str(folder_of(value))) for name, value in named.items()]
