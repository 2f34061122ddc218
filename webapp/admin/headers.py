"""The headers that keep a page from doing harm, whatever stands in the data it shows.
Scripts run by nonce only; no style or script attribute is honoured; nothing comes from elsewhere.
"""

from __future__ import annotations

import secrets

from flask import Flask, Response, g

DOWNLOAD = "default-src 'none'; frame-ancestors 'none'; sandbox"


def init_app(app: Flask) -> None:
    """Put the headers on every answer."""
    app.after_request(add)
    app.context_processor(lambda: {"nonce": nonce})


def nonce() -> str:
    """The nonce of this answer's scripts."""
    if "csp_nonce" not in g:
        g.csp_nonce = secrets.token_urlsafe(16)
    return str(g.csp_nonce)


def policy() -> str:
    """The Content-Security-Policy of pages. `data:` is for the small drawings within Bootstrap's stylesheet."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce()}'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def add(response: Response) -> Response:
    """Add what an answer lacks; a download has set its own policy already."""
    headers = response.headers
    headers.setdefault("Content-Security-Policy", policy())
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    headers.setdefault("Cache-Control", "no-store")
    return response
