"""`make chaos`: rounds by seed, or a sweep over every fault point; a line for each, and the sums at the end.

A broken round prints its seed, the command that repeats it and the audit's words, and keeps its logs.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count, groupby
from pathlib import Path
from random import SystemRandom

from chaos.household import Workshop
from chaos.orders import KILL, KILL_WORKER, LEAVE, STALL
from chaos.plans import draw
from chaos.rounds import Verdict, play, sweep
from chaos.scenarios import discover
from chaos.shop import open_workshop


def main(arguments: list[str]) -> int:
    """Play what is asked for; 1 if anything is broken."""
    parser = argparse.ArgumentParser(prog="make chaos", description="Rounds of kills and faults, each audited.")
    parser.add_argument("--seed", type=int, help="of the first round; the next has the next number")
    parser.add_argument("--rounds", type=int, default=20, help="0: until it is stopped")
    parser.add_argument("--sweep", action="store_true", help="one round for each fault point instead")
    parser.add_argument("--only", default="", help="with --sweep: only points that contain this")
    parser.add_argument(
        "--how", choices=(KILL, KILL_WORKER, STALL, LEAVE), default=KILL, help="with --sweep: what happens"
    )
    options = parser.parse_args(arguments)
    logging.getLogger("batchdesk").setLevel(logging.CRITICAL)  # what the discovery meets is on purpose
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell in the background ignores them
        signal.signal(number, signal.default_int_handler)
    keep = Path(tempfile.mkdtemp(prefix="batchdesk-chaos-"))
    sums: Counter[str] = Counter()
    with open_workshop() as workshop:
        try:
            for number, verdict in enumerate(_verdicts(workshop, options, keep), 1):
                _tell(number, verdict, keep)
                _add(sums, verdict)
        except KeyboardInterrupt:
            print("stopped")
    print(
        f"{sums['rounds']} rounds, {sums['broken']} broken, {sums['missed']} that nobody came to: "
        f"{sums['kills']} kills and stalls at fault points, "
        f"{sums['blows']} blows from outside, {sums['requests']} requests in {sums['batches']} batches, "
        f"{sums['lines']} answers billed, {sums['seconds']} s"
    )
    return 1 if sums["broken"] else 0


def _verdicts(workshop: Workshop, options: argparse.Namespace, keep: Path) -> Iterator[Verdict]:
    points = discover(workshop)
    if options.sweep:
        wanted = [(point, scenario) for point, scenario in points.items() if options.only in str(point)]
        for scenario, group in groupby(wanted, key=lambda one: one[1]):
            yield from sweep(workshop, scenario, [point for point, _ in group], what=options.how, keep=keep)
        return
    first = SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"{len(points)} fault points, first seed {first}", flush=True)
    for seed in range(first, first + options.rounds) if options.rounds else count(first):
        try:
            yield play(workshop, draw(seed, points), keep=keep)
        except Exception:
            print(f"the harness itself broke: repeat it with: make chaos SEED={seed} ROUNDS=1", flush=True)
            raise


def _tell(number: int, verdict: Verdict, keep: Path) -> None:
    print(f"round {number} | {verdict}", flush=True)
    if not verdict.broken:
        return
    seed = verdict.plan.seed
    again = f"SEED={seed} ROUNDS=1" if seed is not None else "SWEEP=1 HOW={1} ONLY={0}".format(*verdict.plan.strikes[0])
    print(f"{verdict.words}\nrepeat it with: make chaos {again}\nits logs: {keep}", flush=True)


def _add(sums: Counter[str], verdict: Verdict) -> None:
    sums["rounds"] += 1
    sums["broken"] += bool(verdict.broken)
    sums["missed"] += verdict.plan.seed is None and not verdict.struck(verdict.plan.strikes[0][0])
    sums["kills"] += len(verdict.done)
    sums["blows"] += len(verdict.blows)
    for name in ("requests", "batches", "lines"):
        sums[name] += getattr(verdict, name)
    sums["seconds"] += round(verdict.seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
