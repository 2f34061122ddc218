"""Between two requests, a web process takes up the set of plugins where it has changed, and says so in its heartbeat.
That is one read of one row; requests under way keep what they have.
"""

from __future__ import annotations

import logging
import threading
import time

from flask import Flask, current_app, request
from sqlalchemy.exc import SQLAlchemyError

from webapp import db
from webapp.admin.access import OPEN
from webapp.batches.desk import Desk
from webapp.hearts import Heart
from webapp.installed import pluginset, versions

log = logging.getLogger("batchdesk")

AGAIN_SECONDS = 1.0  # from a set that could not be taken up to the next try


class Taking:
    """What one web process knows of the set."""

    def __init__(self) -> None:
        self.heart: Heart | None = None
        self._failed: float | None = None
        self._one = threading.Lock()

    def up(self) -> None:
        """Take up the set as it is now, before the page is made: nobody is served by a former one."""
        # Who is not signed in has no need of plugins, and health is asked for also when the database is away.
        if request.endpoint in OPEN or self._failed_lately():
            return
        try:
            with db.transaction() as tx:
                generation = versions.generation(tx)
            if self.heart is None or self.heart.generation != generation:
                with self._one:
                    self.heart = self._loaded(current_app.extensions["batchdesk"], generation)
            self.heart.beat()
        except SQLAlchemyError:
            pass  # the page says that the database is away
        except (OSError, RuntimeError):  # no room for a process, or a fault of ours: the former set serves on
            self._failed = time.monotonic()
            log.exception("The set of plugins could not be taken up; it is tried again.")

    def _failed_lately(self) -> bool:
        return self._failed is not None and time.monotonic() - self._failed < AGAIN_SECONDS

    def _loaded(self, desk: Desk, generation: int) -> Heart:
        """The heart of this process, once it has the set: who waited for another request finds it loaded."""
        present = desk.present()
        if generation != present.generation:
            present = desk.take_up()
        heart = self.heart or Heart("web")
        if heart.generation != present.generation:
            heart.took_up(present.generation, pluginset.told(present.registry.problems))
        return heart


def init_app(app: Flask) -> None:
    """Put the look before every request."""
    app.before_request(Taking().up)
