"""Forks the processes of the rounds from one that has everything imported, so that another worker costs no second.

`Nursery` is the harness's side; `python -m chaos.nursery` is the other. What was forked ends with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Self

from chaos.points import ROOT, transactions, verbs

PR_SET_PDEATHSIG = 1


class Nursery:
    """A process that forks others on request."""

    def __init__(self) -> None:
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONUTF8": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.nursery"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def fork(self, role: str, environ: Mapping[str, str], log: Path, arguments: Sequence[str] = ()) -> int:
        """Start a process with an environment of its own; its id."""
        order = {"role": role, "environ": dict(environ), "log": str(log), "arguments": list(arguments)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main() -> None:
    """Fork what is asked for, line by line, until there is nobody who asks."""
    import webapp.admin
    import webapp.gateway  # noqa: F401 - loaded here, once
    from chaos.worker import ROLES
    from webapp.gateway import Gateway

    Gateway(api_key="none", base_url="http://127.0.0.1:9")  # the SDK too
    transactions(), verbs()  # read here, not in the process of every job
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be(order, ROLES[order["role"]])
        print(pid, flush=True)


def _be(order: dict[str, Any], role: Any) -> NoReturn:
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(order["environ"])
        with suppress(KeyboardInterrupt):
            role(order["arguments"])
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it was, it goes to the log and no further
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
