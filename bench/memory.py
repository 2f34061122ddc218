"""The measures of memory: how much a job's process grows over an idle worker, at a hundred thousand requests.
`__main__` calls `peaks`; each step runs in a fork of a process of its own, as the jobs of a worker do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.house import House
from bench.report import Figure
from bench.road import Road
from webapp import (
    ROOT,
    create_app,
    db,
    jobs,
)
from webapp.batches.states import BatchState
from webapp.batches.steps import StepName

LIMIT_MB = 100.0
_MB = 1_000_000


def peaks(house: House, *, requests: int, record_bytes: int, line_bytes: int) -> list[Figure]:
    """The peaks of planning, submission and ingestion of one batch, in MB over an idle worker."""
    road = Road(house, requests, record_bytes)
    figures = [_peak(house, StepName.PLAN, road.run_id)]
    road.expect(BatchState.PLANNED)
    figures.append(_peak(house, StepName.SUBMIT, road.batch_id()))
    road.expect(BatchState.IN_PROGRESS)
    road.end(line_bytes)
    figures.append(_peak(house, StepName.INGEST, road.batch_id()))
    road.expect(BatchState.DONE)
    house.empty()
    return figures


def _peak(house: House, step: StepName, target_id: int) -> Figure:
    """Measured in a process without our own data: what this one holds, a fork of it would hold too."""
    answer = subprocess.run(
        (sys.executable, "-m", "bench.memory", step.value, str(target_id)),
        cwd=ROOT,
        env={**os.environ, **house.environ},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Figure(f"{step.value} peak memory", int(answer.stdout) / _MB, "MB over idle", LIMIT_MB)


def main() -> None:
    """Be an idle worker with one job; print by how many bytes the job's process grew over the worker."""
    step, target_id = sys.argv[1], int(sys.argv[2])
    app = create_app(pooled=False)
    with app.app_context():
        _ = app.extensions["batchdesk"].gateway  # loaded before the fork, as in a worker
        reader, writer = os.pipe()
        if os.fork() == 0:
            # A fork begins smaller than its parent, without pages of libraries: this is the stricter zero.
            idle = _own_bytes("VmRSS")
            db.db.engine.dispose(close=False)
            jobs.perform(step, target_id)
            os.write(writer, str(_own_bytes("VmHWM") - idle).encode())
            os._exit(0)
        os.close(writer)
        print(os.read(reader, 32).decode())


def _own_bytes(name: str) -> int:
    """A value of `/proc/self/status`, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
