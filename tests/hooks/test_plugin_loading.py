"""What loading finds: files, installed packages, nothing in safe mode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from webapp.errors import NotFound
from webapp.hooks import Registry, load_plugins

SHIPPED = Path(__file__).parents[2] / "plugins"
PLUGIN = """
from typing import Any
from pydantic import BaseModel
from webapp.hooks import Task, hookimpl

__version__ = "0.7"

class Settings(BaseModel):
    part: "Part | None" = None

class Part(BaseModel):
    size: int

class Measure(Task[Settings]):
    name = "measure"
    Settings = Settings
    def shared_params(self, settings: Settings) -> dict[str, Any]:
        return {"model": "claude-haiku-5-5", "max_tokens": 5}
    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.key}]}
    def process(self, subject, message, settings):
        return message.text

@hookimpl
def register_tasks():
    return [Measure()]
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str = "measuring") -> None:
    """Lays out what pip would for a package with an entry point, and puts it on the path."""
    info = folder / "batchdesk_measuring-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: batchdesk-measuring\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text(f"[batchdesk.plugins]\nmeasuring = {value}\n")
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


def test_the_shipped_plugins_load_without_a_problem() -> None:
    registry = load_plugins(folder=SHIPPED, entry_points=False)
    assert sorted(registry.tasks) == ["alt_text", "classify", "evaluate", "extract", "summarise"]
    assert registry.problems == ()
    assert sorted(registry.sinks) == ["sql_table", "webhook"]
    assert [one.plugin.name for one in registry.listeners] == ["notify"]


def test_a_file_is_loaded_with_its_path_version_and_tasks(empty: Path) -> None:
    (empty / "measuring.py").write_text(PLUGIN)
    [plugin] = load_plugins(folder=empty, entry_points=False).plugins
    assert (plugin.name, plugin.source, plugin.version) == ("measuring", str(empty / "measuring.py"), "0.7")
    assert plugin.tasks == ("measure",)


def test_a_title_is_made_of_the_name_when_there_is_none(empty: Path) -> None:
    (empty / "measuring.py").write_text(PLUGIN.replace('"measure"', '"measure_twice"'))
    assert load_plugins(folder=empty, entry_points=False).task("measure_twice").title == "Measure twice"


def test_files_that_start_with_an_underscore_are_not_plugins(empty: Path) -> None:
    (empty / "_helper.py").write_text("1 / 0")
    (empty / "notes.txt").write_text("1 / 0")
    assert load_plugins(folder=empty, entry_points=False) == Registry()


def test_a_file_named_like_a_standard_module_does_not_take_its_place(empty: Path) -> None:
    (empty / "json.py").write_text(PLUGIN)
    assert "measure" in load_plugins(folder=empty, entry_points=False).tasks
    assert "measure" not in dir(sys.modules["json"])


def test_a_missing_folder_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    [problem] = load_plugins(folder=tmp_path / "gone", entry_points=False).problems
    assert f"{tmp_path / 'gone'} does not exist" in problem.error


def test_an_installed_package_is_loaded_by_its_entry_point(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "measuring.py").write_text(PLUGIN)
    install(tmp_path, monkeypatch)
    registry = load_plugins(folder=empty)
    [plugin] = [plugin for plugin in registry.plugins if plugin.name == "measuring"]
    assert (plugin.source, plugin.version) == ("batchdesk-measuring 2.1", "2.1")
    assert registry.task("measure").name == "measure"
    assert "measure" not in load_plugins(folder=empty, entry_points=False).tasks


def test_an_installed_package_that_does_not_import_is_named_by_its_distribution(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "not_there_at_all")
    [problem] = load_plugins(folder=empty).problems
    assert (problem.plugin, problem.source) == ("measuring", "batchdesk-measuring 2.1")
    assert "No module named 'not_there_at_all'" in problem.error


def test_safe_mode_imports_nothing(empty: Path) -> None:
    (empty / "loud.py").write_text("raise KeyboardInterrupt")
    assert load_plugins(folder=empty, safe_mode=True) == Registry()


def test_an_unknown_task_names_the_closest_and_the_known() -> None:
    registry = load_plugins(folder=SHIPPED, entry_points=False)
    with pytest.raises(
        NotFound, match=r"Did you mean 'summarise'\? Known tasks: alt_text, classify, evaluate, extract, summarise"
    ):
        registry.task("summarize")


def test_an_unknown_task_says_when_no_plugin_is_loaded() -> None:
    with pytest.raises(NotFound, match="no plugin is loaded"):
        Registry().task("classify")


def test_the_registry_cannot_be_changed() -> None:
    registry = load_plugins(folder=SHIPPED, entry_points=False)
    with pytest.raises(TypeError):
        registry.tasks["mine"] = registry.task("classify")  # type: ignore[index]


def test_the_contract_imports_nothing_of_batchdesk_but_errors() -> None:
    code = "import sys, webapp.hooks; print(*(m for m in sys.modules if m.startswith('webapp.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if not name.startswith("webapp.hooks")}
    assert loaded == {"webapp.errors"}


def test_a_file_that_was_changed_within_a_second_is_loaded_as_it_stands(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = empty / "measuring.py"
    for version in ("0.7", "0.8", "0.9"):
        file.write_text(PLUGIN.replace('"0.7"', f'"{version}"'))
        os.utime(file, (1_000_000_000, 1_000_000_000))
        (plugin,) = load_plugins(folder=empty, entry_points=False).plugins
        assert plugin.version == version
