"""The shipped limits: which runs they refuse, and in which words."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from support.desk import DeskDriver, documents

from webapp import PLUGINS, wishes
from webapp.errors import InputError
from webapp.hooks import RunFacts, load_plugins

REGISTRY = load_plugins(folder=PLUGINS, entry_points=False)
LIMITS = next(check for check in REGISTRY.checks if check.plugin.name == "limits")
RUN = RunFacts(1, "classify", "1", "docs", "ann", "planning", "claude", subjects=1500, requests=1400, batches=0)


def answer(raw: dict[str, str], **facts: Any) -> str | None:
    assert LIMITS.plugin.settings is not None
    settings = REGISTRY.parse_settings(LIMITS.plugin.settings, raw)
    said: str | None = LIMITS.call(run=replace(RUN, **facts), settings=settings)
    return said


def test_nothing_is_limited_until_somebody_says_so() -> None:
    assert answer({}) is None
    assert answer({}, subjects=10**9, estimate_usd=Decimal(10**9)) is None


@pytest.mark.parametrize(
    ("raw", "facts", "words"),
    [
        (
            {"most_records": "1499"},
            {},
            "The run is over 1,500 records, 1 more than the 1,499 that most_records allows.",
        ),
        ({"most_requests": "1000"}, {}, "The run would send 1,400 requests, 400 more than the 1,000 that most_req"),
        (
            {"most_cost_usd": "2.50"},
            {"estimate_usd": Decimal("3.7512")},
            "The run may cost $3.75, $1.25 more than the $2.50 that most_cost_usd allows.",
        ),
        (
            {"most_cost_usd": "2.50", "refuse_unknown_cost": "true"},
            {},
            "Nobody knows what the run may cost, and most_cost_usd allows $2.50: refuse_unknown_cost is set.",
        ),
    ],
)
def test_a_run_beyond_a_limit_is_refused_with_how_much_and_where_to_change_it(
    raw: dict[str, str], facts: dict[str, Any], words: str
) -> None:
    said = answer(raw, **facts)
    assert said is not None and said.startswith(words)
    assert "`batchdesk plugins set limits" in said and said.endswith("then resume the run.")


@pytest.mark.parametrize(
    ("raw", "facts"),
    [
        ({"most_records": "1500"}, {}),
        ({"most_requests": "1400"}, {}),
        ({"most_cost_usd": "2.50"}, {}),
        ({"most_cost_usd": "2.50"}, {"estimate_usd": Decimal("2.50")}),
        ({"refuse_unknown_cost": "true"}, {}),
    ],
)
def test_a_run_within_its_limits_goes(raw: dict[str, str], facts: dict[str, Any]) -> None:
    assert answer(raw, **facts) is None


def test_all_limits_that_are_broken_are_told() -> None:
    said = answer({"most_records": "10", "most_requests": "10"}) or ""
    assert "most_records" in said and "most_requests" in said


def test_a_limit_is_more_than_nothing() -> None:
    with pytest.raises(InputError, match="most_records"):
        answer({"most_records": "0"})


def test_a_run_waits_until_its_limit_is_lifted(desk: DeskDriver) -> None:
    wishes.ask_configure("limits", {"most_records": "3"}, actor="ann")
    run_id = desk.run(documents(4))
    assert "1 more than the 3 that most_records allows" in (desk.status(run_id).reason or "")

    wishes.ask_configure("limits", {"most_records": ""}, actor="ann")
    wishes.ask_resume(run_id, actor="ann")
    assert desk.work_until_over(run_id).state == "finished"
