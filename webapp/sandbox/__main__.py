"""``python -m webapp.sandbox``: serves the sandbox alone. The command line's ``sandbox`` does the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import SandboxConfig, SandboxConfigError, create_sandbox
from .server import serve


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped; returns the exit status."""
    known = ", ".join(f"{name}={value}" for name, value in SandboxConfig().as_dict().items())
    parser = argparse.ArgumentParser(
        prog="python -m webapp.sandbox",
        description="A local Message Batches API.",
        epilog=f"Settings and their defaults: {known}",
    )
    parser.add_argument("--folder", type=Path, required=True, help="where its batches are kept")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; may be repeated")
    parser.add_argument("--address-file", type=Path, help="gets the URL once connections are taken")
    options = parser.parse_args(arguments)
    try:
        app = create_sandbox(options.folder, SandboxConfig.parse(options.set))
        serve(app, options.host, options.port, options.address_file)
    except SandboxConfigError as error:
        parser.error(str(error))
    except OSError as error:
        parser.exit(1, f"The sandbox cannot start: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
