"""Draws the plan of a round from its seed: the same seed strikes at the same points and does the same things.

What is drawn is what any installation must survive; the few things that it need not are named where they are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from chaos.orders import KILL, KILL_WORKER, LEAVE, STALL
from chaos.points import COMMIT, Point
from chaos.rounds import Plan
from chaos.scenarios import Scenario

RATES = (0.0, 0.02, 0.05, 0.1)  # of fault points that are struck at
DELIVERS = 0.5  # of rounds
SECONDS = 5.0  # in which the blows from outside fall
CALLS = ("ok", "ok", "500", "502", "529", "429:0", "drop_before", "drop_after", "garbled")
# Faults of each verb. A create may be accepted and its answer lost in several ways; 400 ends a batch for good.
FAULTS: dict[str, Sequence[str]] = {
    "create": (*CALLS, "413", "408", "409", "500_after", "529_after", "timeout_after:0.5", "400"),
    "retrieve": (*CALLS, "404"),
    "list": CALLS,
    "results": (
        "ok",
        "500",
        "404",
        "truncate:700",
        "truncate:3000",
        "duplicate:3",
        "unknown:2+garbage:1",
        "crlf+blank",
        "duplicate:2+crlf",
    ),
    "cancel": ("ok", "500", "409", "drop_after"),
}
# Two complete fetches that lack lines make those of the second missing, by rule: one such fetch is all there may be,
# and none where the API itself leaves lines out.
LACKING = ("missing:1", "unknown_type:1")
SHARES = ("errored", "overloaded", "invalid", "expired", "missing", "nasty")
# What is done from outside, each with what belongs to it some time later.
BLOWS: tuple[tuple[str, ...], ...] = (
    ("kill worker-1",),
    ("kill worker-2",),
    ("kill clock-1",),
    ("end worker-1",),
    ("start clock-2", "kill clock-2"),
    ("start worker-3",),
    ("flush",),
    ("cut",),
    ("restart",),
    ("resubmit",),
    ("look",),
    ("cancel", "resubmit"),
    ("pause", "resume"),
)


def draw(seed: int, points: Iterable[Point]) -> Plan:
    """The plan of one round.

    :param points: all that there are; whether one is struck at depends on the seed and on the point alone.
    """
    dice = Random(seed)
    scenario = Scenario(
        f"seed {seed}",
        task=dice.choice(("classify", "summarise")),
        records=dice.choice((12, 23, 30, 40)),
        api=_api(dice),
        delivers=Random(f"{seed} delivers").random() < DELIVERS,
    )
    rate = dice.choice(RATES)
    return Plan(
        seed,
        scenario,
        strikes=tuple(_strikes(seed, points, rate)),
        blows=tuple(_blows(dice)),
        workers=dice.choice((1, 2, 2, 3)),
        clocks=dice.choice((1, 1, 2)),
    )


def _api(dice: Random) -> dict[str, Any]:
    api: dict[str, Any] = {"delay": dice.choice((0.0, 0.3, 1.0)), "cancel_delay": 0.2, "nasty_bytes": 10_000}
    for share in SHARES:
        if dice.random() < 0.3:
            api[f"{share}_share"] = round(dice.uniform(0.02, 0.15), 2)
    for verb, faults in FAULTS.items():
        if dice.random() < 0.7:
            # Where a batch may hold no line at all, one of somebody else's in it would tell that it is theirs.
            fit = [one for one in faults if "missing_share" not in api or "unknown:" not in one]
            drawn = [dice.choice(fit) for _ in range(dice.randint(1, 6))]
            if verb == "results" and "missing_share" not in api and dice.random() < 0.5:
                drawn.insert(dice.randrange(len(drawn) + 1), dice.choice(LACKING))
            api[f"{verb}_faults"] = ",".join(drawn)
    return api


def _strikes(seed: int, points: Iterable[Point], rate: float) -> list[tuple[Point, str]]:
    struck = []
    silent = False
    for point in sorted(points):
        dice = Random(f"{seed} {point}")
        if dice.random() >= rate:
            continue
        what = dice.choices((KILL, KILL_WORKER, STALL, LEAVE), (7, 2, 2, 2))[0]
        if what == STALL and (point.moment == COMMIT or (silent and point.step == "submit")):
            # A POST that is silent for longer than the grace time may be made twice: settings see to it that it ends
            # long before, and so must rounds.
            what = KILL
        silent = silent or (what == STALL and point.step == "submit")
        struck.append((point, what))
    return struck


def _blows(dice: Random) -> list[tuple[float, str]]:
    blows: list[tuple[float, str]] = []
    for _ in range(dice.randint(0, 4)):
        at = dice.uniform(0.1, SECONDS)
        for what in dice.choice(BLOWS):
            blows.append((round(at, 2), what))
            at += dice.uniform(0.2, 1.5)
    return sorted(blows)
