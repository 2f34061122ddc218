"""The surface: pages for people, in Flask-Admin's frame. The wiring calls `init_app`, and nothing else from here
but `people.ensure_roles_and_admin`, which prepares an installation.
"""

from __future__ import annotations

from flask import Flask, redirect, url_for
from flask.typing import ResponseReturnValue

MOST_POSTED = 1_000_000  # bytes of a form


def init_app(app: Flask) -> None:
    """Put sign-in, the checks before each request, the error pages and all pages into the application."""
    from flask_wtf.csrf import CSRFProtect

    from webapp.admin import (
        access,
        charts,
        errorpages,
        formats,
        frame,
        headers,
        health,
        live,
        people,
        takingup,
        uploads,
    )

    app.config.update(
        MAX_CONTENT_LENGTH=MOST_POSTED,
        # As long as the session: a page that was left open over lunch still works.
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.url_map.converters["row"] = frame.RowId
    # The order counts: who is it, may they, how much may they send, then whether the form is ours.
    access.init_app(app)
    uploads.init_app(app)
    CSRFProtect(app)
    people.init_app(app)
    headers.init_app(app)
    takingup.init_app(app)
    errorpages.init_app(app)
    formats.init_app(app)
    app.register_blueprint(charts.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(live.blueprint)
    _init_pages(app)
    app.add_url_rule("/admin/", "admin_home", _admin_home)
    settings = app.extensions["batchdesk"].settings
    app.context_processor(lambda: {"sandbox": settings.sandbox})


def _init_pages(app: Flask) -> None:
    """Put the pages into the frame, in the order of the menu."""
    from webapp.admin import account, frame
    from webapp.admin.account import AccountPage
    from webapp.admin.batches import BatchesPage
    from webapp.admin.capping import CapsPage
    from webapp.admin.datasets import DatasetsPage
    from webapp.admin.destinations import DestinationsPage
    from webapp.admin.events import EventsPage
    from webapp.admin.home import Home
    from webapp.admin.money import MoneyPage
    from webapp.admin.outputs import OutputsPage
    from webapp.admin.plugins import PluginsPage
    from webapp.admin.requests import RequestsPage
    from webapp.admin.resending import ResubmissionsPage
    from webapp.admin.runs import RunsPage
    from webapp.admin.schedules import SchedulesPage
    from webapp.admin.strays import StraysPage
    from webapp.admin.users import UsersPage

    frame.init_app(
        app,
        Home(name="Home", endpoint="home", url="/"),
        RunsPage(name="Runs", endpoint="runs", url="/runs"),
        DatasetsPage(name="Datasets", endpoint="datasets", url="/datasets"),
        BatchesPage(name="Batches", endpoint="batches", url="/batches"),
        RequestsPage(name="Requests", endpoint="requests", url="/requests"),
        OutputsPage(name="Outputs", endpoint="outputs", url="/outputs"),
        MoneyPage(name="Money", endpoint="money", url="/money"),
        SchedulesPage(name="Schedules", endpoint="schedules", url="/schedules"),
        DestinationsPage(name="Destinations", endpoint="destinations", url="/destinations"),
        ResubmissionsPage(name="Resubmissions", endpoint="resubmissions", url="/resubmissions"),
        StraysPage(name="Strays", endpoint="strays", url="/strays"),
        CapsPage(name="Caps", endpoint="caps", url="/caps"),
        PluginsPage(name="Plugins", endpoint="plugins", url="/plugins"),
        EventsPage(name="Events", endpoint="events", url="/events"),
        UsersPage(name="Users", endpoint="users", url="/users"),
        own := AccountPage(name="Account", endpoint="account", url="/account"),
    )
    account.init_app(app, own)


def _admin_home() -> ResponseReturnValue:
    """Flask-Admin's usual address leads here too."""
    return redirect(url_for("home.index"))
