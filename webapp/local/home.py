"""The folder of one installation: its layout, its owner's lock, and what a live owner publishes in it.

The supervisor writes here; anybody may ask :func:`running`.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from webapp.errors import LocalServicesError
from webapp.local.watcher import (
    GRACE_SECONDS,
    POSTGRES_PORT,
    SOCKETS_PREFIX,
    VALKEY_SOCKET,
    alive,
    remove_sockets,
)

OWN_SERVERS = "To use servers of your own instead, set DATABASE_URL and REDIS_URL."

# A unix socket's path holds 107 bytes on Linux and 103 on macOS; the names after this part take 38.
LONGEST_BASE = 60
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+")


@dataclass(frozen=True)
class Services:
    """Where the services of a home are reached; the sandbox only while a sandbox child runs."""

    database_url: str
    redis_url: str
    sandbox_url: str | None


def running(home: Path) -> Services | None:
    """Return the services that a live owner keeps up for this home, or None (no owner, or it died)."""
    try:
        record = json.loads((home / "run" / "services.json").read_text(encoding="utf-8"))
        services = Services(record["database_url"], record["redis_url"], record["sandbox_url"])
        owner = int(record["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return services if held(home) and alive(owner) else None


def held(home: Path) -> bool:
    """Whether anybody has the home: its owner, be it up, starting or stopping, or the watcher of one that died."""
    try:
        with (home / "owner.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Home:
    """The folders and files of one home; only the supervisor that owns it makes one."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.postgres = self.root / "postgres"
        self.valkey = self.root / "valkey"
        self.run = self.root / "run"
        self.log = self.root / "log"
        self.sockets: Path | None = None
        self._lock: int | None = None

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock: the watcher inherits it."""
        assert self._lock is not None, "the home is not owned"
        return self._lock

    @property
    def owned(self) -> bool:
        return self._lock is not None

    def make(self) -> None:
        """Make the folders that are missing, for this user only; a folder that exists stays as it is."""
        with self._writable():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.run, self.log):
                folder.mkdir(mode=0o700, exist_ok=True)

    def own(self) -> None:
        """Take the owner's lock; waits for what a killed owner left; raises LocalServicesError for a live one."""
        with self._writable():
            descriptor = os.open(self.root / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._wait_for_lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def _wait_for_lock(self, descriptor: int) -> None:
        # A dead owner's watcher holds the lock until the last process is gone. A live owner is given one second
        # only: `running` takes a shared lock for an instant, which must not look like an owner.
        began = time.monotonic()
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            waits = 1.0 if owner.isdigit() and alive(int(owner)) else GRACE_SECONDS + 4.0
            if time.monotonic() - began > waits:
                raise LocalServicesError(
                    f"Batchdesk already runs on the folder {self.root} (process {owner or 'unknown'}). Stop that one"
                    " first, or set BATCHDESK_HOME to another folder."
                )
            time.sleep(0.05)

    def disown(self) -> None:
        """Give the lock back; may be repeated."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def make_sockets(self, uid: int, gid: int) -> Path:
        """Make the short folder the sockets live in, open to one user only, and remember it for a later start."""
        self.remove_sockets()
        base = sockets_base()
        try:
            folder = Path(tempfile.mkdtemp(prefix=SOCKETS_PREFIX, dir=base))
        except OSError as error:
            raise LocalServicesError(
                f"Batchdesk cannot make a folder for its sockets in {base}: {error}. Make that writable, or set"
                f" TMPDIR to a folder that is, with a name of at most {LONGEST_BASE} bytes. {OWN_SERVERS}"
            ) from error
        self._write(self.run / "sockets", str(folder))
        if uid != os.geteuid():
            os.chown(folder, uid, gid)
        self.sockets = folder
        return folder

    def remove_sockets(self) -> None:
        """Remove the recorded socket folder: ours of now, or that of an owner that was killed."""
        with suppress(FileNotFoundError):
            remove_sockets(Path((self.run / "sockets").read_text(encoding="utf-8")))
            (self.run / "sockets").unlink()
        self.sockets = None

    def database_url(self, user: str = "batchdesk", database: str = "batchdesk") -> str:
        query = f"host={quote(str(self.sockets))}&port={POSTGRES_PORT}"
        return f"postgresql://{user}@/{database}?{query}"

    def redis_url(self) -> str:
        return f"unix://{quote(str(self.sockets))}/{VALKEY_SOCKET}?db=0"

    def publish(self, services: Services) -> None:
        """Write what :func:`running` reads, at once or not at all, for this user only."""
        record = {
            "pid": os.getpid(),
            "database_url": services.database_url,
            "redis_url": services.redis_url,
            "sandbox_url": services.sandbox_url,
        }
        self._write(self.run / "services.json", json.dumps(record, indent=1) + "\n")

    def unpublish(self) -> None:
        (self.run / "services.json").unlink(missing_ok=True)

    def _write(self, path: Path, text: str) -> None:
        with self._writable():
            descriptor, name = tempfile.mkstemp(dir=path.parent)  # made with mode 0600
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LocalServicesError(
                f"Batchdesk cannot write in the folder {self.root}: {error}. Make it writable, or set"
                f" BATCHDESK_HOME to a folder that is. {OWN_SERVERS}"
            ) from error


def sockets_base() -> Path:
    """Return a folder whose name is short and plain enough for sockets and for PostgreSQL's list of them."""
    preferred = tempfile.gettempdir()
    fits = len(os.fsencode(preferred)) <= LONGEST_BASE and PLAIN.issuperset(preferred)
    return Path(preferred if fits else "/tmp")  # noqa: S108 - mkdtemp makes a private folder in it
