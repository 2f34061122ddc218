"""Alembic's entry: migrates the database of the running application, or draws the difference to its models.
Called by Flask-Migrate (`batchdesk migrate`, `flask db …`).
"""

from alembic import context
from flask import current_app

from webapp.db import db


def run() -> None:
    """Migrate over one connection, in one transaction."""
    with db.engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=db.metadata,
            compare_server_default=True,
            **current_app.extensions["migrate"].configure_args,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
