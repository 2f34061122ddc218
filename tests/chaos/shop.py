"""Services, a migrated database and a nursery for rounds outside of pytest. `make chaos` uses it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask_migrate import upgrade
from support.desk import make_settings
from support.services import create_database, start_services

from chaos.household import Workshop
from chaos.nursery import Nursery
from webapp import create_app
from webapp.db import db

TEMPLATE = "template_batchdesk"


@contextmanager
def open_workshop() -> Iterator[Workshop]:
    """A workshop of one's own; everything that it started has ended when it is left."""
    with tempfile.TemporaryDirectory(prefix="bd-chaos-") as folder:
        supervisor, services = start_services(Path(folder))
        with supervisor, Nursery() as nursery:
            app = create_app(make_settings(create_database(services, TEMPLATE), services, sandbox_url=None))
            with app.app_context():
                upgrade()
                db.engine.dispose()
            yield Workshop(services, TEMPLATE, nursery)
