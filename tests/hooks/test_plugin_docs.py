"""The page on writing plugins says all there is, and its code runs."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pluggy
import pytest
from click.testing import CliRunner

from webapp import hooks
from webapp.cli import main
from webapp.errors import PluginError
from webapp.hooks import calls, specs
from webapp.hooks.checks import FORBIDDEN
from webapp.hooks.contract import check_api_version
from webapp.hooks.loading import load_file
from webapp.kit.playing import Outcome
from webapp.kit.sandboxes import Sandbox
from webapp.kit.scaffold import write_package
from webapp.kit.testing import RunTask

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


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has who has followed the page: a new package, with the page's code in it."""
    folder = tmp_path_factory.mktemp("page") / "batchdesk-sentiment"
    write_package("sentiment", folder, hooks.Registry())
    for name, code in CODE:
        (folder / name).write_text(code)
    return folder


def test_every_block_of_code_is_run_or_compared() -> None:
    assert set(re.findall(r"```(\w*)\n", PAGE)) == {"python", "sh", "text", "toml", ""}
    assert PAGE.count("```python\n") == len(CODE)


def test_the_code_of_the_page_runs_and_its_tests_pass(package: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    plugins = ["-p", "webapp.kit.testing", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugins]
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    tests = sum(code.count("\ndef test_") for _, code in CODE)
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr


def test_the_plugins_of_the_page_load(package: Path) -> None:
    files = sorted(package.glob("batchdesk_*.py"))
    assert len(files) == 4
    for file in files:
        assert load_file(file).problems == ()


def test_the_check_says_what_the_page_says(package: Path) -> None:
    [shown] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    done = CliRunner().invoke(main, ["plugins", "check", str(package)], catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, shown)


def test_the_page_has_the_entry_point_of_a_new_package(package: Path) -> None:
    [shown] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert shown in (package / "pyproject.toml").read_text()


def test_every_command_of_the_page_is_one() -> None:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    named = re.findall(r"`batchdesk (plugins [a-z]+)", PAGE.replace("\n", " "))
    assert "batchdesk plugins new sentiment" in lines and "plugins check" in named
    for words in [line.split()[1:] for line in lines if line.startswith("batchdesk")]:
        command, context = main, click.Context(main)
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
        command.make_context("batchdesk", words, resilient_parsing=False)


def test_the_message_for_another_version_of_the_contract_is_on_the_page() -> None:
    with pytest.raises(PluginError) as caught:
        check_api_version(SimpleNamespace(api_version=hooks.API_VERSION + 1))
    assert str(caught.value) in re.sub(r"\n> ", " ", PAGE)


def test_the_fixtures_are_documented_with_all_they_give() -> None:
    signature_of_run = inspect.signature(RunTask.__call__)
    assert list(signature_of_run.parameters) == ["self", "task", "records", "answers", "settings"]
    for name in ["task", "records", "answers", "settings", "output", *(field.name for field in fields(Outcome))]:
        assert f"| `{name}` |" in under("### `run_task`"), name
    for name in ["url", *(name for name in vars(Sandbox) if not name.startswith("_") and name != "stop")]:
        assert re.search(rf"\| `{name}[`(]", under("### `sandbox`")), name


def under(heading: str) -> str:
    return PAGE[PAGE.index(f"{heading}\n") :].split("\n##", 2)[0]


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
