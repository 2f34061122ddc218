"""The rivals: the same job the obvious way, as the usual tutorial has it: a loop, and one row of the ORM at a time.
The measures time them beside the product's steps; of the product they use the tables, and nothing that does the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from webapp.batches.models import Item, Request, Result
from webapp.money.ledger import LedgerLine


def ingest(engine: Engine, connection: psycopg.Connection, lines: Sequence[bytes], *, each: bool) -> float:
    """Seconds to store lines of results that are stored already: they are taken away first, which is not timed, and are
    as they were in the end, so that the round goes on from there.

    :param each: commit after each line, as a task of a queue does for each result; else once, after the last.
    """
    _forget(connection, [json.loads(line)["custom_id"] for line in lines])
    began = time.perf_counter()
    with Session(engine) as session:
        for line in lines:
            _store(session, json.loads(line), line.decode())
            if each:
                session.commit()
        session.commit()
    return time.perf_counter() - began


def _forget(connection: psycopg.Connection, custom_ids: list[str]) -> None:
    found = connection.execute(
        "UPDATE requests SET state = 'pending' WHERE custom_id = ANY(%s) RETURNING id, item_id", [custom_ids]
    ).fetchall()
    requests, items = [one for one, _ in found], [one for _, one in found]
    connection.execute("UPDATE items SET state = 'pending', output_state = NULL WHERE id = ANY(%s)", [items])
    connection.execute("DELETE FROM results WHERE request_id = ANY(%s)", [requests])
    connection.execute("DELETE FROM ledger_lines WHERE custom_id = ANY(%s)", [custom_ids])
    connection.commit()
    # A rival knows no way round stale statistics: it must not be slow for want of them.
    connection.execute("ANALYZE requests, items, results, ledger_lines")
    connection.commit()


def _store(session: Session, line: dict[str, Any], text: str) -> None:
    message = line["result"]["message"]
    request = session.scalars(select(Request).where(Request.custom_id == line["custom_id"])).one()
    request.state = "succeeded"
    item = session.get_one(Item, request.item_id)
    item.state = "succeeded"
    item.output_state = "waiting"
    session.add(
        Result(
            request_id=request.id,
            kind="succeeded",
            stop_reason=message["stop_reason"],
            size=len(text),
            line=line,
        )
    )
    usage = message["usage"]
    session.add(
        LedgerLine(
            api_batch_id="obvious",
            custom_id=line["custom_id"],
            account_id=1,
            run_id=item.run_id,
            request_id=request.id,
            model=message["model"],
            input_tokens=usage["input_tokens"],
            write_5m_tokens=0,
            write_1h_tokens=0,
            read_tokens=usage["cache_read_input_tokens"],
            output_tokens=usage["output_tokens"],
            web_searches=0,
            inference_geo=usage["inference_geo"],
            cost_usd=Decimal("0.00123456"),
            sync_cost_usd=Decimal("0.00246912"),
            uncached_cost_usd=Decimal("0.00246912"),
            price="2026-10-07",
            priced_at=datetime.now(UTC),
        )
    )
