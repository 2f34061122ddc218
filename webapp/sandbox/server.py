"""Serves a sandbox over HTTP with a thread per connection, in this process.

`__main__`, the command line and tests start it.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from .app import SandboxApp


class _Handler(WSGIRequestHandler):
    """Says nothing on stderr, and leaves the headers to the app: its Date is the sandbox's, not ours."""

    protocol_version = "HTTP/1.1"
    # A client that goes silent in the middle of a body gives its thread back at last.
    timeout = 900

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def send_response(self, code: int, message: str | None = None) -> None:
        self.send_response_only(code, message)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        self.close_connection = True


def bind(app: SandboxApp, host: str, port: int) -> tuple[BaseWSGIServer, str]:
    """A server that already takes connections, and its URL. It answers once it is served."""
    server = make_server(host, port, app, threaded=True, request_handler=_Handler)
    return server, f"http://{host}:{server.port}"


def serve(app: SandboxApp, host: str, port: int, address_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Prints the URL, and writes it to a file if one is named.

    :raises OSError: the address cannot be bound.
    """
    server, url = bind(app, host, port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    print(url, flush=True)  # noqa: T201 - the one thing people and scripts wait for
    if address_file is not None:
        _write_whole(address_file, url + "\n")
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        server.server_close()
        app.close()


def _stop(number: int, frame: FrameType | None) -> None:
    # The server takes this as the wish to stop; its threads are daemons and end with the process.
    raise KeyboardInterrupt


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody sees it half written."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)
