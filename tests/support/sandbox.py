"""Starts the sandbox for tests, and talks to its controls. Any test may use it.

`SandboxProcess` is a process of its own, as in earnest; `SandboxThread` serves from the test's own process,
over HTTP all the same, and starts in milliseconds. Both are context managers with the same controls.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from webapp.sandbox import SandboxConfig, create_sandbox
from webapp.sandbox.server import bind

ROOT = Path(__file__).resolve().parents[2]
API_KEY = "sandbox-key"
_START_SECONDS = 20.0


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
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        return urllib.request.urlopen(request, timeout=60)


class SandboxProcess(Sandbox):
    """A running sandbox.

    :param folder: where it keeps its batches; a second process over the same folder finds them again.
    :param settings: what `SandboxConfig` knows, such as ``delay=0``.
    """

    def __init__(self, folder: Path, *, port: int = 0, **settings: Any) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._address = folder / "address"
        self._address.unlink(missing_ok=True)
        arguments = ["--folder", str(folder), "--port", str(port), "--address-file", str(self._address)]
        for name, value in settings.items():
            arguments += ["--set", f"{name}={value}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "webapp.sandbox", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        try:
            self.url = self._wait_for_address()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process, by force if it does not end when asked."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def kill(self) -> None:
        """End the process without giving it a chance to tidy up."""
        self.process.kill()
        self.process.wait()

    def _wait_for_address(self) -> str:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._address.exists():
                return self._address.read_text().strip()
            if self.process.poll() is not None:
                raise RuntimeError(f"the sandbox ended at once, with status {self.process.returncode}")
            time.sleep(0.01)
        raise RuntimeError(f"the sandbox did not start within {_START_SECONDS} seconds")


class SandboxThread(Sandbox):
    """A sandbox that is served by a thread of this process. Arguments as for `SandboxProcess`."""

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
        self._app.close()
