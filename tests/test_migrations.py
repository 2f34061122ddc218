"""Migrations: one line of them, and the schema they make is the one that the models say."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import check, downgrade, upgrade
from support.desk import make_settings
from support.services import create_database, drop_database

from webapp import create_app
from webapp.db import db
from webapp.local import Services

# What stands in the catalog of one schema: (kind, name, what it is), all that a statement could tell apart.
CATALOG = r"""
    SELECT 'table' AS kind, c.relname::text AS name, concat_ws(' ', c.relkind, c.reloptions::text) AS what
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'S', 'v', 'm', 'p')
    UNION ALL
    SELECT 'column', c.relname || '.' || a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
           a.attidentity, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'index', indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid)
    FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT 'function', proname::text, regexp_replace(prosrc, '\s+', ' ', 'g')
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'sequence', sequencename::text, concat_ws(' ', data_type, start_value, increment_by, cycle)
    FROM pg_sequences WHERE schemaname = 'public'
"""


@pytest.fixture
def empty(services: Services) -> Iterator[Flask]:
    """The application over a database without a table."""
    name = f"empty_{uuid4().hex[:12]}"
    app = create_app(make_settings(create_database(services, name), services, sandbox_url=None))
    with app.app_context():
        yield app
        db.engine.dispose()
    drop_database(services, name)


def catalog() -> dict[tuple[str, str], str]:
    with db.engine.connect() as connection:
        found = connection.exec_driver_sql(CATALOG).all()
    return {(kind, name): what for kind, name, what in found if "alembic_version" not in name}


def test_there_is_one_head_and_one_root(empty: Flask) -> None:
    script = ScriptDirectory.from_config(empty.extensions["migrate"].migrate.get_config())
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1
    revisions = list(script.walk_revisions())
    assert not [revision for revision in revisions if revision.is_merge_point or revision.is_branch_point]


def test_the_models_hold_nothing_that_no_migration_makes(empty: Flask) -> None:
    upgrade()
    check()


def test_the_migrated_schema_is_the_one_of_the_models(empty: Flask) -> None:
    upgrade()
    migrated = catalog()
    downgrade(revision="base")
    db.metadata.create_all(db.engine)
    made = catalog()
    assert migrated.keys() == made.keys()
    assert {name: what for name, what in migrated.items() if made[name] != what} == {}


def test_going_down_takes_everything_away_and_up_brings_it_back(empty: Flask) -> None:
    upgrade()
    up = catalog()
    downgrade(revision="base")
    assert catalog() == {}
    upgrade()
    assert catalog() == up


def test_upgrading_twice_changes_nothing(empty: Flask) -> None:
    upgrade()
    before = catalog()
    upgrade()
    assert catalog() == before


def test_images_are_stored_without_trying_to_compress_them(empty: Flask) -> None:
    upgrade()
    storage = "SELECT attstorage FROM pg_attribute WHERE attrelid = 'blobs'::regclass AND attname = 'content'"
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql(storage).scalar() in ("e", b"e")


def test_states_are_in_no_index_but_partial_ones(empty: Flask) -> None:
    """An update that touches no indexed column is much cheaper."""
    upgrade()
    for (kind, name), what in catalog().items():
        if kind == "index":
            columns = what.partition("USING")[2].partition(" WHERE ")[0]
            assert "state" not in columns, (name, what)


def test_verbatim_columns_are_json_and_not_jsonb(empty: Flask) -> None:
    """jsonb keeps neither the text nor NUL escapes."""
    upgrade()
    assert not [name for name, what in catalog().items() if "jsonb" in what]


def test_every_time_has_a_zone_and_no_money_is_a_float(empty: Any) -> None:
    upgrade()
    columns = {name: what for (kind, name), what in catalog().items() if kind == "column"}
    assert not [name for name, what in columns.items() if "without time zone" in what]
    assert not [name for name, what in columns.items() if what.startswith(("double", "real"))]


def test_what_waits_for_its_next_attempt_is_known_after_the_upgrade(empty: Flask) -> None:
    """Failures of class retry were tallied without their attempt; the sums stay what they were."""
    upgrade(revision="0002")
    with db.engine.begin() as connection:
        for statement in (
            "INSERT INTO datasets (name, source, text_field, created_by) VALUES ('d', 'd', 'text', 't')",
            "INSERT INTO subjects (dataset_id, position, kind, key, content_hash, size, data) "
            "SELECT 1, n, 'document', n, '', 2, '{}' FROM generate_series(0, 3) n",
            "INSERT INTO runs (dataset_id, task, task_version, settings, token, subjects, owner, state) "
            "SELECT 1, 'x', '1', '{}', state, 4, 't', state FROM unnest(ARRAY['running', 'finished']) state",
            "INSERT INTO items (run_id, subject_id, position, size, attempts, subject_type, state, failure_class) "
            "SELECT r, s + 1, s, 2, 1 + mod(s, 2), 'document', 'errored', CASE WHEN s = 3 THEN 'fix' ELSE 'retry' END "
            "FROM generate_series(1, 2) r, generate_series(0, 3) s",
            "INSERT INTO tallies (scope, run_id, errored) VALUES ('items', 1, 4), ('items', 2, 4)",
        ):
            connection.exec_driver_sql(statement)
    upgrade()
    with db.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT run_id, retry_attempt, sum(errored) FROM tallies GROUP BY 1, 2 ORDER BY 1, 2"
        ).all()
    assert [tuple(line) for line in found] == [(1, 1, 2), (1, 2, 1), (1, None, 1), (2, None, 4)]


def test_what_the_ledger_holds_is_tallied_after_the_upgrade_and_so_is_what_an_earlier_version_appends(
    empty: Flask,
) -> None:
    line = (
        "INSERT INTO ledger_lines (api_batch_id, custom_id, account_id, run_id, request_id, model, input_tokens, "
        "cost_usd, sync_cost_usd, duplicate, priced_at) SELECT 'b', '{0}' || n, 1, 1, n, 'm', 5, 0.25, 0.5, n = 3, "
        "'2026-11-2{0} 23:30:00+00' FROM generate_series(1, 3) n"
    )
    upgrade(revision="0004")
    with db.engine.begin() as connection:
        connection.exec_driver_sql(line.format(1))
    upgrade()
    with db.engine.begin() as connection:
        connection.exec_driver_sql(line.format(2))
        found = connection.exec_driver_sql(
            "SELECT day::text, lines, duplicates, cost_usd, sync_cost_usd, input_tokens, output_tokens "
            "FROM ledger_tallies ORDER BY 1"
        ).all()
    sums = (3, 1, Decimal("0.75"), Decimal(1), 15, 0)
    assert [tuple(line) for line in found] == [("2026-11-21", *sums), ("2026-11-22", *sums)]


def test_what_a_cache_saved_before_the_upgrade_is_unknown_and_all_else_is_tallied_by_the_new_keys(empty: Flask) -> None:
    """An earlier version still appends while this one is applied, and after."""
    line = (
        "INSERT INTO ledger_lines (api_batch_id, custom_id, account_id, run_id, request_id, model, input_tokens, "
        "read_tokens, write_5m_tokens, write_1h_tokens, inference_geo, cost_usd, sync_cost_usd, duplicate, priced_at) "
        "SELECT 'b', '{0}' || n, 1, 1, n, 'm', 5, CASE n WHEN 1 THEN 7 ELSE 0 END, 0, 0, "
        "CASE n WHEN 4 THEN 'us' ELSE 'global' END, 0.25, 0.5, n = 3, '2026-11-20 12:00+00' "
        "FROM generate_series(1, 4) n"
    )
    upgrade(revision="0017")
    with db.engine.begin() as connection:
        connection.exec_driver_sql(line.format(1))
    upgrade()
    sums = (
        "SELECT inference_geo, price, sum(lines), sum(cost_usd), sum(uncached_cost_usd), sum(uncached_unknown), "
        "sum(duplicate_cost_usd), sum(read_tokens) FROM ledger_tallies GROUP BY 1, 2 ORDER BY 1"
    )
    for times in (1, 2):
        with db.engine.connect() as connection:
            found = [tuple(one) for one in connection.exec_driver_sql(sums).all()]
        assert found == [
            ("global", None, 3 * times, Decimal("0.75") * times, times, times, Decimal("0.25") * times, 7 * times),
            ("us", None, times, Decimal("0.25") * times, Decimal("0.5") * times, 0, 0, 0),
        ]
        with db.engine.begin() as connection:
            connection.exec_driver_sql(line.format(2 + times))
