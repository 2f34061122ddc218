"""The list of fault points is compiled from the source, and no step, transaction or verb can be missing in it."""

from __future__ import annotations

from chaos.points import Point, compiled, transactions, verbs
from chaos.scenarios import Scenario
from webapp.batches.steps import StepName

# Boundaries that no scenario passes, each with its reason.
BEYOND = {
    "planning.plan.1": "a task that is gone or cannot be sent; see tests/batches/test_planning.py",
    "planning._deadly": "a task that kills its worker time and again; see tests/batches/test_planning.py",
    "retention.wake": "what the clock does, in no step",
    "pluginset._wanted": "a read of what is installed, which this process has made before its first step",
    "processing._no_task": "a task that is gone; see tests/batches/test_processing.py",
    "delivering._rest": "a destination that is disabled; see tests/delivery/test_delivering.py",
    "delivering._give_up": "a sink that is gone; see tests/delivery/test_delivering.py",
}


def test_the_scenarios_pass_every_boundary_that_the_source_has(points: dict[Point, Scenario]) -> None:
    """Who adds a transaction to a step, or a verb to the gateway, adds it to a scenario too, or says why not."""
    seen = {(point.place, point.moment) for point in points}
    assert seen <= compiled()
    never = {(place, moment) for place, moment in compiled() - seen if place not in BEYOND}
    assert not never, sorted(never)
    assert set(BEYOND) <= {place for place, _ in compiled()}


def test_each_step_has_fault_points(points: dict[Point, Scenario]) -> None:
    for step in StepName:
        its = [point for point in points if point.step == step]
        assert len({point.place for point in its}) >= 5, step
        assert {point.moment for point in its} >= {"commit", "committed"}, step


def test_the_list_is_compiled_of_what_steps_really_do() -> None:
    places = set(transactions().values())
    assert {
        "submission._arm",
        "jobs._perform.1",
        "jobs._perform.2",
        "ingestion._store",
        "sharding.cut_pending.2",
    } <= places
    assert not {place for place in places if "ask_" in place or place.startswith(("importing", "auditing", "steps"))}
    assert set(verbs()) == {"identify", "create", "retrieve", "pages", "cancel", "results", "count_tokens"}
    assert {"sending", "sent"} <= set(verbs()["create"]) and {"reading", "closed"} <= set(verbs()["results"])


def test_a_fault_point_can_be_written_and_read() -> None:
    point = Point("submit", "submission._arm", "commit", 1)
    assert Point.read(str(point)) == point
