"""The `batchdesk` command in the test's own process: quick, for what needs no processes. Any test may make one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from support.installation import Finished

from webapp.cli import main


class CommandLine:
    """`batchdesk …` with an environment of its own, from a folder of its own."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environ = {"BATCHDESK_HOME": str(self.home)} | environ

    def __call__(self, *arguments: str | Path, **environ: str | None) -> Finished:
        done = CliRunner().invoke(
            main, [str(one) for one in arguments], env=self.environ | environ, catch_exceptions=False
        )
        return Finished(done.exit_code, done.stdout, done.stderr)

    def classify(self, source: str | Path, *arguments: str | Path) -> Finished:
        return self("run", "classify", source, "--set", "labels=alpha,beta", *arguments)

    def write(self, name: str, *lines: Any) -> Path:
        """A file of lines: bytes as they are, anything else as JSON."""
        path = self.folder / name
        path.write_bytes(b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in lines))
        return path

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text("utf-8").split("\n")[:-1]]
