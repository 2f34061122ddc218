"""Whether a run still has its payloads: what was sent and what came back, word for word. Whoever needs them asks here.
`webapp.runs.retention` drops them.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from webapp import db
from webapp.errors import Refused


def dropped_on(at: datetime) -> str:
    """The day on which payloads were dropped, as people are told it."""
    return f"{at:%Y-%m-%d}"


def check_kept(tx: Connection, run_id: int, nothing: str) -> None:
    """Pass when the payloads of a run are kept; the caller holds the run.

    :param nothing: the end of the sentence, which says what is not done for want of them.
    :raises Refused: they were dropped.
    """
    at = db.scalar(tx, "SELECT payloads_dropped_at FROM runs WHERE id = :id", id=run_id)
    if at is not None:
        raise Refused(
            f"What run {run_id} sent and got was dropped on {dropped_on(at)}, some time after it was over: {nothing}."
        )
