"""One round: a run on real processes, blows at fault points and from outside, and an audit when everything is over.

`play` plays a plan and tells what came of it; `plans` draws them by a seed, `sweep` strikes at every fault point.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import OperationalError
from support.audit import Broken, broken

from chaos.household import Household, Workshop
from chaos.orders import KILL, Done, given
from chaos.points import Point
from chaos.scenarios import CALM_API, Clicks, Scenario, click, start

LOOK = 0.05  # seconds between looks at a round
STUCK = 1.5  # seconds in which nothing is due, before a run counts as forgotten
PATIENCE = 60.0
RESUMED_AFTER = 0.5  # seconds of a pause that nobody planned
ENDED = "everything_comes_to_its_end"


@dataclass(frozen=True)
class Plan:
    """What happens in a round.

    :param strikes: (fault point, what happens there).
    :param blows: (seconds from the start, what is done from outside), in their order.
    """

    seed: int | None
    scenario: Scenario
    strikes: tuple[tuple[Point, str], ...] = ()
    blows: tuple[tuple[float, str], ...] = ()
    workers: int = 2
    clocks: int = 1


@dataclass
class Verdict:
    """What came of a round."""

    plan: Plan
    done: list[Done] = field(default_factory=list)
    blows: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    requests: int = 0
    batches: int = 0
    lines: int = 0
    seconds: float = 0.0

    @property
    def words(self) -> str:
        """The audit's words, or nothing."""
        return "\n".join(str(one) for one in self.broken)

    def __str__(self) -> str:
        api = ", ".join(f"{name}={value}" for name, value in self.plan.scenario.api.items())
        struck = ", ".join(f"{done.point} ({done.what})" for done in self.done) or "nowhere"
        parts = [
            f"seed {self.plan.seed}" if self.plan.seed is not None else self.plan.scenario.name,
            f"struck {struck}",
            f"done {', '.join(self.blows) or 'nothing'}",
            f"api {api or 'well'}",
            f"{self.requests} requests, {self.batches} batches, {self.lines} billed, {self.seconds:.1f} s",
            "OK" if not self.broken else "BROKEN",
        ]
        return " | ".join(parts)


def play(workshop: Workshop, plan: Plan, *, planted: str = "", keep: Path | None = None) -> Verdict:
    """Play a plan in a household of its own.

    :param planted: the name of a bug in its workers.
    :param keep: where the logs go if the audit finds something.
    """
    began = time.monotonic()
    verdict = Verdict(plan)
    with workshop.household(
        workers=plan.workers, clocks=plan.clocks, planted=planted, **CALM_API | dict(plan.scenario.api)
    ) as household:
        given(household.orders, plan.strikes)
        run_id = start(household.desk, plan.scenario, household.folder / "records")
        _drive(household, verdict, [run_id], nudge=plan.clocks == 0)
        _audit(household, verdict)
        if verdict.broken and keep is not None:
            household.keep(keep)
    verdict.seconds = time.monotonic() - began
    return verdict


def _audit(household: Household, verdict: Verdict) -> None:
    verdict.broken += broken(household.desk, household.api)
    verdict.done = household.orders.done()
    count = household.desk.scalar
    verdict.requests = count("SELECT count(*) FROM requests")
    verdict.batches = count("SELECT count(*) FROM batches")
    verdict.lines = count("SELECT count(*) FROM ledger_lines")


