"""One installation of real processes for one round: a fresh database and queue, workers, clocks, an API of its own.

The harness makes one per round with `Workshop.household()`; what it started is gone when it is left.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy.exc import OperationalError
from support.desk import DeskDriver, make_settings
from support.sandbox import API_KEY, Sandbox
from support.services import create_database, drop_database

from chaos.nursery import Nursery
from chaos.orders import STALL, Orders
from chaos.worker import ORDERS, PLANTED
from webapp import create_app, db, jobs
from webapp.batches.ingestion import UNPROVABLE
from webapp.local import Services

PATIENCE = 100.0  # seconds; machines that play rounds are slow and busy
TABLE_URL = "CHAOS_TABLE_URL"  # where workers find the table that outputs are delivered to
TAKEN_FROM = "BATCHDESK_FILES"  # a folder of the household's own, for imports from the source `files`
SETTINGS = {
    "BATCHDESK_POLL_SCHEDULE": "*:0.2",
    "BATCHDESK_RETRY_DELAY": "0",
    "BATCHDESK_UNKNOWN_GRACE": "3",  # longer than a process is ever silent
    "BATCHDESK_MISSING_WAIT": "1",
    "BATCHDESK_BATCH_MAX_REQUESTS": "12",
    "BATCHDESK_PLUGIN_INSTALL": "web",
    "BATCHDESK_KEEP_PAYLOADS": "1",
}
NUDGED_LONG_AGO = 1.0  # seconds after which a nudge that is in no queue counts as lost
LONG = 1.0  # seconds of waiting that a round does not wait out
UNPROVED = "state = 'ingesting' AND held AND NOT proved AND reason = :why"
_numbers = count()


class Api(Sandbox):
    """The sandbox of a household, in a process that can be killed and comes back at the same address."""

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        super().__init__(folder)
        self._nursery = nursery
        self._address = folder / "address"
        self.pid = 0
        self._port = 0
        folder.mkdir()

    def start(self, **settings: Any) -> None:
        """Serve; with the port it had before."""
        self._address.unlink(missing_ok=True)
        arguments = ["--folder", str(self.folder), "--port", str(self._port), "--address-file", str(self._address)]
        for name, value in settings.items():
            arguments += ["--set", f"{name}={value}"]
        deadline = time.monotonic() + PATIENCE
        self.pid = 0
        while not self._address.exists():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            if not (self.pid and _lives(self.pid)):  # the port of one that was just killed is not free at once
                self.pid = self._nursery.fork("sandbox", {}, self.folder / "log", arguments)
            time.sleep(0.02)
        self.url = self._address.read_text().strip()
        self._port = int(self.url.rpartition(":")[2])

    def restart(self) -> None:
        """kill -9, and up again over the same batches, without the faults that were still to come."""
        config = {name: value for name, value in self.config.items() if not name.endswith("_faults")}
        kill(self.pid)
        while _lives(self.pid):
            time.sleep(0.01)
        self.start(**config)

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.call("GET", "/sandbox/config"))


class Household:
    """The processes of a round and the verbs of who plays with them."""

    def __init__(self, nursery: Nursery, folder: Path, environ: Mapping[str, str], desk: DeskDriver, api: Api) -> None:
        self._nursery = nursery
        self.folder = folder
        self._environ = dict(environ)
        self.desk = desk
        self.api = api
        self.orders = Orders(folder / "orders")
        self.orders.make()
        self._pids: dict[str, int] = {}
        self.deaths = 0
        self.strangers: list[str] = []  # batches of others, also those that are gone
        self._neighbours: list[str] = []  # those that are there

    def neighbour(self, count: int) -> None:
        """Let somebody else in the workspace send a batch of so many requests, if any; their earlier ones go."""
        if self._neighbours:
            self.api.call("DELETE", f"/v1/messages/batches/{self._neighbours.pop()}")
        params = {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
        requests = [{"custom_id": f"theirs-{n}", "params": params} for n in range(count)]
        if requests:
            made = self.api.call("POST", "/v1/messages/batches", {"requests": requests})
            self._neighbours.append(str(made["id"]))
            self.strangers += self._neighbours

    # -- processes ------------------------------------------------------------------------------------------------

    def start(self, role: str, name: str) -> None:
        """Start a worker or a clock, unless there is one of that name."""
        if name in self._pids and _lives(self._pids[name]):
            return
        self._pids[name] = self._nursery.fork(role, self._environ, self.folder / f"{name}.log")

    def mend(self) -> None:
        """Start again what has died."""
        for name, pid in list(self._pids.items()):
            if not _lives(pid):
                self.deaths += 1
                self.start(name.partition("-")[0], name)

    def kill(self, name: str) -> None:
        """kill -9 a worker (and with it the process of its job) or a clock, if there is one of that name."""
        kill(self._pids.get(name, 0))

    def end(self, name: str) -> None:
        """Ask a worker or a clock to end, if there is one of that name."""
        if name in self._pids:
            kill(self._pids[name], signal.SIGTERM)

    def close(self) -> None:
        for pid in (*self._pids.values(), self.api.pid):
            kill(pid)

    def keep(self, folder: Path) -> None:
        """Copy the logs and the orders out, for whoever looks into a broken round."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / self.folder.name
        shutil.copytree(self.folder, kept, ignore=shutil.ignore_patterns("home", "api", "held"))
        for table in ("events", "submissions", "batches", "requests", "steps", "deliveries"):
            rows = self.desk.rows(f"SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1")
            (kept / f"{table}.jsonl").write_text("".join(f"{row[0]}\n" for row in rows))

    def unexpected(self) -> Counter[str]:
        """How often a step of a worker broke with an error that nobody expects, by its name."""
        logs = "".join(log.read_text("utf-8", "replace") for log in self.folder.glob("worker-*.log"))
        found = re.findall(r"^((?:[a-z_]\w*\.)+[A-Z]\w*|[A-Z]\w*Error)(?::|$)", logs, re.MULTILINE)
        return Counter(name for name in found if not name.startswith("sqlalchemy."))  # it repeats the driver's

    def outlive(self) -> None:
        """Let the 29 days pass for adopted batches whose results hold no line: nothing else ends them but a person."""
        unproved = f"FROM batches WHERE {UNPROVED}"
        if self.desk.scalar(f"SELECT EXISTS (SELECT 1 {unproved})", why=UNPROVABLE):
            ago = "now() - interval '30 days'"
            self.desk.execute(f"UPDATE batches SET api_created_at = {ago} WHERE {UNPROVED}", why=UNPROVABLE)
            self.api.configure(results_faults="404")

    # -- what time and fate do ------------------------------------------------------------------------------------

    def flush_queue(self) -> None:
        """FLUSHALL, as far as it concerns this household."""
        with Redis.from_url(self._environ["REDIS_URL"]) as queue:
            queue.flushdb()

    def cut_connections(self) -> None:
        """End all sessions of the workers and clocks at the database."""
        with db.transaction() as tx:
            db.run(
                tx,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()",
            )

    def tend(self, *, nudge: bool) -> None:
        """What else takes half a minute: leases of the dead lapse, lost nudges are repeated, long waits are over.

        :param nudge: be a clock as well.
        """
        try:
            self._tend()
        except OperationalError:
            return  # a row is locked by somebody who is dying: at the next look
        if nudge:
            jobs.nudge()

    def _tend(self) -> None:
        lost = jobs.queue().count == 0  # then whatever was nudged a while ago is in no queue any more
        gone = list(self.orders.dead())
        gone += [done.lease for done in self.orders.done() if done.what == STALL]
        with db.transaction() as tx:
            db.run(tx, "SET LOCAL lock_timeout = '2s'")
            for step, target, epoch in gone:
                _lapse(tx, step, target, epoch)
            _hurry(tx, lost=lost)


