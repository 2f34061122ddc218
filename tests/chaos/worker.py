"""The processes of a round: an ordinary worker whose boundaries are watched, the clock and the sandbox as they are.

The nursery forks them; each takes all it needs from its environment and its arguments, and runs until it is killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos.boundaries import Watch, watch
from chaos.orders import Orders
from chaos.planted import plant
from webapp import create_app, jobs, workers
from webapp.sandbox import __main__ as sandbox_alone

ORDERS = "CHAOS_ORDERS"  # the folder of the round's orders
PLANTED = "CHAOS_PLANTED"  # the bug that is planted in this worker, if any


def work(arguments: Sequence[str]) -> None:
    """Be a worker that dies where it is told to."""
    app = create_app(pooled=False)
    orders = Orders(Path(os.environ[ORDERS]))
    plant(os.environ.get(PLANTED, ""))
    watch(Watch(orders.act, orders.hold))
    with app.app_context():
        workers.work(jobs.connect(app.config["REDIS_URL"], patient=True))


def clock(arguments: Sequence[str]) -> None:
    """Be a clock."""
    with create_app(pooled=False).app_context():
        workers.clock()


def serve(arguments: Sequence[str]) -> None:
    """Be the API."""
    sandbox_alone.main(list(arguments))


ROLES: dict[str, Callable[[Sequence[str]], None]] = {"worker": work, "clock": clock, "sandbox": serve}
