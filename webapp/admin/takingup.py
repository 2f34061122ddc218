"""Between two requests, a web process takes up the set of plugins where it has changed, and says so in its heartbeat.
At most one query a second is made for that, whatever is asked for meanwhile; requests under way keep what they have.
"""

from __future__ import annotations

import logging
import threading
import time

from flask import Flask, current_app, request
from sqlalchemy.exc import SQLAlchemyError

from webapp import db
from webapp.admin.access import OPEN
from webapp.batches import plugins, pluginset
from webapp.batches.desk import Desk
from webapp.hearts import LOOK_SECONDS, Heart

log = logging.getLogger("batchdesk")


class Taking:
    """What one web process knows of the set."""

    def __init__(self) -> None:
        self.looked: float | None = None
        self.heart: Heart | None = None
        self._one = threading.Lock()

    def up(self) -> None:
        """Look whether the set has changed, unless that was done just now or another request is about it."""
        # Who is not signed in has no need of plugins, and health is asked for also when the database is away.
        if request.endpoint in OPEN or not self._one.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            if self.looked is None or now - self.looked > LOOK_SECONDS:
                self.looked = now
                self._look(current_app.extensions["batchdesk"])
        except SQLAlchemyError:
            pass  # the page says that the database is away
        except (OSError, RuntimeError):  # no room for a process, or a fault of ours: the former set serves on
            log.exception("The set of plugins could not be taken up; it is tried again.")
        finally:
            self._one.release()

    def _look(self, desk: Desk) -> None:
        present = desk.present()
        with db.transaction() as tx:
            generation = plugins.generation(tx)
        if generation != present.generation:
            present = desk.take_up()
        if self.heart is None:
            self.heart = Heart("web")
        if self.heart.generation != present.generation:
            self.heart.took_up(present.generation, pluginset.told(present.registry.problems))
        self.heart.beat()


def look_again() -> None:
    """Look before the next request in any case: who has just changed the set is to see it changed."""
    taking: Taking = current_app.extensions["batchdesk.takingup"]
    taking.looked = None


def init_app(app: Flask) -> None:
    """Put the look before every request."""
    taking = app.extensions["batchdesk.takingup"] = Taking()
    app.before_request(taking.up)
