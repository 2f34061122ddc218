"""An installation to measure in: embedded services that lose nothing, a sink for an API, a folder that goes away.
The measures enter `opened`; it is the product's own wiring over a database that nothing else uses.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from flask import Flask

from webapp import ROOT, create_app, db
from webapp.local import Supervisor
from webapp.settings import load


@dataclass(frozen=True, slots=True)
class House:
    """Where everything is.

    :param environ: the settings, as a process of its own would find them in its environment.
    """

    app: Flask
    folder: Path
    environ: dict[str, str]
    sink_port: int

    def results_file(self, api_id: str) -> Path:
        """The file that the sink streams as the results of a batch."""
        return self.folder / "sink" / f"{api_id}.jsonl"

    def connect(self) -> psycopg.Connection:
        """A connection of one's own, past the product."""
        return psycopg.connect(self.environ["DATABASE_URL"])

    def empty(self) -> None:
        """Take away all that the work so far has left in the tables."""
        names = ", ".join(db.Base.metadata.tables)
        with self.connect() as connection:
            connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")


@contextmanager
def opened(**settings: str) -> Iterator[House]:
    """A migrated installation with the given settings, in the application's context, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="batchdesk-bench-") as name:
        folder = Path(name)
        (folder / "sink").mkdir()
        with Supervisor(folder / "home", log=_tell) as supervisor, _sink(folder / "sink") as port:
            services = supervisor.start_services()
            environ = {
                "DATABASE_URL": services.database_url,
                "REDIS_URL": services.redis_url,
                "BATCHDESK_HOME": str(folder / "home"),
                "BATCHDESK_SECRET_KEY": "of a house that is gone in minutes",
                "ANTHROPIC_API_KEY": "sink",
                "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}",
                "BATCHDESK_UNKNOWN_GRACE": "0",
            } | settings
            app = create_app(load(environ), pooled=False)
            _quiet()
            with app.app_context():
                _migrate()
                yield House(app, folder, environ, port)
                db.db.engine.dispose()


def _migrate() -> None:
    from flask_migrate import upgrade

    upgrade()


def _quiet() -> None:
    """Standard output is for figures, and the words of a healthy run are of no use here."""
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("alembic", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def _sink(folder: Path) -> Iterator[int]:
    with subprocess.Popen(
        (sys.executable, "-m", "bench.sink", str(folder)),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


def _tell(message: str) -> None:
    print(f"bench: {message}", file=sys.stderr)
