"""`plugins new`: a package whose tests pass at once, which builds, and which keeps the contract."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from webapp.errors import InputError
from webapp.hooks import Registry, load_plugins
from webapp.kit.checking import check
from webapp.kit.findings import Level
from webapp.kit.scaffold import TEMPLATES, write_package
from webapp.kit.targets import find

ROOT = Path(__file__).parents[2]


def python(folder: Path, *arguments: str) -> str:
    """What Python says in a folder, with this Batchdesk; it must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "mood"
    write_package("ticket_mood", folder, Registry())
    return folder


def test_its_tests_pass_at_once(package: Path) -> None:
    command = ("-m", "pytest", "-q", "-W", "error", "-p", "webapp.kit.testing", "-p", "no:cacheprovider")
    assert "5 passed" in python(package, *command)


def test_it_builds_a_pure_wheel_that_keeps_the_contract(package: Path, tmp_path: Path) -> None:
    python(package, "-W", "ignore", "-c", "from setuptools.build_meta import build_wheel; build_wheel('dist')")
    [wheel] = (package / "dist").iterdir()
    assert wheel.name == "batchdesk_ticket_mood-0.1.0-py3-none-any.whl"
    [target] = find(wheel, tmp_path)
    assert (target.name, target.version) == ("ticket_mood", "0.1.0")
    findings = list(check(target))
    assert [finding for finding in findings if finding.level is Level.PROBLEM] == []
    assert any("process is pure" in finding.words for finding in findings)


def test_every_template_is_used_and_each_of_its_gaps_filled(tmp_path: Path) -> None:
    files = write_package("mood", tmp_path / "mood", Registry())
    assert [str(file.relative_to(tmp_path / "mood")) for file in files] == [
        "batchdesk_mood.py",
        "tests/test_mood.py",
        "pyproject.toml",
        "README.md",
    ]
    assert len(list(TEMPLATES.iterdir())) == len(files)
    assert all("{{" not in file.read_text() for file in files)


@pytest.mark.parametrize("name", ["", "Mood", "1st", "a-b", "mood_", "a__b", "a" * 51, "class", "../mood", "classify"])
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    registry = load_plugins(folder=ROOT / "plugins", entry_points=False)
    with pytest.raises(InputError, match="name"):
        write_package(name, tmp_path / "new", registry)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_plugin_that_was_left_out_is_taken_too(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text("1 / 0")
    registry = load_plugins(folder=tmp_path / "plugins", entry_points=False)
    with pytest.raises(InputError, match="The name 'broken' is taken"):
        write_package("broken", tmp_path / "new", registry)


def test_nothing_that_exists_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        write_package("mood", tmp_path, Registry())
    with pytest.raises(InputError, match="is there already"):
        write_package("mood", tmp_path / "README.md", Registry())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("README.md", "mine")]
