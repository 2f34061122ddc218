"""Debian's pgbouncer in transaction mode before a test's PostgreSQL, with a pool that is smaller than what asks of it.

It runs as `nobody` where the tests run as root, as whom it refuses to. PostgreSQL lets in only its owner, by a socket:
so a thread of this process hands on what pgbouncer says.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
ABSENT = "there is no pgbouncer here: `apt-get install pgbouncer`, as .ci/run does"


@dataclass(frozen=True)
class Pool:
    """One database behind pgbouncer."""

    url: str
    port: int

    def shows(self, what: str) -> list[dict[str, Any]]:
        """What its own console says."""
        address = f"host=127.0.0.1 port={self.port} user=console dbname=pgbouncer"
        with psycopg.connect(address, autocommit=True, row_factory=dict_row) as console:
            return console.execute(f"SHOW {what}".encode()).fetchall()


@contextmanager
def pooled(database_url: str, size: int) -> Iterator[Pool]:
    """The database of a URL, by way of at most `size` connections."""
    assert PROGRAM is not None
    name = database_url.partition("?")[0].rpartition("/")[2]
    with tempfile.TemporaryDirectory(prefix="bd-pgb-") as folder, _handing_on(database_url) as behind:
        port = _free_port()
        settings = Path(folder, "pgbouncer.ini")
        settings.write_text(
            f"[databases]\n{name} = host=127.0.0.1 port={behind} user=batchdesk dbname={name}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {size}\nmax_client_conn = 200\nstats_users = console\n"
        )
        Path(folder).chmod(0o755)
        argv = [PROGRAM, "-q", *(("-u", "nobody") if os.geteuid() == 0 else ()), str(settings)]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
            try:
                _await(port, process)
                yield Pool(f"postgresql://batchdesk@127.0.0.1:{port}/{name}", port)
            finally:
                process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None, f"pgbouncer ended with {process.returncode}"
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=10):
            return


@contextmanager
def _handing_on(database_url: str) -> Iterator[int]:
    """A port that leads to PostgreSQL's socket."""
    told = conninfo_to_dict(database_url)
    path = f"{told['host']}/.s.PGSQL.{told.get('port', 5432)}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, path), daemon=True).start()
        yield int(server.getsockname()[1])
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, path: str) -> None:
    while True:
        try:
            there, _ = server.accept()
        except OSError:
            return
        here = socket.socket(socket.AF_UNIX)
        here.connect(path)
        threading.Thread(target=_both_ways, args=(there, here), daemon=True).start()


def _both_ways(there: socket.socket, here: socket.socket) -> None:
    with there, here:
        back = threading.Thread(target=_copy, args=(here, there), daemon=True)
        back.start()
        _copy(there, here)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
