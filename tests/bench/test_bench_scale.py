"""`make bench-scale`: a figure for every page, as JSON lines and nothing else, from two small installations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.scale import PAGES

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--requests", "2000", "--batches", "8", "--small", "500", "--rounds", "1")


def test_each_page_is_timed_beside_twice_its_time_in_a_small_installation() -> None:
    done = subprocess.run(
        (sys.executable, "-m", "bench.scale", *TINY),
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    *pages, against = [json.loads(line) for line in done.stdout.splitlines()]
    assert [page["name"] for page in pages] == list(PAGES)
    for page in pages:
        assert page["unit"] == "ms" and page["value"] > 0 and page["limit"] > 0
        assert page["ratio_to_limit"] == pytest.approx(page["value"] / page["limit"], rel=0.05)
    assert (against["unit"], against["limit"]) == ("x", 10.0) and against["value"] > 0
