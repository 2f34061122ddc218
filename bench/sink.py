"""The other end of the wire while measuring: takes bodies as fast as they come and streams results made beforehand.
A process of its own, `python -m bench.sink FOLDER`, which prints its port; it is no sandbox and checks nothing.

`POST /v1/messages/batches` reads its body away and answers with a batch that has ended; its results are the file
`<batch id>.jsonl` in FOLDER. `POST /raw` reads away whatever comes until the client shuts its side down.
"""

from __future__ import annotations

import itertools
import json
import socket
import socketserver
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

BATCHES = "/v1/messages/batches"
_BUFFER = 1 << 18
_MOST_HEAD = 1 << 16


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    folder: Path

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.numbers = itertools.count(1)


class _Handler(socketserver.BaseRequestHandler):
    """One connection, any number of requests."""

    server: _Server
    request: socket.socket

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._buffer = memoryview(bytearray(_BUFFER))
        self._ahead = b""

    def handle(self) -> None:
        while head := self._head():
            method, path = head[0].split(" ")[:2]
            fields = dict(line.lower().split(": ", 1) for line in head[1:])
            if path == "/raw":
                self._read_away(None)
                self._answer(b"{}")
                return
            self._read_away(int(fields.get("content-length", "0")))
            self._serve(method, path.partition("?")[0])

    def _head(self) -> list[str]:
        """The lines of a request's head; none when the client has gone."""
        data = self._ahead
        while b"\r\n\r\n" not in data:
            piece = self.request.recv(_MOST_HEAD)
            if not piece:
                return []
            data += piece
        head, _, self._ahead = data.partition(b"\r\n\r\n")
        return head.decode("latin-1").split("\r\n")

    def _read_away(self, length: int | None) -> None:
        """Read `length` bytes, or all that come."""
        left = sys.maxsize if length is None else length
        left -= len(self._ahead)
        self._ahead = b""
        while left > 0:
            count = self.request.recv_into(self._buffer, min(left, _BUFFER))
            if not count:
                return
            left -= count

    def _serve(self, method: str, path: str) -> None:
        if path == BATCHES and method == "POST":
            self._answer(self._batch(f"msgbatch_{next(self.server.numbers)}"))
        elif path == BATCHES:
            self._answer(b'{"data":[],"has_more":false,"first_id":null,"last_id":null}')
        elif path.endswith("/results"):
            self._results(path.split("/")[-2])
        else:
            self._answer(self._batch(path.rsplit("/", 1)[-1]))

    def _batch(self, batch_id: str) -> bytes:
        return _batch(batch_id, self.server.server_address[1])

    def _results(self, batch_id: str) -> None:
        with (self.server.folder / f"{batch_id}.jsonl").open("rb") as file:
            self._send_head(Path(file.name).stat().st_size, "application/x-jsonl")
            self.request.sendfile(file)

    def _answer(self, body: bytes) -> None:
        self._send_head(len(body), "application/json")
        self.request.sendall(body)

    def _send_head(self, length: int, kind: str) -> None:
        date = format_datetime(datetime.now(UTC), usegmt=True)
        head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        self.request.sendall(head.encode("latin-1"))


def _batch(batch_id: str, port: int) -> bytes:
    now = datetime.now(UTC)
    batch: dict[str, Any] = {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": "ended",
        "request_counts": {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": now.isoformat(),
        "ended_at": now.isoformat(),
        "expires_at": (now + timedelta(days=1)).isoformat(),
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": f"http://127.0.0.1:{port}{BATCHES}/{batch_id}/results",
    }
    return json.dumps(batch).encode()


def main() -> None:
    """Serve until killed, or until whoever started us closes our standard input."""
    with _Server(Path(sys.argv[1])) as server:
        print(server.server_address[1], flush=True)
        import threading

        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()


if __name__ == "__main__":
    main()
