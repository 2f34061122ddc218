"""Keeps batches in a folder: one SQLite file for what moves, and a few plain files per batch for its rows.

The intake writes a batch, the lifecycle moves it, the results read its rows; all through `Store`. One process
serves a folder, with any number of threads.

``<id>.body`` is the create's body as it came; ``<id>.index`` has one fixed record per request (where it
stands in the body, how it will fare); ``<id>.ids`` one ``custom_id`` per line. ``<id>.results`` are the result
lines, once somebody wanted them.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .config import SandboxConfig

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    workspace TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    ends_at INTEGER,
    deleted INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS batches_open ON batches (workspace) WHERE ended_at IS NULL;
CREATE TABLE IF NOT EXISTS prefixes (
    key BLOB NOT NULL,
    batch INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    PRIMARY KEY (key, batch)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

_RECORD = struct.Struct("<QIIB")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """How one request stands in the files: its text in the body, its chance in [0, 2**32), its fate."""

    offset: int
    length: int
    chance: int
    fate: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch. Counts are of its requests; `planned` says how they fare if all of them are processed."""

    id: str
    workspace: str
    created_at: datetime
    total: int
    planned: dict[str, int]
    version: str
    betas: tuple[str, ...]
    config: SandboxConfig
    seq: int = 0
    cancel_initiated_at: datetime | None = None
    ended_at: datetime | None = None
    #: Why it ended: ``done``, ``canceled`` or ``expired``; and the part of it that was processed by then.
    ending: str = ""
    processed: float = 1.0
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    #: What was billed, by model; None until it was reckoned.
    bill: dict[str, Any] | None = None

    @property
    def due_at(self) -> datetime:
        """When it ends if it is neither cancelled nor expires."""
        return self.created_at + timedelta(seconds=min(self.config.delay, 10**9))

    @property
    def expires_at(self) -> datetime:
        return self.created_at + timedelta(hours=24)

    @property
    def ends_at(self) -> datetime:
        """When it ends by whichever comes first of done, expired and cancelled."""
        end = min(self.due_at, self.expires_at)
        if self.cancel_initiated_at is None:
            return end
        canceled_at = self.cancel_initiated_at + timedelta(seconds=min(self.config.cancel_delay, 10**9))
        return min(canceled_at, max(end, self.cancel_initiated_at))

    @property
    def archives_at(self) -> datetime:
        return self.created_at + timedelta(days=29)


class BatchFiles:
    """The files of one batch, or of an upload that may become one."""

    def __init__(self, folder: Path, name: str) -> None:
        self.body = folder / f"{name}.body"
        self.index = folder / f"{name}.index"
        self.ids = folder / f"{name}.ids"
        #: Not part of an upload: made when the results are first wanted.
        self.results = folder / f"{name}.results"

    def move_to(self, other: BatchFiles) -> None:
        for mine, theirs in zip(self, other, strict=True):
            mine.rename(theirs)

    def remove(self) -> None:
        for path in self:
            path.unlink(missing_ok=True)

    def rows(self) -> list[Row]:
        """Every row, in the order of the body."""
        return [Row._make(record) for record in _RECORD.iter_unpack(self.index.read_bytes())]

    def __iter__(self) -> Iterator[Path]:
        return iter((self.body, self.index, self.ids))


def pack_row(row: Row) -> bytes:
    """The row as the index file holds it."""
    return _RECORD.pack(*row)


