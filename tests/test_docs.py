"""The documentation says all there is: each setting, state, move, class and command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import click
import pytest
from pydantic_core import PydanticUndefined

from webapp.batches.states import (
    BATCH_MOVES,
    DELIVERY_MOVES,
    INSTALL_MOVES,
    RUN_MOVES,
    UPLOAD_MOVES,
    BatchState,
    DeliveryState,
    FailureClass,
    InstallState,
    OutputState,
    RequestState,
    RunState,
    UploadState,
)
from webapp.batches.steps import StepName
from webapp.cli import main
from webapp.settings import VARIABLES, PollSchedule, Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


def rows(text: str, title: str) -> dict[str, str]:
    """A table's first column and its second, by the title of its first column."""
    table = re.search(rf"^\| {re.escape(title)} \|.*\n\| --- .*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table, f"there is no table of '{title}'"
    cells = [line.strip("|").split("|") for line in table[1].splitlines()]
    return {row[0].strip().strip("`"): row[1].strip() for row in cells}


# -- settings --------------------------------------------------------------------------------------------------


def default(field: str) -> str:
    """A setting's default, as one would write it in the environment."""
    value = Settings.model_fields[field].default
    if value is None or value is PydanticUndefined:
        return "absent"
    if isinstance(value, PollSchedule):
        parts = ["*" if age == float("inf") else f"{age:g}" for age, _ in value]
        value = ",".join(f"{part}:{every:g}" for part, (_, every) in zip(parts, value, strict=True))
    elif isinstance(value, bool):
        value = int(value)
    elif isinstance(value, float):
        value = f"{value:g}"
    return f"`{value}`"


@pytest.mark.parametrize("name", VARIABLES)
def test_each_setting_is_documented_with_its_default_and_meaning(name: str) -> None:
    field = VARIABLES[name]
    secret = " ●" if "Secret" in str(Settings.model_fields[field].annotation) else ""
    line = f"| `{name}`{secret} | {default(field)} | {Settings.model_fields[field].description} |"
    assert line in page("settings").splitlines()


def test_no_setting_is_documented_that_does_not_exist() -> None:
    for path in PAGES:
        named = set(re.findall(r"\bBATCHDESK_[A-Z_]+[A-Z]\b", path.read_text()))
        assert named <= set(VARIABLES), path.name


# -- states ----------------------------------------------------------------------------------------------------


def meanings(states: type[StrEnum]) -> dict[str, str]:
    """Each value of an enum of states and its half-line meaning, from the source."""
    source = (ROOT / "webapp" / "batches" / "states.py").read_text()
    body = source.partition(f"class {states.__name__}(StrEnum):")[2].partition("\n\n\n")[0]
    return dict(re.findall(r'= "(\w+)"  # (.+)', body))


@pytest.mark.parametrize(
    ("states", "title"),
    [
        (RunState, "state of a run"),
        (BatchState, "state of a batch"),
        (UploadState, "state of an upload"),
        (InstallState, "state of an installation"),
        (DeliveryState, "state of a delivery"),
        (RequestState, "state of a request or item"),
        (OutputState, "state of an output"),
    ],
)
def test_each_state_is_documented_with_its_meaning(states: type[StrEnum], title: str) -> None:
    assert set(meanings(states)) == {state.value for state in states}
    assert rows(page("lifecycle"), title) == meanings(states)


def test_each_class_of_failures_is_documented() -> None:
    assert set(rows(page("lifecycle"), "class")) == {failure.value for failure in FailureClass}


def test_each_step_is_on_the_road() -> None:
    road = page("lifecycle").partition("## The road")[2].partition("## Runs")[0]
    for step in StepName:
        assert re.search(rf"\*\*{step.value}\*\*", road, re.IGNORECASE), step


def drawn(number: int) -> set[tuple[str, str]]:
    """The arrows of one of the page's diagrams."""
    diagrams = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", page("lifecycle"), re.DOTALL)
    return set(re.findall(r"(\S+) --> (\S+)", diagrams[number]))


def moves(
    table: dict[BatchState, tuple[BatchState, ...]]
    | dict[RunState, tuple[RunState, ...]]
    | dict[UploadState, tuple[UploadState, ...]]
    | dict[InstallState, tuple[InstallState, ...]]
    | dict[DeliveryState, tuple[DeliveryState, ...]],
) -> set[tuple[str, str]]:
    return {(source.value, target.value) for source, targets in table.items() for target in targets}


def test_the_diagram_of_runs_is_the_table_of_moves() -> None:
    assert drawn(0) == moves(RUN_MOVES) | {("[*]", "planning")}


def test_the_diagram_of_batches_is_the_table_of_moves() -> None:
    assert drawn(1) == moves(BATCH_MOVES) | {("[*]", "planned"), ("discarded", "[*]")}


def test_the_diagram_of_uploads_is_the_table_of_moves() -> None:
    assert drawn(2) == moves(UPLOAD_MOVES) | {("[*]", "waiting")}


def test_the_diagram_of_installations_is_the_table_of_moves() -> None:
    assert drawn(3) == moves(INSTALL_MOVES) | {("[*]", "fetching")}


def test_the_diagram_of_deliveries_is_the_table_of_moves() -> None:
    assert drawn(4) == moves(DELIVERY_MOVES) | {("[*]", "waiting")}


# -- commands --------------------------------------------------------------------------------------------------


def commands(group: click.Command = main, path: str = "batchdesk") -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if not command.hidden:
            yield from commands(command, f"{path} {name}")


COMMANDS = dict(commands())


def section(name: str) -> str:
    """What docs/cli.md says under the heading of a command, or of the group it belongs to."""
    text = page("cli")
    for heading in (name, name.rpartition(" ")[0]):
        found = re.search(rf"^## `?{re.escape(heading)}\b.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        if found:
            return found[0]
    raise AssertionError(f"docs/cli.md has no section on `{name}`")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_documented_with_its_options(name: str) -> None:
    text = section(name)
    assert name.rpartition(" ")[2] in text
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden and parameter.name != "help":
            for option in parameter.opts:
                if option.startswith("--"):
                    assert f"`{option}" in text, f"{name} {option}"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_does(name: str) -> None:
    assert COMMANDS[name].help
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{name} {parameter.name}"


def test_no_command_is_documented_that_does_not_exist() -> None:
    known = {name.split()[1] for name in COMMANDS}
    for path in PAGES:
        named = set(re.findall(r"`(?:\.venv/bin/)?batchdesk ([a-z]+)", path.read_text()))
        assert named <= known, path.name


# -- pages -----------------------------------------------------------------------------------------------------


def test_links_between_pages_lead_somewhere() -> None:
    for path in PAGES:
        for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    rest = [ROOT / "README.md"]
    while rest:
        path = rest.pop()
        if path not in seen:
            seen.add(path)
            links = re.findall(r"\]\(([^)#:]+?\.md)(?:#[^)]*)?\)", path.read_text())
            rest += [(path.parent / link).resolve() for link in links if (path.parent / link).exists()]
    assert {path.name for path in PAGES} <= {path.name for path in seen}
