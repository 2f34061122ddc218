"""The page of strays: batches at the API that no row knows, and what they may be. Registered by `init_app` of this
room; the first page names their count. Read from our own table: only the button asks for a look at the API.
"""

from __future__ import annotations

import re
from typing import Any

from flask import url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin.access import actor, acts
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.batches.strays import IS_STRAY

SHOWN = 200
OURS = re.compile(r"\d+-[a-z2-7]{16}-\d+")  # how Batchdesk names requests


class StraysPage(Page):
    """Batches at the API that no row knows."""

    def is_visible(self) -> bool:
        return False  # the first page and that of batches lead here

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx = reading()
        found = _strays(tx)
        return self.render(
            "desk/strays.html",
            strays=[(one, _words(one)) for one in found[:SHOWN]],
            more=len(found) > SHOWN,
            count=count(tx),
            looked_at=db.scalar(tx, "SELECT max(looked_at) FROM accounts"),
        )

    @expose("/look", methods=("POST",))
    @acts
    def look(self) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_look(actor=actor())
            return "The API's list is being looked through now. Load this page again in a moment."

        return act(back_to(url_for(".index")), deed)


def count(tx: Connection) -> int:
    """How many strays there are."""
    found: int = db.scalar(tx, f"SELECT count(*) FROM strays t WHERE {IS_STRAY}")  # noqa: S608
    return found


def _strays(tx: Connection) -> list[Any]:
    """The newest strays, with the batch of ours that each was given up for, ruled out for, or may still be."""
    return list(
        db.rows(
            tx,
            f"""
            SELECT t.api_id, t.total, t.created_at, t.processing_status, t.api_counts, t.custom_id, t.first_seen_at,
                   t.last_seen_at, a.base_url, a.sandbox,
                   (SELECT min(s.batch_id) FROM submissions s WHERE s.api_id = t.api_id) AS given_up,
                   (SELECT min(s.batch_id) FROM submissions s WHERE s.account_id = t.account_id AND s.total = t.total
                    AND s.outcome = 'unknown' AND NOT t.api_id = ANY(s.ruled_out)) AS searched,
                   (SELECT min(s.batch_id) FROM submissions s WHERE s.account_id = t.account_id AND s.total = t.total
                    AND s.outcome = 'not_created' AND s.armed_at IS NOT NULL AND s.error IS NOT NULL
                    AND NOT t.api_id = ANY(s.ruled_out) AND t.created_at BETWEEN s.api_time - interval '10 minutes'
                    AND s.api_time + (s.ended_at - s.intent_at) + interval '1 hour') AS maybe
            FROM strays t JOIN accounts a ON a.id = t.account_id WHERE {IS_STRAY}
            ORDER BY t.created_at DESC, t.api_id LIMIT :limit
            """,  # noqa: S608 - a constant
            limit=SHOWN + 1,
        )
    )


def _words(stray: Any) -> str:
    """What a stray is, as far as is known."""
    if stray.given_up is not None:
        return (
            f"Ours: created for batch {stray.given_up} after that was given up. What it did is paid for and not read."
        )
    if stray.searched is not None:
        return f"May be batch {stray.searched}, which is being looked for."
    if stray.custom_id is not None and OURS.fullmatch(stray.custom_id):
        return "Another installation's of Batchdesk: its results carry ids that were drawn there."
    if stray.custom_id is not None:
        return f"Another program's: its results carry ids such as {stray.custom_id}."
    if stray.maybe is not None:
        return f"Perhaps ours: it has the number of requests and the time of a POST of batch {stray.maybe}."
    return "Another program's or another installation's: nothing was sent from here at that time with that count."