class Store:
    """The sandbox's memory. Its methods may be called from several threads and each is one transaction."""

    def __init__(self, folder: Path) -> None:
        self._uploads = folder / "uploads"
        self._batches = folder / "batches"
        for each in (folder, self._uploads, self._batches):
            each.mkdir(parents=True, exist_ok=True)
        for leftover in (*self._uploads.iterdir(), *self._batches.glob("*.results.part*")):
            leftover.unlink()
        #: Held by whoever reads a batch in order to move it.
        self.lock = threading.RLock()
        self._db = sqlite3.connect(folder / "sandbox.sqlite", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        if not any(column[1] == "ends_at" for column in self._db.execute("PRAGMA table_info(batches)")):
            self._db.execute("ALTER TABLE batches ADD COLUMN ends_at INTEGER")  # a folder of an earlier version

    def close(self) -> None:
        with self.lock:
            self._db.close()

    def upload(self, name: str) -> BatchFiles:
        return BatchFiles(self._uploads, name)

    def files(self, batch: Batch) -> BatchFiles:
        return BatchFiles(self._batches, batch.id)

    def read_meta(self, name: str) -> str | None:
        with self.lock:
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def write_meta(self, name: str, value: str) -> None:
        with self.lock:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def add(self, batch: Batch, upload: BatchFiles, prefixes: Iterable[tuple[bytes, int]]) -> Batch:
        """Accept an upload as a batch.

        :param prefixes: keys of the prompt-cache prefixes it writes, and the seconds each lives.
        """
        upload.move_to(self.files(batch))
        with self.lock, self._transaction():
            cursor = self._db.execute(
                "INSERT INTO batches (id, workspace, created_at, ends_at, state) VALUES (?, ?, ?, ?, ?)",
                (batch.id, batch.workspace, _micros(batch.created_at), _micros(batch.ends_at), _freeze(batch)),
            )
            seq = int(cursor.lastrowid or 0)
            rows = ((key, seq, seconds) for key, seconds in prefixes)
            self._db.executemany("INSERT OR REPLACE INTO prefixes VALUES (?, ?, ?)", rows)
        return dataclasses.replace(batch, seq=seq)

    def save(self, batch: Batch) -> None:
        """Write what moved on a batch."""
        with self.lock:
            self._db.execute(
                "UPDATE batches SET ended_at = ?, ends_at = ?, state = ? WHERE seq = ?",
                (_micros(batch.ended_at), _micros(batch.ends_at), _freeze(batch), batch.seq),
            )

    def delete(self, batch: Batch) -> None:
        """Hide a batch from its workspace; the audit still sees it."""
        with self.lock:
            self._db.execute("UPDATE batches SET deleted = 1 WHERE seq = ?", (batch.seq,))

    def find(self, workspace: str, batch_id: str) -> Batch | None:
        found = self._select("WHERE id = ? AND workspace = ? AND NOT deleted", (batch_id, workspace))
        return found[0] if found else None

    def all(self) -> list[Batch]:
        """Every batch of every workspace, also deleted ones, oldest first."""
        return self._select("ORDER BY seq", ())

    def due(self, workspace: str, now: datetime) -> list[Batch]:
        """The batches of a workspace that were not seen to end yet, and by `now` should."""
        where = "WHERE workspace = ? AND ended_at IS NULL AND coalesce(ends_at, 0) <= ?"
        return self._select(where, (workspace, _micros(now)))

    def queued(self, workspace: str) -> int:
        """How many requests the open batches of a workspace hold."""
        where = "WHERE workspace = ? AND ended_at IS NULL"
        with self.lock:
            query = f"SELECT coalesce(sum(json_extract(state, '$.total')), 0) FROM batches {where}"  # noqa: S608 - ours
            return int(self._db.execute(query, (workspace,)).fetchone()[0])

    def newest(self, workspace: str, limit: int, before_seq: int | None) -> list[Batch]:
        """Batches older than one of a sequence number (or from the newest on), newest first."""
        where = "WHERE workspace = ? AND NOT deleted AND seq < ? ORDER BY seq DESC LIMIT ?"
        return self._select(where, (workspace, before_seq or 1 << 62, limit))

    def newer(self, workspace: str, limit: int, after_seq: int) -> list[Batch]:
        """Those batches newer than one of a sequence number that are nearest to it, newest first."""
        where = "WHERE workspace = ? AND NOT deleted AND seq > ? ORDER BY seq LIMIT ?"
        return self._select(where, (workspace, after_seq, limit))[::-1]

    def warm_prefixes(self, batch: Batch) -> dict[bytes, float]:
        """The prefix keys of a batch that an earlier one of its workspace wrote or read and that lived when it began,
        with the seconds for which each still did.
        """
        with self.lock:
            rows = self._db.execute(
                "SELECT mine.key, max(b.ended_at + theirs.seconds * 1000000) - ?"
                " FROM prefixes mine JOIN prefixes theirs ON theirs.key = mine.key"
                " JOIN batches b ON b.seq = theirs.batch"
                " WHERE mine.batch = ? AND b.seq < mine.batch AND b.workspace = ? AND b.ended_at <= ?"
                " AND b.ended_at + theirs.seconds * 1000000 > ?"
                " AND json_extract(b.state, '$.counts.succeeded') > 0 GROUP BY mine.key",
                (_micros(batch.created_at), batch.seq, batch.workspace, *[_micros(batch.created_at)] * 2),
            ).fetchall()
        return {key: left / 1_000_000 for key, left in rows}

    def _select(self, where: str, values: tuple[Any, ...]) -> list[Batch]:
        with self.lock:
            rows = self._db.execute(f"SELECT seq, state FROM batches {where}", values).fetchall()  # noqa: S608 - our own clauses
        return [_thaw(seq, state) for seq, state in rows]

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)


_MOMENTS = ("created_at", "cancel_initiated_at", "ended_at")


def _freeze(batch: Batch) -> str:
    state = dataclasses.asdict(batch)
    del state["seq"]
    for name in _MOMENTS:
        state[name] = _micros(state[name])
    return json.dumps(state)


def _thaw(seq: int, text: str) -> Batch:
    state = json.loads(text)
    for name in _MOMENTS:
        if state[name] is not None:
            state[name] = _EPOCH + timedelta(microseconds=state[name])
    state |= {"seq": seq, "betas": tuple(state["betas"]), "config": _config(tuple(state["config"].items()))}
    return Batch(**state)


@lru_cache(maxsize=64)
def _config(values: tuple[tuple[str, Any], ...]) -> SandboxConfig:
    """A configuration read again; checking one takes longer than all the rest, and thousands of batches share a few."""
    return SandboxConfig(**dict(values))
