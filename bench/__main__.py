"""`python -m bench`: measures, and prints one JSON object per figure on standard output, and nothing else there.
The defaults end well within five minutes on two cores.
"""

from __future__ import annotations

import argparse

from bench import measures, memory
from bench.house import opened


def main(arguments: list[str] | None = None) -> None:
    """Measure speed, then memory."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="requests per round of the measures of speed")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median counts")
    parser.add_argument("--memory-requests", type=int, default=100_000, help="requests of the measures of memory")
    given = parser.parse_args(arguments)
    most = max(given.requests, given.memory_requests)
    with opened(BATCHDESK_BATCH_MAX_REQUESTS=str(most)) as house:
        figures = measures.speed(
            house, requests=given.requests, rounds=given.rounds, record_bytes=2_500, line_bytes=1_000
        )
        for figure in figures:
            print(figure.line(), flush=True)
        for figure in memory.peaks(house, requests=given.memory_requests, record_bytes=700, line_bytes=1_000):
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
