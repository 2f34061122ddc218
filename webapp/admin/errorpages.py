"""The pages for what goes wrong: one sentence, what to do, and never a traceback.
They are drawn without the database, which may be what went wrong.
"""

from __future__ import annotations

from flask import Flask, g, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from flask_security.core import AnonymousUser
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from webapp import db, jobs
from webapp.errors import NotFound

TITLES = {
    400: "That request cannot be understood",
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible this way",
    413: "Too large",
    500: "Something broke",
    503: "Not available just now",
}
WORDS = {
    400: "Something in the address or the form is not as it should be.",
    403: "Your role does not allow this.",
    404: "There is nothing at this address. The id may be wrong, or the page has moved.",
    405: "This address does not take that kind of request.",
    413: "What was sent is more than this page takes.",
    500: "The error is in the server's log. What was asked may not have been done: look before you try again.",
    503: "The database does not answer. Work goes on where it was left once it is back.",
}
DISK_FULL = "The database has no room left on its disk, so nothing can be written. Work goes on once there is room."
NOT_DONE = "What was asked may not have been done: look before you try again."
RETRY_SECONDS = 5  # after which a page that could not be shown is asked for again


def init_app(app: Flask) -> None:
    """Answer every error with a page of ours."""
    app.register_error_handler(CSRFError, _expired_form)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(NotFound, _not_found)
    app.register_error_handler(SQLAlchemyError, _no_database)


def _expired_form(error: CSRFError) -> ResponseReturnValue:
    return page(400, "The form was not sent from a fresh page of this dashboard. Go back, reload, and send it again.")


def _not_found(error: NotFound) -> ResponseReturnValue:
    return page(404, str(error))


def _no_database(error: SQLAlchemyError) -> ResponseReturnValue:
    words = db.trouble(error)
    if words is None:
        raise error
    jobs.database_away.away(words)
    return page(503, DISK_FULL if db.disk_full(error) else None)


def _http(error: HTTPException) -> ResponseReturnValue:
    code = error.code or 500
    ours = error.description if error.description != type(error).description else None
    return page(code, None if code >= 500 else ours)


def page(code: int, words: str | None = None) -> ResponseReturnValue:
    """The error page, or its sentence as JSON for those who ask for JSON."""
    if code >= 500:
        # Drawing a page asks who looks at it; after a failure of the database that would be one more.
        g._login_user = AnonymousUser()  # type: ignore[no-untyped-call] # their class has no types
    title = TITLES.get(code, "That did not work")
    words = words or WORDS.get(code, "The server could not do what was asked.")
    retry = RETRY_SECONDS if code == 503 else None
    if retry and request.method != "GET":
        words, retry = f"{words} {NOT_DONE}", None
    headers = {"Retry-After": str(retry)} if retry else {}
    if not request.accept_mimetypes.accept_html:
        return jsonify(error=words), code, headers
    return render_template("desk/error.html", title=title, words=words, code=code, retry=retry), code, headers
