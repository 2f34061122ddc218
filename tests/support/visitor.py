"""A person at the dashboard, without a browser: fills in its forms as one would.

Each request gets an application context of its own, as on a server: within the one that the `app` fixture holds
open, they would share Flask's `g`, and with it whoever signed in first.
"""

from __future__ import annotations

import re
from typing import Any

from flask import Flask
from support.people import PASSWORD
from werkzeug.test import TestResponse

_TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')
_HTML = {"Accept": "text/html,*/*;q=0.8"}


class Visitor:
    """A client with its own cookies."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()

    def open(self, path: str, method: str = "GET", **options: Any) -> TestResponse:
        """One request; redirects are not followed."""
        headers = _HTML | options.pop("headers", {})
        with self.app.app_context():
            return self.client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, status: int = 200, **headers: str) -> str:
        """A page, which must answer with that status."""
        response = self.open(path, headers=headers)
        assert response.status_code == status, (path, response.status_code, response.text[:500])
        return response.text

    def token(self) -> str:
        """The token of a form: of the sign-in page, or of any other for those who are signed in."""
        response = self.open("/login")
        page = response.text if response.status_code == 200 else self.open("/").text
        found = _TOKEN.search(page)
        assert found, page
        return found[1]

    def send(self, path: str, **fields: Any) -> TestResponse:
        """A form with its token."""
        return self.open(path, "POST", data={"csrf_token": self.token()} | fields)

    def post(self, path: str, **fields: Any) -> str:
        """Send a form; the page that it leads to."""
        response = self.send(path, **fields)
        assert response.status_code == 303, (path, response.status_code, response.text[:500])
        return self.get(response.headers["Location"])

    def sign_in(self, email: str, password: str = PASSWORD) -> Visitor:
        response = self.send("/login", email=email, password=password)
        assert response.status_code == 302, response.text
        return self
