"""The zoo of installed plugins: each breaks in its own way, is refused or left out by name, and the others go on.

What plugin code does while requests are built and answers processed is in `test_bounds`, and files in `tests/hooks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from support.desk import DeskDriver, documents, make_settings
from support.plugin_wheels import SOURCE, file_name, unloaded, wheel
from support.services import create_database, drop_database

from webapp import create_app, wishes
from webapp.batches import bounded, processing
from webapp.db import db, transaction
from webapp.hooks.loading import Loader
from webapp.installed import overview, pluginset
from webapp.local import Services

MEGABYTE = 1 << 20
OTHER_HOOK = """
from webapp.hooks import hookimpl

@hookimpl
def {hook}():
    raise OSError("the {hook} of this one")
"""

# What is wrong, and what is said of it; where its code raised, a piece of the traceback.
ZOO: dict[str, tuple[dict[str, Any], str, str]] = {
    "cannot be imported": (
        {"source": "import no_such_module_anywhere"},
        "It cannot be imported: ModuleNotFoundError: No module named 'no_such_module_anywhere'",
        "stamping.py",
    ),
    "is no Python": ({"source": "def register_tasks(:\n"}, "stamping.py, line 1 is no Python", ""),
    "has no entry point": ({"entry_points": ""}, "no entry point in the group batchdesk.plugins", ""),
    "leads to nothing": (
        {"entry_points": "[batchdesk.plugins]\nx = nowhere:plugin\n"},
        "its entry point 'x' leads to nowhere:plugin, which it does not hold",
        "",
    ),
    "leads to no attribute": (
        {"entry_points": "[batchdesk.plugins]\nx = stamping:nothing\n"},
        "Plugin 'x' (batchdesk-stamp 1.0) is left out. It cannot be imported: AttributeError",
        "nothing",
    ),
    "misspells a hook": (
        {"source": SOURCE.replace("def register_tasks", "def register_task")},
        "There is no hook 'register_task'. Did you mean 'register_tasks'?",
        "",
    ),
    "has another signature": (
        {"source": SOURCE.replace("register_tasks()", "register_tasks(app)")},
        "A hook has another signature than the contract's",
        "",
    ),
    "takes a name": (
        {"source": SOURCE.replace('name = "stamp"', 'name = "classify"')},
        "Its task 'classify' clashes with the one of plugin 'classify'",
        "",
    ),
    "raises in register_tasks": (
        {"source": OTHER_HOOK.format(hook="register_tasks")},
        "Its hook register_tasks failed: OSError: the register_tasks of this one",
        "in register_tasks",
    ),
    "raises in register_sources": (
        {"source": OTHER_HOOK.format(hook="register_sources")},
        "Its hook register_sources failed: OSError: the register_sources of this one",
        "in register_sources",
    ),
    "raises in register_sinks": (
        {"source": OTHER_HOOK.format(hook="register_sinks")},
        "Its hook register_sinks failed: OSError: the register_sinks of this one",
        "in register_sinks",
    ),
    "never ends": (
        {"source": "while True:\n    pass\n"},
        "took more than 1 seconds of processor time when it was tried",
        "",
    ),
    "crashes": (
        {"source": "import ctypes\nctypes.string_at(0)\n"},
        "ended its process 2 times (SIGSEGV, Segmentation fault) when it was tried",
        "",
    ),
    "leaves": ({"source": "import os\nos._exit(0)\n"}, "ended its process 2 times (exit status 0)", ""),
    "eats memory": (
        {"source": "kept = []\nwhile True:\n    kept.append('x' * 10_000_000)\n"},
        "It cannot be imported: MemoryError",
        "stamping.py",
    ),
    "wants another contract": (
        {"source": "api_version = 99\n" + SOURCE},
        "asks for version 99 of the plugin contract",
        "",
    ),
}


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """Bounds that are reached in a moment."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bounded, "CPU_SECONDS", 1)
        patched.setattr(bounded, "MEMORY_BYTES", 100 * MEGABYTE)
        yield


@pytest.fixture(scope="module")
def kept(
    services: Services, template: str, tmp_path_factory: pytest.TempPathFactory, narrow: None
) -> Iterator[dict[str, Any]]:
    """All of the zoo asked for and confirmed at the dashboard, in one installation; what became of each."""
    name = f"zoo_{uuid4().hex[:12]}"
    changes = {"BATCHDESK_HOME": str(tmp_path_factory.mktemp("zoo")), "BATCHDESK_PLUGIN_INSTALL": "web"}
    app = create_app(make_settings(create_database(services, name, template), services, sandbox_url=None, **changes))
    with app.app_context(), unloaded():
        yield _all_of_it(app)
        db.engine.dispose()
    drop_database(services, name)


