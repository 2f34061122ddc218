"""Workers die at every boundary, and at random, while the API misbehaves: the books agree in the end. `make chaos` goes
on with it for as long as one likes.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from support.audit import ALWAYS, AT_THE_END

from chaos.household import Workshop
from chaos.orders import KILL
from chaos.plans import BLOWS, FAULTS, SHARES, draw
from chaos.points import COMMIT, ROOT, Point
from chaos.rounds import ENDED, Plan, again, gauntlet, play
from chaos.scenarios import CALM_API, SCENARIOS, Scenario
from webapp.batches.steps import StepName
from webapp.sandbox import SandboxConfig

NAMED = {scenario.name: scenario for scenario in SCENARIOS}
CALM, AGAIN = NAMED["calm"], NAMED["sent again"]
PLUGIN, FILES = NAMED["a plugin comes in"], NAMED["files come in"]
FORMER = NAMED["payloads of former runs go"]
SEEDS = (6049, 6054)
GOES = 4


def one_each(points: Iterable[Point]) -> list[Point]:
    """One fault point of each place that a step passes, at another of its moments each time: the rest is a sweep's."""
    moments: dict[tuple[str, str], list[Point]] = {}
    for point in sorted(points):
        if point.nth == 1:
            moments.setdefault((point.step, point.place), []).append(point)
    return [its[number % len(its)] for number, its in enumerate(moments.values())]


def test_a_worker_can_die_in_every_place_of_every_step(workshop: Workshop, points: dict[Point, Scenario]) -> None:
    """I1, I2: a real worker is killed once in each place that a run with retries passes; nothing is lost or doubled."""
    struck = one_each(point for point, scenario in points.items() if scenario in (CALM, AGAIN))
    assert {point.step for point in struck} == set(StepName) - {StepName.IMPORT, StepName.INSTALL, StepName.DROP}
    verdict, left = gauntlet(workshop, AGAIN, struck, runs=5, goes=4)
    assert not verdict.broken, verdict.words
    assert not left, f"nobody came to {left}"
    assert {done.point for done in verdict.done} == set(struck)


def test_a_worker_can_die_in_every_place_of_an_import(workshop: Workshop, points: dict[Point, Scenario]) -> None:
    """A file and what a source gives become one dataset each, and another file one revision, wherever the worker dies
    that reads them.
    """
    struck = one_each(point for point in points if point.step == StepName.IMPORT)
    with workshop.household(clocks=0) as household:
        for point in struck:
            verdict = again(household, Plan(None, FILES, ((point, KILL),)))
            assert not verdict.broken, verdict.words
            assert verdict.struck(point), f"nobody came to {point}"
        made = "SELECT count(*), count(DISTINCT d.id), min(d.subjects), max(d.subjects) FROM uploads u JOIN datasets d "
        of = f"{made} ON d.id = u.dataset_id WHERE u.refreshes = :refreshes AND d.revision = :revision"
        rounds = len(struck)
        assert household.desk.rows(of, refreshes=False, revision=1) == [(2 * rounds, 2 * rounds, 1, 1)]
        assert household.desk.rows(of, refreshes=True, revision=2) == [(rounds, rounds, 2, 2)]
        assert household.desk.scalar("SELECT count(*) FROM datasets") == 3 * rounds
    assert rounds >= 8


def test_a_worker_can_die_in_every_place_of_an_installation(workshop: Workshop, points: dict[Point, Scenario]) -> None:
    """What was confirmed is installed once, and refused the second time, wherever the worker dies that is about it."""
    struck = left = one_each(point for point in points if point.step == StepName.INSTALL)
    goes = 0
    with workshop.household(clocks=0) as household:
        while left and goes < GOES:
            goes += 1
            verdict = again(household, Plan(None, PLUGIN, tuple((point, KILL) for point in left)))
            assert not verdict.broken, verdict.words
            left = [point for point in left if not verdict.struck(point)]
        assert not left, f"nobody came to {left}"
        states = household.desk.rows("SELECT state, count(*) FROM plugin_installs GROUP BY 1 ORDER BY 1")
        assert [tuple(one) for one in states] == [("installed", goes), ("refused", 2 * goes)]
        assert household.desk.scalar("SELECT count(*) FROM plugin_versions WHERE wheel IS NOT NULL") == goes
    assert len(struck) >= 8


def test_a_worker_can_die_in_every_place_in_which_payloads_are_dropped(
    workshop: Workshop, points: dict[Point, Scenario]
) -> None:
    """What is dropped is dropped whole, and nothing else is, wherever the worker dies that is about it."""
    left = one_each(point for point in points if point.step == StepName.DROP)
    assert len(left) >= 4
    with workshop.household(clocks=0) as household:
        for _ in range(GOES):
            verdict = again(household, Plan(None, FORMER, tuple((point, KILL) for point in left)))
            assert not verdict.broken, verdict.words
            left = [point for point in left if not verdict.struck(point)]
    assert not left, f"nobody came to {left}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_round_at_random_leaves_books_that_agree(
    workshop: Workshop, points: dict[Point, Scenario], seed: int
) -> None:
    verdict = play(workshop, draw(seed, points))
    print(verdict)
    assert not verdict.broken, f"make chaos SEED={seed} ROUNDS=1\n{verdict}\n{verdict.words}"
    assert verdict.requests and verdict.blows


def test_a_guess_that_nothing_proves_is_not_sent_again_and_ends_with_its_results(workshop: Workshop) -> None:
    """The batch is adopted, and its results hold no line at all, whoever asks: 29 days later it is over."""
    nothing = Scenario("nothing", records=3, api={"create_faults": "drop_after", "missing_share": 1.0})
    verdict = play(workshop, Plan(None, nothing, patience=30.0))
    assert not verdict.broken, verdict.words
    assert (verdict.requests, verdict.batches, verdict.lines) == (3, 1, 0)


def test_a_seed_draws_the_same_plan_again() -> None:
    points = [Point("submit", "submission._arm", moment, nth) for moment in ("commit", "committed") for nth in (1, 2)]
    assert draw(7, points) == draw(7, reversed(points))
    assert draw(7, points) != draw(8, points)


def test_plans_use_everything_there_is() -> None:
    """Within some hundreds of seeds each fault, share, blow and kind of strike is drawn; all of it is known."""
    points = [Point("poll", "polling._store", moment, 1) for moment in (COMMIT, "committed")]
    plans = [draw(seed, points) for seed in range(600)]
    for verb, faults in FAULTS.items():
        drawn = {one for plan in plans for one in plan.scenario.api.get(f"{verb}_faults", "").split(",")}
        assert set(faults) <= drawn, verb
    assert {f"{share}_share" for share in SHARES} <= {name for plan in plans for name in plan.scenario.api}
    assert {what for pair in BLOWS for what in pair} == {what for plan in plans for _, what in plan.blows}
    assert {what for plan in plans for _, what in plan.strikes} == {"kill", "kill-worker", "stall", "leave"}
    assert not [plan for plan in plans if (points[0], "stall") in plan.strikes], "silent within a transaction"
    for plan in plans:
        SandboxConfig().changed(CALM_API | dict(plan.scenario.api))


def test_each_line_of_the_audit_is_documented() -> None:
    table = (ROOT / "docs" / "chaos.md").read_text().partition("| line | says |")[2]
    told = {row.split("|")[1].strip() for row in table.splitlines()[2:] if row.startswith("|")}
    assert told == {name.replace("_", " ") for name in (*(line.__name__ for line in (*ALWAYS, *AT_THE_END)), ENDED)}