class _Round:
    """What a round still has to do and to wait for."""

    def __init__(self, household: Household, verdict: Verdict, run_ids: Sequence[int]) -> None:
        self.household = household
        self.verdict = verdict
        self.runs = list(run_ids)
        self.clicks = Clicks(household.desk, verdict.plan.scenario, run_ids[0])
        self.blows = list(verdict.plan.blows)
        self.began = time.monotonic()
        self.busy = self.paused = time.monotonic()

    def look(self) -> bool:
        """Do what is to be done now; whether everything is over.

        :raises TimeoutError: it never will be.
        """
        now = time.monotonic()
        self.clicks.due()
        over = self._over()
        if self.blows and (over or now - self.began >= self.blows[0][0]):
            self._blow(self.blows.pop(0)[1])
            return False
        if over:
            return True
        self._resume(now)
        if self.household.desk.scalar("SELECT count(*) FROM steps") or self.blows:
            self.busy = now
        if now - self.busy > STUCK:
            raise TimeoutError("nothing is due any more")
        if now - self.began > PATIENCE:
            raise TimeoutError(f"not within {PATIENCE:g} seconds")
        return False

    def _over(self) -> bool:
        desk = self.household.desk
        return all(desk.status(run).over for run in self.runs) and not desk.scalar("SELECT count(*) FROM steps")

    def _resume(self, now: float) -> None:
        """A person resumes what was paused for them, if the plan does not."""
        paused = [run for run in self.runs if self.household.desk.status(run).state == "paused"]
        if not paused or any(what == "resume" for _, what in self.blows):
            self.paused = now
        if now - self.paused > RESUMED_AFTER:
            for run in paused:
                click(run, "resume")

    def _blow(self, what: str) -> None:
        household = self.household
        self.verdict.blows.append(f"{what} at {time.monotonic() - self.began:.1f}")
        verb, _, whom = what.partition(" ")
        if verb == "kill":
            household.kill(whom)
        elif verb == "start":
            household.start(whom.partition("-")[0], whom)
        elif verb == "flush":
            household.flush_queue()
        elif verb == "cut":
            household.cut_connections()
        elif verb == "restart":
            household.api.restart()
        else:
            for run in self.runs:
                click(run, verb)


def _drive(household: Household, verdict: Verdict, run_ids: Sequence[int], *, nudge: bool) -> None:
    """See runs to their end, with everything that the plan does to them."""
    current = _Round(household, verdict, run_ids)
    while True:
        try:
            household.mend()
            household.tend(nudge=nudge)
            if current.look():
                return
        except TimeoutError as error:
            verdict.broken.append(Broken(ENDED, (f"{error}: {_left(household)}",)))
            return
        except OperationalError:
            pass  # our own connection was cut, or a row is locked by somebody who is dying
        time.sleep(LOOK)


def _left(household: Household) -> str:
    desk = household.desk
    runs = desk.rows("SELECT id, state, reason FROM runs WHERE state NOT IN ('finished', 'cancelled')")
    batches = desk.rows("SELECT id, state, reason FROM batches WHERE state NOT IN ('done', 'failed', 'discarded')")
    steps = desk.rows("SELECT step, target_id, due_at, lease_until, failures, error FROM steps")
    return f"runs {runs}, batches {batches}, steps {steps}"


def sweep(
    workshop: Workshop, scenario: Scenario, points: Sequence[Point], *, keep: Path | None = None
) -> Iterator[Verdict]:
    """Strike at one fault point after the other, each in a run of its own, audited each time.

    One household sees them all, until something is wrong with it.
    """
    left = list(points)
    while left:
        with workshop.household(clocks=0) as household:
            while left:
                point = left.pop(0)
                began = time.monotonic()
                verdict = Verdict(Plan(None, scenario, ((point, KILL),)))
                household.api.configure(**CALM_API | dict(scenario.api))
                household.orders.give(point, KILL)
                given(
                    household.orders,
                    ((Point.read(where), what) for where, what in scenario.strike if where != str(point)),
                )
                run_id = start(household.desk, scenario, household.folder / f"records-{len(left)}")
                _drive(household, verdict, [run_id], nudge=True)
                _audit(household, verdict)
                household.orders.withdraw()
                household.orders.forget()
                verdict.seconds = time.monotonic() - began
                if verdict.broken and keep is not None:
                    household.keep(keep)
                yield verdict
                if verdict.broken:
                    break


def gauntlet(
    workshop: Workshop, scenario: Scenario, points: Sequence[Point], *, runs: int, goes: int
) -> tuple[Verdict, list[Point]]:
    """Strike at all these fault points in one household, several runs at once; what came of it, and the points left.

    :param goes: how often so many runs are started, at most: each row survives few deaths only.
    """
    began = time.monotonic()
    verdict = Verdict(Plan(None, scenario, tuple((point, KILL) for point in points)))
    left = list(points)
    with workshop.household(clocks=0) as household:
        for go in range(goes):
            given(household.orders, ((point, KILL) for point in left))
            household.api.configure(**CALM_API | dict(scenario.api))
            started = [start(household.desk, scenario, household.folder / f"records-{go}-{n}") for n in range(runs)]
            _drive(household, verdict, started, nudge=True)
            left = household.orders.withdraw()
            if verdict.broken or not left:
                break
        _audit(household, verdict)
    verdict.seconds = time.monotonic() - began
    return verdict, left
