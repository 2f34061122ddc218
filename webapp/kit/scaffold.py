"""Writes the package of a new plugin, from the files in `package/`: a module, its tests, and what builds a wheel.
The command `plugins new` calls it.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from webapp.errors import InputError
from webapp.hooks import API_VERSION, Registry

TEMPLATES = Path(__file__).with_name("package")
# The file that is written, and the template that it is made of.
FILES = {
    "{module}.py": "module.py.txt",
    "tests/test_{name}.py": "test_module.py.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
}
NAME = re.compile(r"[a-z][a-z0-9_]*")
NAME_LIMIT = 50


def write_package(name: str, folder: Path, registry: Registry) -> list[Path]:
    """Write a package whose task has that name, and return its files.

    :param folder: for the package; it must not exist, or be empty.
    :param registry: what is loaded here, whose names are taken.
    :raises InputError: the name or the folder is no use; nothing was written.
    """
    _check_name(name, registry)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already. Nothing was written: name another with --folder.")
    words = _words(name)
    files = []
    for path, template in FILES.items():
        file = folder / path.format(**words)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as writing:
            writing.write(_filled((TEMPLATES / template).read_text("utf-8"), words))
        files.append(file)
    return files


def distribution(name: str) -> str:
    """What pip calls the package of a plugin."""
    return f"batchdesk-{name.strip('_').replace('_', '-')}"


def _words(name: str) -> dict[str, str]:
    return {
        "name": name,
        "module": f"batchdesk_{name}",
        "distribution": distribution(name),
        "class": "".join(part.capitalize() for part in name.split("_")),
        "title": name.replace("_", " ").strip().capitalize(),
        "api_version": str(API_VERSION),
    }


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda gap: words[gap[1]], text)


def _check_name(name: str, registry: Registry) -> None:
    if not NAME.fullmatch(name) or len(name) > NAME_LIMIT or "__" in name or name.endswith("_"):
        raise InputError(
            f"{name!r} is no name for a plugin: use a lower-case letter, then lower-case letters, digits and single _, "
            f"at most {NAME_LIMIT}."
        )
    if keyword.iskeyword(name):
        raise InputError(f"'{name}' is a word of Python's own: choose another name.")
    for plugin in registry.plugins:
        if name == plugin.name or name in plugin.tasks:
            raise InputError(f"The name '{name}' is taken by plugin '{plugin.name}' ({plugin.source}): choose another.")
    for problem in registry.problems:
        if name == problem.plugin:
            raise InputError(f"The name '{name}' is taken by plugin '{name}' ({problem.source}): choose another.")
