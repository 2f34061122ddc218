"""`batchdesk demo --once`, what `make demo ONCE=1` runs: real examples against the sandbox, whatever key there is."""

from __future__ import annotations

import pytest
from support.installation import Installation

pytestmark = pytest.mark.journey


def test_the_demo_runs_real_examples_against_the_sandbox_and_prints_a_table() -> None:
    with Installation.made(None) as installation:
        # A key and an address that would fail: the demo never uses them.
        done = installation.run(
            "demo", "--once", ANTHROPIC_API_KEY="sk-never-used", ANTHROPIC_BASE_URL="http://127.0.0.1:9"
        )
        assert done.status == 0, done.err
        head, *runs = done.out.splitlines()
        assert head.split()[:5] == ["run", "task", "requests", "succeeded", "failed"]
        figures = {line.split()[1]: line.split() for line in runs}
        assert list(figures) == ["classify", "extract", "alt_text"]
        assert (
            int(figures["classify"][2]) > 100
            and figures["classify"][2] == figures["extract"][2]
            and int(figures["alt_text"][2]) >= 8
        )
        assert all(one[2] == one[3] and one[4] == "0" and float(one[6]) > 0 for one in figures.values())
        assert not installation.left_running()
