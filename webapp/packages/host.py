"""What the host has for a plugin: the libraries that it requires, and the names of modules that are taken.
Asked before a wheel is installed, and again on each machine that loads it; nothing is imported for it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from platform import python_version

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from webapp.errors import InputError
from webapp.packages.wheels import About

OURS = frozenset({"webapp", "plugins", "migrations", "worker"})


def check(about: About, *, apart_from: Collection[Path] = ()) -> None:
    """Pass when a plugin can be installed here.

    :param apart_from: folders of installed plugins, whose modules are not the host's.
    :raises InputError: this Python is not one it takes, libraries are lacking, or a name is taken.
    """
    lacking = lacks(about)
    if lacking:
        raise InputError(
            f"{about.name} {about.version} cannot be installed: this Batchdesk lacks what it needs:\n"
            + "\n".join(f"  - {one}" for one in lacking)
            + "\nBatchdesk installs no libraries: whoever runs it adds them where the web and the workers run, and "
            "starts these again."
        )
    if _distribution(about.name, apart_from):
        raise InputError(
            f"{about.name} is in the environment that Batchdesk runs in already, so it cannot be installed beside it."
        )
    for module in about.modules:
        where = _taken(module, apart_from)
        if where:
            raise InputError(
                f"{about.name} {about.version} cannot be installed: its module '{module}' has the name of {where}. "
                "Its author must rename it."
            )


def lacks(about: About) -> list[str]:
    """What a plugin needs and this host has not, in words."""
    return [*_python(about.requires_python), *_libraries(about)]


def _python(wanted: str) -> Iterator[str]:
    try:
        fits = SpecifierSet(wanted).contains(python_version(), prereleases=True)
    except InvalidSpecifier:
        fits = False
    if not fits:
        yield f"Python {wanted}; this is {python_version()}"


def _libraries(about: About) -> Iterator[str]:
    for line in about.requires:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            yield f"'{line}', which is not written as requirements are"
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            here = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name}{wanted.specifier}, which is not there"
            continue
        if not wanted.specifier.contains(here, prereleases=True):
            yield f"{wanted.name}{wanted.specifier}; {here} is there"


def _distribution(name: str, apart_from: Collection[Path]) -> bool:
    for found in metadata.distributions(path=_path(apart_from)):
        if canonicalize_name(found.metadata["Name"] or "") == name:
            return True
    return False


def _taken(module: str, apart_from: Collection[Path]) -> str:
    """Whose a top-level name is already; empty: nobody's."""
    if module in sys.stdlib_module_names or module in sys.builtin_module_names:
        return "one of Python's own"
    if module in OURS:
        return "one of Batchdesk's own"
    found = PathFinder.find_spec(module, _path(apart_from))
    if found is None:
        return ""
    where = found.origin or next(iter(found.submodule_search_locations or ()), "")
    return f"one that is there already ({where})"


def _path(apart_from: Collection[Path]) -> list[str]:
    return [one for one in sys.path if Path(one or ".").absolute() not in apart_from]
