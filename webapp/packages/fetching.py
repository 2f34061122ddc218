"""Gets a plugin's wheel: from a file, built from a folder, or by pip from a package index. pip works in folders of its
own and never touches the environment that Batchdesk runs in; no source of a package from an index is built.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from webapp.errors import InputError
from webapp.packages.wheels import MOST_BYTES, Wheel, read
from webapp.records.escapes import one_line

SECONDS = 300.0
_LOOK_SECONDS = 0.1
_TOLD = 600  # characters of what pip says last


def requirement(text: str) -> str:
    """A package as pip names it, with a version or without.

    :raises InputError: it is something else, as an address, an option or a path is.
    """
    try:
        wanted = Requirement(text.strip())
    except InvalidRequirement:
        wanted = None
    if wanted is None or wanted.url or wanted.extras or wanted.marker:
        raise InputError(f"'{one_line(text.strip())}' is no package: write its name, or NAME==VERSION.")
    return f"{wanted.name}{wanted.specifier}"


def from_file(path: Path) -> Wheel:
    """The wheel in a file.

    :raises InputError: it cannot be read, or is no plugin.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    return read(content, path.name)


def from_folder(folder: Path) -> Wheel:
    """A wheel of the project in a folder, built beside it. Its build runs its own code: for those who may run code.

    :raises InputError: it cannot be built, or is no plugin.
    """
    project = folder / "pyproject.toml"
    if not project.is_file():
        raise InputError(f"{folder} is no project: it has no pyproject.toml.")
    try:
        system = tomllib.loads(project.read_text("utf-8")).get("build-system", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{project} cannot be read: {one_line(str(error))}.") from None
    # What is there already need not be got for the build.
    alone = () if not _has_builder(system) else ("--no-build-isolation",)
    with tempfile.TemporaryDirectory(prefix="batchdesk-build-") as name:
        _pip(("wheel", "--no-deps", *alone, "--wheel-dir", name, str(folder.absolute())), lambda: None)
        return _only(Path(name), str(folder))


def from_index(wanted: str, look: Callable[[], None] = lambda: None) -> Wheel:
    """A wheel from the package index that pip is set up for; nothing of it is built or runs.

    :param wanted: of `requirement`.
    :param look: called now and then; what it raises ends pip.
    :raises InputError: there is none, or it is no plugin.
    """
    with tempfile.TemporaryDirectory(prefix="batchdesk-fetch-") as name:
        _pip(("download", "--no-deps", "--only-binary=:all:", "--dest", name, requirement(wanted)), look)
        return _only(Path(name), wanted)


def _has_builder(system: object) -> bool:
    needs = system.get("requires", ["setuptools"]) if isinstance(system, dict) else []
    try:
        wanted = [Requirement(one) for one in needs]
        here = all(one.specifier.contains(metadata.version(one.name), prereleases=True) for one in wanted)
    except (InvalidRequirement, metadata.PackageNotFoundError, TypeError):
        return False
    return here and bool(wanted)


def _only(folder: Path, what: str) -> Wheel:
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise InputError(f"{what}: no wheel came of it.")
    return from_file(wheels[0])


def _pip(arguments: Sequence[str], look: Callable[[], None]) -> None:
    """:raises InputError: it failed; with what it said last."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT, env=_environment()
        )
        deadline = time.monotonic() + SECONDS
        try:
            while process.poll() is None:
                look()
                if time.monotonic() > deadline:
                    raise InputError(f"pip did not come back within {SECONDS:g} seconds.")
                time.sleep(_LOOK_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        if process.returncode:
            words.seek(0)
            raise InputError(f"pip got no wheel: {_last(words.read().decode(errors='replace'))}")


def _environment() -> dict[str, str]:
    """Without our secrets: what is built in a folder runs its own code."""
    secret = ("ANTHROPIC_API_KEY", "DATABASE_URL", "REDIS_URL", "BATCHDESK_SECRET_KEY", "BATCHDESK_ADMIN_PASSWORD")
    return {name: value for name, value in os.environ.items() if name not in secret}


def _last(words: str) -> str:
    errors = [line.strip() for line in words.splitlines() if "error" in line.lower()] or words.splitlines()[-3:]
    return one_line(" ".join(errors))[:_TOLD] or "it said nothing."
