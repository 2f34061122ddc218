"""`make bench`: every figure it promises, as JSON lines and nothing else, from a run of a few requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"name", "value", "unit", "limit", "ratio_to_limit"}
TINY = ("--requests", "60", "--rounds", "1", "--memory-requests", "60")


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, Any]]:
    """What a tiny run printed, by name."""
    done = subprocess.run(
        (sys.executable, "-m", "bench", *TINY), cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(line) == FIELDS for line in lines), lines
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", ["plan", "submit", "ingest", "process"])
def test_a_step_is_measured_beside_its_limit(figures: dict[str, dict[str, Any]], name: str) -> None:
    figure = figures[name]
    assert figure["unit"] == "req/s"
    assert figure["value"] > 0 and figure["limit"] > 0
    # Both are rounded to a tenth, the ratio to a thousandth.
    assert figure["ratio_to_limit"] == pytest.approx(figure["value"] / figure["limit"], rel=0.01, abs=0.001)


def test_ingestion_stands_beside_the_obvious_way_that_must_be_twenty_times_slower(
    figures: dict[str, dict[str, Any]],
) -> None:
    figure = figures["ingest over obvious"]
    assert figure["unit"] == "times"
    assert figure["value"] > 0 and figure["limit"] == 20


def test_what_has_no_limit_says_null(figures: dict[str, dict[str, Any]]) -> None:
    figure = figures["ingest over obvious, one commit"]
    assert figure["value"] > 0
    assert figure["limit"] is None and figure["ratio_to_limit"] is None


@pytest.mark.parametrize("step", ["plan", "submit", "ingest"])
def test_memory_is_told_over_an_idle_worker(figures: dict[str, dict[str, Any]], step: str) -> None:
    figure = figures[f"{step} peak memory"]
    assert figure["unit"] == "MB over idle"
    assert 0 <= figure["value"] < figure["limit"] == 100


def test_every_figure_is_there_once(figures: dict[str, dict[str, Any]]) -> None:
    steps = {"plan", "submit", "ingest"}
    rivals = {"ingest over obvious", "ingest over obvious, one commit"}
    assert set(figures) == steps | rivals | {"process"} | {f"{step} peak memory" for step in steps}