def _all_of_it(app: Flask) -> dict[str, Any]:
    desk = DeskDriver(app)
    asked = {}
    for kind, (changes, _, _) in ZOO.items():
        asked[kind] = wishes.ask_plugin_fetch(file_name(), content=wheel(**changes), actor="ada")
    desk.perform_due()
    for (install_id,) in desk.rows("SELECT id FROM plugin_installs WHERE state = 'waiting'"):
        wishes.ask_plugin_install(install_id, actor="ada")
    desk.perform_due()
    assert desk.rows("SELECT * FROM steps") == []
    with transaction() as tx:
        assert overview.installed(tx) == []
        return {kind: overview.install(tx, install_id) for kind, install_id in asked.items()}


@pytest.mark.parametrize("kind", ZOO)
def test_a_plugin_that_breaks_is_refused_and_it_is_said_why(kept: dict[str, Any], kind: str) -> None:
    _, words, trace = ZOO[kind]
    found = kept[kind]
    assert found.state == "refused"
    assert words in found.reason
    assert "stamp" in found.reason
    assert trace in (found.traceback or "") and bool(trace) == bool(found.traceback)


# -- what was sound where it was tried, and is not here ----------------------------------------------------------


@pytest.fixture
def home(desk: DeskDriver, tmp_path: Path) -> Iterator[Path]:
    desk.change(home=tmp_path / "home")
    with unloaded():
        yield tmp_path / "home"


def write_plugins(desk: DeskDriver, folder: Path, **sources: str) -> Loader:
    """Put files into the folder of plugins beside one that is sound."""
    folder.mkdir()
    for name, source in (sources | {"sound": SOURCE.format(version="1")}).items():
        (folder / f"{name}.py").write_text(source)
    loader = desk.desk.loader = Loader(folder, entry_points=False)
    return loader


DEADLY = {"crashing": "import ctypes\nctypes.string_at(0)\n", "looping": "while True:\n    pass\n"}


def test_what_ends_or_holds_up_its_process_is_left_out_of_the_web_and_the_rest_is_there(
    desk: DeskDriver, home: Path, narrow: None, tmp_path: Path
) -> None:
    write_plugins(desk, tmp_path / "own", **DEADLY)
    registry = desk.desk.registry
    assert set(registry.tasks) == {"stamp"}
    told = {one.plugin: one.error for one in registry.problems}
    assert set(told) == set(DEADLY)
    assert (
        f"Plugin 'crashing' ({tmp_path / 'own' / 'crashing.py'}) is left out. It ended its process" in told["crashing"]
    )
    assert "It took more than 1 seconds of processor time when it was loaded." in told["looping"]


def test_a_worker_leaves_it_out_of_all_its_jobs_without_loading_anything_itself(
    desk: DeskDriver, home: Path, narrow: None, tmp_path: Path
) -> None:
    loader = write_plugins(desk, tmp_path / "own", **DEADLY)
    seen = pluginset.look_over(loader, desk.desk.settings)
    assert {one["plugin"] for one in seen.problems} == set(DEADLY)
    assert not [one.key for one in loader.unproved() if one.name in DEADLY]
    desk.desk.careful = False
    run_id = desk.start(documents(2), task="stamp")
    desk.work_until_over(run_id)
    assert desk.summary(run_id).succeeded == 2


def test_safe_mode_loads_nothing_at_all(desk: DeskDriver, home: Path, tmp_path: Path) -> None:
    write_plugins(desk, tmp_path / "own", loud="raise KeyboardInterrupt")
    desk.desk.loader = Loader(tmp_path / "own", safe_mode=True)
    desk.change(safe_mode=True)
    assert desk.desk.registry == replace(desk.desk.registry, tasks={}, plugins=(), problems=())
    assert desk.desk.loader.unproved() == []


def test_an_output_that_is_huge_is_no_use_and_the_others_are_kept(
    desk: DeskDriver, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processing, "MOST_OUTPUT", 1000)
    huge = SOURCE.format(version="1").replace(
        'return {"version"', 'return "x" * 999 if subject.key == "doc-1" else {"v"'
    )
    desk.use_plugin(tmp_path / "own", huge)
    run_id = desk.start(documents(3), task="stamp")
    desk.work_until_over(run_id)
    assert [row.status for row in desk.outputs(run_id)] == ["succeeded", "invalid", "succeeded"]
    assert "made an output of 1,001 bytes; at most 1,000 are kept" in (desk.outputs(run_id)[1].error or "")
