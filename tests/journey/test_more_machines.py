"""Workers with homes of their own, as on several machines, on one PostgreSQL behind pgbouncer and one Valkey."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from PIL import Image as Picture
from support.desk import documents
from support.installation import Installation, until
from support.pgbouncer import ABSENT, PROGRAM, pooled
from support.sandbox import SandboxProcess
from support.services import create_database, drop_database

from webapp.local import Services

ROOT = Path(__file__).resolve().parents[2]
POOL = 4  # connections of PostgreSQL, for two workers, a clock and a command; a worker alone may use three

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(PROGRAM is None and "CI" not in os.environ, reason=ABSENT),
]


@contextmanager
def process(role: str, env: dict[str, str], home: Path) -> Iterator[None]:
    """A worker or a clock with a home of its own."""
    home.mkdir()
    argv = [sys.executable, "worker.py", role]
    with subprocess.Popen(argv, cwd=ROOT, env=env | {"BATCHDESK_HOME": str(home)}, stdin=subprocess.DEVNULL) as one:
        try:
            yield
        finally:
            one.terminate()


def test_workers_of_several_machines_share_a_run_behind_pgbouncer(services: Services, api: SandboxProcess) -> None:
    url = create_database(services, "behind_pgbouncer")
    with pooled(url, POOL) as pool, Installation.made(api, batch_max_requests="50") as made:
        made.env |= {
            "DATABASE_URL": pool.url,
            "REDIS_URL": services.redis_url,
            "BATCHDESK_SECRET_KEY": "only for tests, and long enough",
        }
        migrated = made.run("migrate")
        assert migrated.status == 0, migrated.err
        images = made.folder / "images"
        images.mkdir()
        for shade in range(3):
            Picture.new("RGB", (8, 8), (shade, shade, shade)).save(images / f"{shade}.png")
        with (
            process("work", made.env, made.folder / "one"),
            process("work", made.env, made.folder / "two"),
            process("clock", made.env, made.folder / "three"),
            psycopg.connect(url, autocommit=True) as look,
        ):
            up = "SELECT count(*) FROM processes WHERE role IN ('worker', 'clock')"
            until(lambda: look.execute(up).fetchone() == (3,), "both workers and the clock are up")
            done = made.classify(made.write("records.jsonl", documents(120)))
            assert done.status == 0, done.err
            assert done.summary["succeeded"] == 120 and done.summary["batches"] >= 3
            assert [line["status"] for line in made.outputs()] == ["succeeded"] * 120
            pictures = made.run("run", "alt_text", images, "--json")
            assert pictures.status == 0, pictures.err
            (ours,) = [one for one in pool.shows("POOLS") if one["database"] == "behind_pgbouncer"]
            assert ours["pool_mode"] == "transaction"
            servers = sum(ours[state] for state in ("sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login"))
            assert 0 < servers <= POOL
            assert look.execute("SELECT count(*) FROM steps WHERE error IS NOT NULL").fetchone() == (0,)
    drop_database(services, "behind_pgbouncer")
