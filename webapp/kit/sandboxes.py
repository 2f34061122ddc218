"""Serves the sandbox from this process, over HTTP all the same, and talks to its controls.
The kit's checks and fixtures use it, and so does any test.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path
from typing import Any, Self

from webapp.sandbox import SandboxConfig, create_sandbox
from webapp.sandbox.server import bind

API_KEY = "sandbox-key"
PATIENCE = 60.0  # seconds for an answer of the controls
# Whatever proxy the environment names, it does not reach this machine's own addresses.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Sandbox:
    """A running sandbox and its controls."""

    url: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        raise NotImplementedError

    def configure(self, **settings: Any) -> dict[str, Any]:
        """Change settings of the running sandbox."""
        return dict(self.call("POST", "/sandbox/config", settings))

    def advance(self, seconds: float) -> None:
        """Move the sandbox's time forward."""
        self.call("POST", "/sandbox/clock", {"advance": seconds})

    def bill(self) -> dict[str, Any]:
        """What it billed: ``batches`` and ``total``."""
        return dict(self.call("GET", "/sandbox/bill"))

    def accepted(self, batch_id: str | None = None) -> list[dict[str, str]]:
        """Every request it accepted, or those of one batch."""
        path = f"/sandbox/batches/{batch_id}/requests" if batch_id else "/sandbox/accepted"
        with self._open("GET", path) as response:
            return [json.loads(line) for line in response]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call with JSON both ways.

        :raises urllib.error.HTTPError: the answer is an error.
        """
        with self._open(method, path, body) as response:
            return json.load(response)

    def _open(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {
            "x-api-key": API_KEY,
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
        }
        url = self.url + path
        request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310 - our own http://
        return _OPENER.open(request, timeout=PATIENCE)


class SandboxThread(Sandbox):
    """A sandbox that is served by a thread of this process; a context manager.

    :param folder: where it keeps its batches.
    :param settings: what `SandboxConfig` knows, such as ``delay=0``.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        self._app = create_sandbox(folder, SandboxConfig().changed(settings))
        self._server, self.url = bind(self._app, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; calls that are under way are left to end by themselves."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._app.close()
