"""The page on writing plugins says all there is, and its code runs."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pluggy
import pytest

from webapp import hooks
from webapp.hooks import calls, specs
from webapp.hooks.checks import FORBIDDEN

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-plugin.md").read_text()
CODE = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)


def signature(function: Any) -> str:
    return f"{function.__name__}{inspect.signature(function)}".replace("'", "")


def public(kind: type) -> list[str]:
    names = [field.name for field in fields(kind)]
    return names + [name for name in vars(kind) if not name.startswith("_") and name not in names]


def section(kind: type) -> str:
    """What the page says under the heading of a class, as far as the next heading of that rank."""
    return PAGE[PAGE.index(f"\n## The {kind.__name__.lower()}\n") :].split("\n## ", 2)[1]


def test_the_code_of_the_page_runs_and_its_tests_pass(tmp_path: Path) -> None:
    for name, code in CODE:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_every_hook_is_documented_with_its_exact_signature() -> None:
    manager = pluggy.PluginManager(specs.PROJECT)
    manager.add_hookspecs(specs)
    for name in vars(manager.hook):
        assert f"### `{signature(getattr(specs, name))}`\n" in PAGE


@pytest.mark.parametrize("kind", [hooks.Task, hooks.Source, hooks.Sink], ids=lambda kind: kind.__name__)
def test_every_method_of_what_plugins_derive_from_is_documented_with_its_exact_signature(kind: type) -> None:
    methods = [value for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert methods
    for method in methods:
        assert f"### `{signature(method)}`\n" in section(kind), method


@pytest.mark.parametrize("kind", [hooks.Task, hooks.Source, hooks.Sink], ids=lambda kind: kind.__name__)
def test_every_attribute_of_what_plugins_derive_from_is_documented(kind: type) -> None:
    for name in inspect.get_annotations(kind):
        assert f"`{name}`" in section(kind)


PAYLOADS = [hooks.Subject, hooks.Image, hooks.Message, hooks.RunFacts, hooks.Record, hooks.OutputRecord]
RESULTS = [hooks.Registry, hooks.Hooked, hooks.PluginInfo, hooks.PluginProblem]


@pytest.mark.parametrize("kind", [*PAYLOADS, *RESULTS], ids=lambda kind: kind.__name__)
def test_every_part_of_a_payload_is_documented(kind: type) -> None:
    start = PAGE.index(f"### `{kind.__name__}`") if f"### `{kind.__name__}`" in PAGE else PAGE.index("### For tests")
    part = PAGE[start:].split("\n### ", 2)[0]
    for name in public(kind):
        assert re.search(rf"`{name}[`(]", part), f"{kind.__name__}.{name}"


def test_every_exported_name_is_on_the_page() -> None:
    for name in hooks.__all__:
        assert re.search(rf"\b{name}\b", PAGE), name


def test_every_refused_parameter_is_on_the_page() -> None:
    for name in FORBIDDEN:
        assert f"`{name}`" in PAGE, name


def test_every_checked_call_is_on_the_page() -> None:
    for function in (calls.shared_params, calls.request_params, calls.process):
        arguments = ", ".join(inspect.signature(function).parameters)
        assert f"`calls.{function.__name__}({arguments})`" in PAGE


def test_the_current_version_of_the_contract_is_on_the_page() -> None:
    assert f"`API_VERSION`,\nwhich is {hooks.API_VERSION}" in PAGE
