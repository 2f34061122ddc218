"""One round: a run on real processes, blows at fault points and from outside, and an audit when everything is over.

`play` plays a plan and tells what came of it; `plans` draws them by a seed, `sweep` strikes at every fault point.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp

from support.audit import Broken, broken

from chaos.household import Household, Workshop
from chaos.orders import KILL, STALL, Done, given
from chaos.points import COMMIT, Point
from chaos.scenarios import UPLOADED, Clicks, Scenario, click, prepare, start

LOOK = 0.05  # seconds between looks at a round
STUCK = 1.5  # seconds in which nothing is due, before a run counts as forgotten
PATIENCE = 200.0  # of a round; machines that play them are slow and busy
RESUMED_AFTER = 0.5  # seconds of a pause that nobody planned
GOES = 3  # at a fault point that depends on who is faster
ENDED = "everything_comes_to_its_end"


@dataclass(frozen=True)
class Plan:
    """What happens in a round.

    :param strikes: (fault point, what happens there).
    :param blows: (seconds from the start, what is done from outside), in their order.
    :param patience: seconds in which everything must have come to its end.
    """

    seed: int | None
    scenario: Scenario
    strikes: tuple[tuple[Point, str], ...] = ()
    blows: tuple[tuple[float, str], ...] = ()
    workers: int = 2
    clocks: int = 1
    patience: float = PATIENCE


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
    unexpected: Counter[str] = field(default_factory=Counter)

    def struck(self, point: Point) -> bool:
        """Whether anybody came to a point where something was to happen."""
        return any(done.point == point for done in self.done)

    @property
    def words(self) -> str:
        """The audit's words, or nothing."""
        return "\n".join(str(one) for one in self.broken)

    def __str__(self) -> str:
        api = ", ".join(f"{name}={value}" for name, value in self.plan.scenario.api.items())
        struck = ", ".join(f"{done.point} ({done.what})" for done in self.done)
        if not struck:
            struck = "nowhere"
            if self.plan.strikes:
                struck = f"nowhere, for nobody came to {self.plan.strikes[0][0]}"
        parts = [
            f"seed {self.plan.seed}" if self.plan.seed is not None else self.plan.scenario.name,
            f"struck {struck}",
            f"done {', '.join(self.blows) or 'nothing'}",
            f"api {api or 'well'}",
            f"unexpected {', '.join(f'{name} {n}' for name, n in sorted(self.unexpected.items())) or 'nothing'}",
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
    with workshop.household(workers=plan.workers, clocks=plan.clocks, planted=planted) as household:
        prepare(household, plan.scenario)
        given(household.orders, dict(plan.strikes))
        run_id = start(household.desk, plan.scenario, household.folder / "records")
        _drive(household, verdict, [run_id], nudge=plan.clocks == 0)
        _audit(household, verdict, [run_id])
        if verdict.broken and keep is not None:
            household.keep(keep)
    verdict.seconds = time.monotonic() - began
    return verdict


def _audit(household: Household, verdict: Verdict, run_ids: Sequence[int]) -> None:
    """Look through the books, all of them, and count what these runs came to."""
    verdict.broken += broken(household.desk, household.api, strangers=household.strangers)
    verdict.done = household.orders.done()
    verdict.unexpected = household.unexpected()
    count = household.desk.scalar
    runs = list(run_ids)
    batches = "SELECT id FROM batches WHERE run_id = ANY(:runs)"
    verdict.requests = count(f"SELECT count(*) FROM requests WHERE batch_id IN ({batches})", runs=runs)
    verdict.batches = count(f"SELECT count(*) FROM ({batches})", runs=runs)
    verdict.lines = count("SELECT count(*) FROM ledger_lines WHERE run_id = ANY(:runs)", runs=runs)


class NoEnd(Exception):
    """A round that does not come to its end; the message says why not."""


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

        :raises NoEnd: it never will be.
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
        self.household.outlive()
        if self.household.desk.scalar("SELECT count(*) FROM steps") or self.blows:
            self.busy = now
        if now - self.busy > STUCK:
            raise NoEnd("nothing is due any more")
        if now - self.began > self.verdict.plan.patience:
            raise NoEnd(f"not within {self.verdict.plan.patience:g} seconds")
        return False

    def _over(self) -> bool:
        desk = self.household.desk
        if desk.scalar("SELECT count(*) FROM steps") or desk.scalar(UPLOADED):
            return False
        return all(desk.status(run).over for run in self.runs)

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
        elif verb == "end":
            household.end(whom)
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
        except NoEnd as error:
            verdict.broken.append(Broken(ENDED, (f"{error}: {_left(household)}",)))
            return
        time.sleep(LOOK)


def _left(household: Household) -> str:
    desk = household.desk
    runs = desk.rows("SELECT id, state, reason FROM runs WHERE state NOT IN ('finished', 'cancelled')")
    batches = desk.rows("SELECT id, state, reason FROM batches WHERE state NOT IN ('done', 'failed', 'discarded')")
    steps = desk.rows("SELECT step, target_id, due_at, lease_until, failures, error FROM steps")
    return f"runs {runs}, batches {batches}, steps {steps}"


def sweep(
    workshop: Workshop, scenario: Scenario, points: Sequence[Point], *, what: str = KILL, keep: Path | None = None
) -> Iterator[Verdict]:
    """Strike at one fault point after the other, each in a run of its own, audited each time.

    One household sees them all, until something is wrong with it. A point that nobody came to is tried again.

    :param what: happens at each; nobody falls silent within a transaction.
    """
    left = [(point, GOES) for point in points if what != STALL or point.moment != COMMIT]
    while left:
        with workshop.household(clocks=0) as household:
            while left:
                point, goes = left.pop(0)
                strikes = {point: what} | {Point.read(where): other for where, other in scenario.strike}
                verdict = again(household, Plan(None, scenario, tuple((strikes | {point: what}).items())))
                if verdict.broken and keep is not None:
                    household.keep(keep)
                if not verdict.struck(point) and goes > 1 and not verdict.broken:
                    left.insert(0, (point, goes - 1))
                    continue
                yield verdict
                if verdict.broken:
                    break


def again(household: Household, plan: Plan) -> Verdict:
    """Play a plan in a household that has seen others before."""
    began = time.monotonic()
    verdict = Verdict(plan)
    prepare(household, plan.scenario)
    given(household.orders, dict(plan.strikes))
    run_id = start(household.desk, plan.scenario, Path(mkdtemp(dir=household.folder)) / "records")
    _drive(household, verdict, [run_id], nudge=True)
    _audit(household, verdict, [run_id])
    household.orders.withdraw()
    household.orders.forget()
    verdict.seconds = time.monotonic() - began
    return verdict


def gauntlet(
    workshop: Workshop, scenario: Scenario, points: Sequence[Point], *, runs: int, goes: int
) -> tuple[Verdict, list[Point]]:
    """Strike at all these fault points in one household, several runs at once; what came of it, and the points left.

    :param goes: how often so many runs are started, at most: each row survives few deaths only.
    """
    began = time.monotonic()
    verdict = Verdict(Plan(None, scenario, tuple((point, KILL) for point in points)))
    left = list(points)
    everything: list[int] = []
    with workshop.household(clocks=0) as household:
        for _ in range(goes):
            given(household.orders, dict.fromkeys(left, KILL))
            prepare(household, scenario)
            folder = Path(mkdtemp(dir=household.folder))
            # Of different sizes, so that no batch waits for another of its total.
            sizes = [replace(scenario, records=3 + 2 * n) for n in range(runs)]
            started = [start(household.desk, one, folder / str(n)) for n, one in enumerate(sizes)]
            everything += started
            _drive(household, verdict, started, nudge=True)
            left = household.orders.withdraw()
            if verdict.broken or not left:
                break
        _audit(household, verdict, everything)
    verdict.seconds = time.monotonic() - began
    return verdict, left