def _lapse(tx: Any, step: str, target: int, epoch: int) -> None:
    db.run(
        tx,
        "UPDATE steps SET lease_until = CASE WHEN epoch = :epoch AND lease_until IS NOT NULL "
        "THEN now() - interval '1 second' ELSE lease_until END, nudged_at = NULL "
        "WHERE step = :step AND target_id = :target AND (epoch = :epoch OR lease_until IS NULL)",
        step=step,
        target=target,
        epoch=epoch,
    )


def _hurry(tx: Any, *, lost: bool) -> None:
    db.run(
        tx,
        "UPDATE steps SET due_at = LEAST(steps.due_at, now()), nudged_at = NULL FROM ("
        "SELECT step, target_id FROM steps WHERE lease_until IS NULL "
        "AND (due_at > now() + make_interval(secs => :long) "
        "OR :lost AND nudged_at < now() - make_interval(secs => :ago)) FOR UPDATE SKIP LOCKED) AS waiting "
        "WHERE steps.step = waiting.step AND steps.target_id = waiting.target_id",
        long=LONG,
        lost=lost,
        ago=NUDGED_LONG_AGO,
    )
    db.run(tx, "UPDATE accounts SET throttled_until = now() WHERE throttled_until > now()")


class Workshop:
    """What all rounds share: the services, the migrated database that theirs are copied from, the nursery."""

    def __init__(self, services: Services, template: str, nursery: Nursery) -> None:
        self.services = services
        self.template = template
        self.nursery = nursery

    @contextmanager
    def household(
        self,
        *,
        workers: int = 2,
        clocks: int = 1,
        planted: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[Household]:
        """A fresh installation whose processes are up."""
        number = next(_numbers)
        folder = Path(tempfile.mkdtemp(prefix="bd-chaos-"))
        name = f"chaos_{os.getpid()}_{number}"
        services = Services(
            create_database(self.services, name, self.template),
            self.services.redis_url.replace("?db=0", f"?db={1 + number % 15}"),
            None,
        )
        api = Api(self.nursery, folder / "api")
        api.start()
        given = SETTINGS | dict(settings or {}) | {"BATCHDESK_HOME": str(folder / "home")}
        app = create_app(make_settings(services.database_url, services, sandbox_url=api.url, **given))
        environ = {"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": API_KEY, "ANTHROPIC_BASE_URL": api.url}
        environ |= {"DATABASE_URL": services.database_url, "REDIS_URL": services.redis_url} | given
        environ |= {"BATCHDESK_SECRET_KEY": "only for tests, and long enough"}
        environ |= {ORDERS: str(folder / "orders"), PLANTED: planted, TABLE_URL: services.database_url}
        environ |= {TAKEN_FROM: str(folder)}
        os.environ[TABLE_URL] = services.database_url  # for steps that are performed in this process
        household = Household(self.nursery, folder, environ, DeskDriver(app), api)
        before = os.environ.get(TAKEN_FROM, "")
        os.environ[TAKEN_FROM] = str(folder)
        try:
            with app.app_context():
                household.flush_queue()
                for role, many in (("worker", workers), ("clock", clocks)):
                    for nth in range(many):
                        household.start(role, f"{role}-{nth + 1}")
                yield household
        finally:
            os.environ[TAKEN_FROM] = before
            household.close()
            with app.app_context():
                db.db.engine.dispose()
            drop_database(self.services, name)
            shutil.rmtree(folder, ignore_errors=True)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """kill -9, or another signal, of a process that may be gone."""
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
