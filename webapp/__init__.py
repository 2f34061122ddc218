"""The wiring: `create_app` puts the rooms together, from settings to pages. No work, no network.

Import nothing from here but `create_app`; the rooms import each other directly, downwards.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from webapp.settings import Settings

ROOT = Path(__file__).parent.parent
PLUGINS = ROOT / "plugins"
MIGRATIONS = ROOT / "migrations"


def create_app(settings: Settings | None = None, *, pooled: bool = True) -> Flask:
    """The application, for the web, a worker, the clock or a command.

    :param settings: default: read from the environment.
    :param pooled: False where jobs fork: no database connection is kept.
    :raises SettingsError: the environment is unusable.
    :raises LocalServicesError: the embedded services are needed and not up.
    """
    from flask import Flask
    from flask_migrate import Migrate

    from webapp import admin, services
    from webapp.batches.desk import Desk
    from webapp.db import db, engine_options, normal_url
    from webapp.hooks.loading import Loader
    from webapp.jobs import connect
    from webapp.settings import load

    settings = settings or load()
    database_url, redis_url = services.urls(settings)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    for chatty in ("httpx2", "alembic"):  # a line per call, and per look at the schema's version
        logging.getLogger(chatty).setLevel(logging.WARNING)
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=normal_url(database_url),
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(pooled=pooled),
        REDIS_URL=redis_url,
        SECRET_KEY=services.secret_key(settings),
    )
    db.init_app(app)
    Migrate(app, db, directory=str(MIGRATIONS), compare_type=True)
    loader = Loader(PLUGINS, safe_mode=settings.safe_mode)
    app.extensions["batchdesk"] = Desk(settings, loader, lambda: services.open_gateway(settings))
    app.extensions["batchdesk.redis"] = connect(redis_url, patient=False)
    admin.init_app(app)
    return app
