"""Starts the sandbox for tests, and talks to its controls. Any test may use it.

`SandboxProcess` is a process of its own, as in earnest; `SandboxThread` serves from the test's own process,
over HTTP all the same, and starts in milliseconds: it is the kit's. Both have the same controls.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from webapp.kit.sandboxes import API_KEY, Sandbox, SandboxThread

__all__ = ["API_KEY", "Sandbox", "SandboxProcess", "SandboxThread"]

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 20.0


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
