"""`batchdesk plugins install` and what changes the set after it; what `list` and `doctor` say of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from support.command_line import CommandLine
from support.desk import DeskDriver
from support.plugin_wheels import NAME, SOURCE, unloaded, wheel, write

from webapp import hearts

PROJECT = """
[build-system]
requires = ["setuptools>=80"]
build-backend = "setuptools.build_meta"

[project]
name = "batchdesk-stamp"
version = "0.3"
dependencies = ["pydantic>=2"]

[project.entry-points."batchdesk.plugins"]
stamping = "stamping"

[tool.setuptools]
py-modules = ["stamping"]
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with unloaded():
        yield


def test_a_plugin_comes_is_upgraded_rolled_back_and_goes(line: CommandLine, desk: DeskDriver, tmp_path: Path) -> None:
    first = write(tmp_path, wheel("1.0", requires=["pydantic>=2"]), "1.0")
    second = write(tmp_path, wheel("2.0"), "2.0")
    done = line("plugins", "install", first, "--yes")
    assert done.status == 0, done.err
    for words in (f"{NAME} 1.0  Stamps each record.", "sha256: ", "needs: pydantic>=2; all of it is here",
                  "the modules stamping; the hooks register_tasks", "it brings the tasks: stamp."):  # fmt: skip
        assert words in done.err

    listed = line("plugins", "list").out
    assert "stamping 1.0  (batchdesk-stamp 1.0)  hooks: register_tasks" in listed
    assert f"{NAME} 1.0 is installed: by command line, " in listed

    assert "upgrade it" in line("plugins", "install", second, "--yes").err
    assert line("plugins", "upgrade", second, "--yes").status == 0
    assert "rollback goes to 1.0" in line("plugins", "list").out
    assert "is at version 1.0 again" in line("plugins", "rollback", NAME).err

    assert line("plugins", "disable", NAME).status == 0
    assert (
        "  stamp: " not in line("plugins", "list").out and "is installed, and disabled" in line("plugins", "list").out
    )
    assert line("plugins", "enable", NAME).status == 0
    assert f"Plugin '{NAME}' is removed." in line("plugins", "remove", NAME).err
    assert NAME not in line("plugins", "list").out
    refused = line("plugins", "rollback", NAME)
    assert refused.status == 2 and "is not installed" in refused.err


def test_a_run_is_started_with_an_installed_task(line: CommandLine, worker: None, tmp_path: Path) -> None:
    assert line("plugins", "install", write(tmp_path, wheel("1.0")), "--yes").status == 0
    done = line("run", "stamp", line.write("in.jsonl", {"key": "a", "text": "alpha"}), "--out", tmp_path / "out.jsonl")
    assert done.status == 0, done.err
    assert line.lines("out.jsonl")[0]["output"]["version"] == "1.0"
    line("plugins", "disable", "classify")
    refused = line.classify(line.write("in.jsonl", {"key": "a", "text": "alpha"}))
    assert refused.status == 2 and "There is no task 'classify'" in refused.err


def test_nothing_is_installed_that_nobody_has_confirmed(line: CommandLine, desk: DeskDriver, tmp_path: Path) -> None:
    done = line("plugins", "install", write(tmp_path, wheel("1.0")))
    assert done.status == 2 and "Add --yes" in done.err
    assert desk.scalar("SELECT count(*) FROM plugin_versions") == 0


def test_a_folder_is_built_and_the_environment_stays_as_it_is(line: CommandLine, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "stamping.py").write_text(SOURCE.format(version="0.3"))
    done = line("plugins", "install", project, "--yes")
    assert done.status == 0, done.err
    assert f"{NAME} 0.3" in done.err
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version(NAME)


def test_a_package_is_got_by_its_name(line: CommandLine, tmp_path: Path) -> None:
    """From an index of the test's own: a folder of wheels."""
    index = tmp_path / "index"
    write(index, wheel("1.0"), "1.0")
    write(index, wheel("1.5"), "1.5")
    only = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    done = line("plugins", "install", f"{NAME}==1.0", "--yes", **only)
    assert done.status == 0, done.err
    assert line("plugins", "upgrade", NAME, "--yes", **only).status == 0
    assert f"{NAME} 1.5 is installed" in line("plugins", "list").out
    gone = line("plugins", "install", "no-such-package-anywhere", "--yes", **only)
    assert gone.status == 2 and "pip got no wheel" in gone.err and "no-such-package-anywhere" in gone.err


def test_what_cannot_be_installed_is_refused_in_words(line: CommandLine, tmp_path: Path) -> None:
    lacking = write(tmp_path / "a", wheel("1.0", requires=["no-such-library>=3", "pydantic<1"]))
    done = line("plugins", "install", lacking, "--yes")
    assert done.status == 2
    assert "no-such-library>=3, which is not there" in done.err and "pydantic<1; 2" in done.err
    assert "whoever runs it adds them" in done.err
    broken = write(tmp_path / "b", wheel("1.0", source=SOURCE.replace("return [Stamp()]", "return [Stamp]")))
    done = line("plugins", "install", broken, "--yes")
    assert done.status == 2 and "returned the class Stamp" in done.err
    for what, words in (
        ("./nothing.whl", "cannot be read"),
        (str(tmp_path), "it has no pyproject.toml"),
        ("not a name", "is no package"),
    ):
        done = line("plugins", "install", what, "--yes")
        assert done.status == 2 and words in done.err
    off = line("plugins", "install", "anything", "--yes", BATCHDESK_PLUGIN_INSTALL="off")
    assert off.status == 2 and "BATCHDESK_PLUGIN_INSTALL=off" in off.err


def test_list_and_doctor_tell_whether_the_processes_agree(line: CommandLine, desk: DeskDriver, tmp_path: Path) -> None:
    hearts.beat("worker here 1", "worker", 0, [])
    hearts.beat("worker there 2", "worker", 0, [{"error": "Plugin 'x' is left out. This machine lacks what it needs."}])
    assert "Taken up by all 2 processes that are up." in line("plugins", "list").out
    desk.execute("UPDATE plugin_set SET generation = 5")
    hearts.beat("worker here 1", "worker", 5, [])
    hearts.beat("web here 3", "web", 4, [])
    desk.execute("UPDATE plugin_set SET changed_at = now() + interval '1 second'")
    listed = line("plugins", "list").out
    assert "Not taken up yet by: worker there 2." in listed
    assert "Before the next page that anybody asks for, also by: web here 3." in listed
    assert "worker there 2: Plugin 'x' is left out." in listed
    told = line("doctor").out
    assert "BAD  worker there 2 has not taken up the present set of plugins." in told
    assert "BAD  worker there 2: Plugin 'x' is left out. This machine lacks what it needs." in told
    hearts.beat("worker there 2", "worker", 5, [])
    listed = line("plugins", "list").out
    assert "Taken up by: worker here 1, worker there 2." in listed and "all 3" not in listed
    assert "Before the next page that anybody asks for, also by: web here 3." in listed
