"""The worker processes: `python worker.py work` runs steps, `python worker.py clock` nudges what is due.
Roles only; what they do is in `webapp.workers`.
"""

from __future__ import annotations

import sys

from webapp import create_app
from webapp.errors import BatchdeskError
from webapp.jobs import connect
from webapp.workers import clock, work


def main(arguments: list[str]) -> int:
    """Be what the one argument names, until SIGTERM."""
    if arguments not in (["work"], ["clock"]):
        sys.stderr.write("usage: python worker.py work|clock\n")
        return 2
    try:
        app = create_app(pooled=False)
    except BatchdeskError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    with app.app_context():
        if arguments == ["work"]:
            work(connect(app.config["REDIS_URL"], patient=True))
        else:
            clock()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
