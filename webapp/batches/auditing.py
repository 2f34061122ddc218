"""Checks that the books agree: rows against tallies, results against states. Reads only; `doctor` and tests ask."""

from __future__ import annotations

from webapp import db

# (what must not exist, a query that counts it)
CHECKS = {
    "runs whose item tallies differ from their rows": """
        SELECT count(*) FROM (
            SELECT run_id, count(*) FILTER (WHERE state = 'pending') AS pending,
                   count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                   count(*) FILTER (WHERE state = 'errored') AS errored,
                   count(*) FILTER (WHERE state = 'canceled') AS canceled,
                   count(*) FILTER (WHERE state = 'expired') AS expired,
                   count(*) FILTER (WHERE state = 'missing') AS missing,
                   count(*) FILTER (WHERE state = 'stopped') AS stopped,
                   count(*) FILTER (WHERE output_state = 'ok') AS ok,
                   count(*) FILTER (WHERE output_state = 'invalid') AS invalid
            FROM items GROUP BY run_id
        ) AS seen FULL JOIN (
            SELECT run_id, sum(pending) AS pending, sum(succeeded) AS succeeded, sum(errored) AS errored,
                   sum(canceled) AS canceled, sum(expired) AS expired, sum(missing) AS missing,
                   sum(stopped) AS stopped, sum(ok) AS ok, sum(invalid) AS invalid
            FROM tallies WHERE scope = 'items' GROUP BY run_id
        ) AS told USING (run_id)
        WHERE (seen.pending, seen.succeeded, seen.errored, seen.canceled, seen.expired, seen.missing, seen.stopped,
               seen.ok, seen.invalid)
              IS DISTINCT FROM (told.pending, told.succeeded, told.errored, told.canceled, told.expired, told.missing,
                                told.stopped, told.ok, told.invalid)
    """,
    "batches whose request tallies differ from their rows": """
        SELECT count(*) FROM (
            SELECT batch_id, count(*) FILTER (WHERE state = 'pending') AS pending,
                   count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                   count(*) FILTER (WHERE state NOT IN ('pending', 'succeeded')) AS failed
            FROM requests GROUP BY batch_id
        ) AS seen FULL JOIN (
            SELECT batch_id, sum(pending) AS pending, sum(succeeded) AS succeeded,
                   sum(errored + canceled + expired + missing + stopped) AS failed
            FROM tallies WHERE scope = 'requests' GROUP BY batch_id
        ) AS told USING (batch_id)
        WHERE (coalesce(seen.pending, 0), coalesce(seen.succeeded, 0), coalesce(seen.failed, 0))
              IS DISTINCT FROM (told.pending, told.succeeded, told.failed)
    """,
    "batches whose total differs from their requests": """
        SELECT count(*) FROM batches b WHERE b.state <> 'discarded'
        AND b.total <> (SELECT count(*) FROM requests r WHERE r.batch_id = b.id)
    """,
    "succeeded requests without a result": """
        SELECT count(*) FROM requests r WHERE r.state = 'succeeded'
        AND NOT EXISTS (SELECT 1 FROM results s WHERE s.request_id = r.id)
    """,
    "results without their line in runs that keep their payloads": """
        SELECT count(*) FROM results s JOIN requests r ON r.id = s.request_id JOIN batches b ON b.id = r.batch_id
        JOIN runs run ON run.id = b.run_id WHERE s.line IS NULL AND run.payloads_dropped_at IS NULL
    """,
    "requests with their own part in runs that have dropped their payloads": """
        SELECT count(*) FROM item_params p JOIN items i ON i.id = p.item_id JOIN runs run ON run.id = i.run_id
        WHERE run.payloads_dropped_at IS NOT NULL AND run.payloads_position IS NULL
    """,
    "results without a request": """
        SELECT count(*) FROM results s WHERE NOT EXISTS (SELECT 1 FROM requests r WHERE r.id = s.request_id)
    """,
    "succeeded requests without a ledger line": """
        SELECT count(*) FROM requests r WHERE r.state = 'succeeded' AND NOT EXISTS (
            SELECT 1 FROM batches b JOIN ledger_lines l ON l.api_batch_id = b.api_id
            WHERE b.id = r.batch_id AND l.custom_id = r.custom_id)
    """,
    "runs whose ledger tallies differ from their ledger lines": """
        SELECT count(DISTINCT run_id) FROM (
            SELECT run_id FROM (
                SELECT run_id, api_batch_id, account_id, model, CAST(priced_at AT TIME ZONE 'UTC' AS date) AS day,
                       price, inference_geo, 1 AS lines, CAST(cost_usd IS NULL AS int) AS unpriced,
                       CAST(sync_cost_usd IS NULL AS int) AS sync_unpriced, CAST(duplicate AS int) AS duplicates,
                       cost_usd, CASE WHEN NOT duplicate THEN sync_cost_usd END AS sync_cost_usd,
                       CASE WHEN NOT duplicate THEN coalesce(uncached_cost_usd, sync_cost_usd) END AS uncached_cost_usd,
                       CASE WHEN duplicate THEN cost_usd END AS duplicate_cost_usd, input_tokens,
                       write_5m_tokens, write_1h_tokens, read_tokens, output_tokens, web_searches
                FROM ledger_lines
                UNION ALL
                SELECT run_id, api_batch_id, account_id, model, day, price, inference_geo, -lines, -unpriced,
                       -sync_unpriced, -duplicates, -cost_usd, -sync_cost_usd, -uncached_cost_usd, -duplicate_cost_usd,
                       -input_tokens, -write_5m_tokens, -write_1h_tokens, -read_tokens, -output_tokens, -web_searches
                FROM ledger_tallies
            ) AS books GROUP BY run_id, api_batch_id, account_id, model, day, price, inference_geo
            HAVING sum(lines) <> 0 OR sum(unpriced) <> 0 OR sum(sync_unpriced) <> 0 OR sum(duplicates) <> 0
                OR sum(cost_usd) <> 0 OR sum(sync_cost_usd) <> 0 OR sum(uncached_cost_usd) <> 0
                OR sum(duplicate_cost_usd) <> 0 OR sum(input_tokens) <> 0 OR sum(write_5m_tokens) <> 0
                OR sum(write_1h_tokens) <> 0 OR sum(read_tokens) <> 0 OR sum(output_tokens) <> 0
                OR sum(web_searches) <> 0
        ) AS differing
    """,
    "batches on their way without a step": """
        SELECT count(*) FROM batches b JOIN runs r ON r.id = b.run_id
        WHERE b.state NOT IN ('done', 'failed', 'discarded') AND r.state NOT IN ('paused', 'planning')
        AND r.pause_wanted_at IS NULL AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.target_id = b.id
            AND s.step IN ('submit', 'poll', 'ingest'))
    """,
    "datasets whose count differs from the subjects they hold": """
        SELECT count(*) FROM datasets d WHERE d.subjects
        <> (SELECT count(*) FROM subjects s WHERE s.dataset_id = d.id AND s.gone_in IS NULL)
    """,
    "uploads under way without a step": """
        SELECT count(*) FROM uploads u WHERE u.state IN ('importing', 'applying')
        AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.step = 'import' AND s.target_id = u.id)
    """,
}


def faults() -> list[str]:
    """What does not agree, in words; empty when all does. Reads every row: for `doctor` and tests, not for pages."""
    found = []
    with db.transaction() as tx:
        for what, query in CHECKS.items():
            count = db.scalar(tx, query)
            if count:
                found.append(f"{count} {what}")
    return found
