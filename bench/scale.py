"""`python -m bench.scale`: what each page takes at millions of requests, beside what it takes at a hundredth of them.

Prints one JSON object per page: milliseconds at the large size, its limit being twice those at the small one; and how
much more database time a plain model view of Flask-Admin takes for the unfiltered list of requests than ours.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from bench.house import House, opened
from bench.large import fill
from bench.report import Figure
from webapp import db
from webapp.batches.models import Request

PASSWORD = "only for measuring"  # of a house that is gone in minutes
LEAST_RATIO = 10.0  # of a model view's database time to ours

# {half}: the id of a request halfway; {batch}, {key}: of one.
PAGES = (
    "/",
    "/runs/",
    "/runs/?sort=subjects",
    "/runs/1/",
    "/batches/",
    "/batches/?run=1&sort=requests",
    "/batches/{batch}/",
    "/money/",
    "/money/?by=dataset",
    "/requests/",
    "/requests/?older={half}",
    "/requests/?newer=0",
    "/requests/?run=1",
    "/requests/?run=1&state=succeeded&older={half}",
    "/requests/?run=1&class=fix",
    "/requests/?run=1&cause=Not+in+24+hours.&class=retry",
    "/requests/?batch={batch}",
    "/requests/?state=expired",
    "/requests/?state=pending",
    "/requests/?class=output",
    "/requests/?error=kind+3",
    "/requests/?task=classify&from=2020-01-01",
    "/requests/?q={key}",
    "/requests/{half}/",
    "/outputs/",
    "/outputs/?run=1",
    "/outputs/?state=invalid",
    "/outputs/?text=nothing+says+this",
    "/strays/",
    "/live?run=1&batch={batch}",
)


def main(arguments: list[str] | None = None) -> None:
    """Make both installations, then look at each page of both in turn."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--requests", type=int, default=5_000_000, help="requests of the large installation")
    parser.add_argument("--batches", type=int, default=2_000, help="batches that they are in")
    parser.add_argument("--small", type=int, default=50_000, help="requests of the small one, in batches as large")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median counts")
    given = parser.parse_args(arguments)
    each = given.requests // given.batches
    with _made(given.small, max(2, given.small // each)) as small, _made(given.requests, given.batches) as large:
        for figure in _pages(small, large, given.rounds):
            print(figure.line(), flush=True)
        print(_against_a_model_view(large, given.rounds).line(), flush=True)


@contextmanager
def _made(requests: int, batches: int) -> Iterator[Looker]:
    with opened(BATCHDESK_ADMIN_PASSWORD=PASSWORD) as house:
        with house.connect() as connection:
            fill(connection, requests=requests, batches=batches)
        yield Looker(house, requests, batches)


class Looker:
    """Somebody who looks at the pages of one installation."""

    def __init__(self, house: House, requests: int, batches: int) -> None:
        from webapp.admin.people import ensure_roles_and_admin

        self.house = house
        self.names = {"half": requests // 2, "batch": max(1, batches // 2), "key": f"doc-{requests // 3}"}
        with house.app.app_context():
            settings = house.app.extensions["batchdesk"].settings
            ensure_roles_and_admin(settings)
        self.client: FlaskClient = house.app.test_client()
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self._get("/login"))
        assert token
        form = {"csrf_token": token[1], "email": settings.admin_email, "password": PASSWORD}
        with house.app.app_context():
            assert self.client.post("/login", data=form).status_code == 302

    def seconds(self, page: str) -> float:
        """What a page takes, from the request to its last byte."""
        began = time.perf_counter()
        self._get(page.format(**self.names))
        return time.perf_counter() - began

    def _get(self, path: str) -> str:
        with self.house.app.app_context():  # as on a server: each request has its own
            answer = self.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text


def _pages(small: Looker, large: Looker, rounds: int) -> Iterator[Figure]:
    """Each page at both sizes by turns, a first look at each not counted."""
    for page in PAGES:
        taken: dict[Looker, list[float]] = defaultdict(list)
        for number in range(rounds + 1):
            for looker in (small, large):
                seconds = looker.seconds(page)
                if number:
                    taken[looker].append(seconds * 1000)
        yield Figure(page, median(taken[large]), "ms", 2 * median(taken[small]))


def _against_a_model_view(large: Looker, rounds: int) -> Figure:
    """How many times our database time a plain model view takes for the first page of requests, at the least 10."""
    from flask_admin import Admin
    from flask_admin.contrib.sqla import ModelView

    class Plain(ModelView):  # type: ignore[misc] # Flask-Admin ships no types
        column_list = ("id", "custom_id", "attempt", "state", "failure_class")
        page_size = 50

    plain = Flask("plain")
    plain.config.update(SQLALCHEMY_DATABASE_URI=large.house.app.config["SQLALCHEMY_DATABASE_URI"], SECRET_KEY="plain")
    db.db.init_app(plain)
    with plain.app_context():
        Admin(plain).add_view(Plain(Request, db.db))
        client = plain.test_client()

        def look() -> None:
            assert client.get("/admin/request/").status_code == 200

        theirs = [_database_seconds(plain, look) for _ in range(rounds)]
        db.db.engine.dispose()
    ours = [_database_seconds(large.house.app, lambda: large.seconds("/requests/")) for _ in range(rounds)]
    return Figure("model view's database time over that of /requests/", median(theirs) / median(ours), "x", LEAST_RATIO)


def _database_seconds(app: Flask, deed: Callable[[], Any]) -> float:
    """The time that the statements of a deed take, from the cursor's point of view."""
    taken: list[float] = []

    def begin(connection: Any, *_: Any) -> None:
        connection.info["began"] = time.perf_counter()

    def end(connection: Any, *_: Any) -> None:
        taken.append(time.perf_counter() - connection.info["began"])

    with app.app_context():
        engine = db.db.engine
    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    try:
        deed()
    finally:
        event.remove(engine, "before_cursor_execute", begin)
        event.remove(engine, "after_cursor_execute", end)
    return sum(taken)


if __name__ == "__main__":
    main()
