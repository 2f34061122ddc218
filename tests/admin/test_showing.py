"""How values are shown, without a database: bars, payloads, money, times."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from webapp.admin.formats import ago, money, number, size
from webapp.admin.payloads import MOST_SHOWN, laid_out
from webapp.admin.progress import WIDTH, Progress
from webapp.batches.queries import Counts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@given(JSON)
def test_laying_out_changes_nothing_but_the_white_space(value: object) -> None:
    for separators in ((",", ":"), (" , ", " : ")):
        shown = laid_out(json.dumps(value, separators=separators))
        assert shown is not None and not shown.cut
        assert json.loads(shown.text) == value


def test_numbers_escapes_and_doubled_members_stay_as_they_are_stored() -> None:
    shown = laid_out(r'{"n":1.50e400,"big":12345678901234567890123,"s":"\ud800\u0000\/","s":[]}')

    assert shown is not None
    assert shown.text == '{\n  "n": 1.50e400,\n  "big": 12345678901234567890123,\n' + r'  "s": "\ud800\u0000\/",' + (
        '\n  "s": []\n}'
    )


def test_a_payload_is_cut_where_a_page_ends() -> None:
    for text in (json.dumps(["x" * 70_000]), json.dumps(list(range(30_000))), "[" * 100_000):
        shown = laid_out(text)
        assert shown is not None and shown.cut and shown.size == len(text)
        assert len(shown.text) < 50 * MOST_SHOWN


def test_a_bar_holds_every_kind_and_is_as_wide_as_its_total() -> None:
    counts = Counts(pending=5, succeeded=99_990, errored=1, invalid=3, expired=4)
    progress = Progress(100_000, counts, "subjects")

    assert sum(count for _, count in progress.parts) == 100_000
    assert dict(progress.parts)["succeeded"] == 99_987
    assert progress.percent == 99, "not all is settled"
    widths = {part.name: part.width for part in progress.segments}
    assert min(widths.values()) > 3, "one failure among many is seen"
    assert abs(sum(widths.values()) - WIDTH) < 0.1
    assert progress.spoken == (
        "99,995 of 100,000 subjects settled: 99,987 succeeded, 3 invalid, 1 errored, 4 expired, 5 pending"
    )
    assert replace(progress, counts=Counts(succeeded=100_000)).percent == 100


def test_money_is_shown_to_the_cent_and_told_exactly() -> None:
    assert str(money(Decimal("1234.5650000"))) == (
        '<data class="money" value="1234.5650000" title="exactly $1234.5650000">$1,234.57</data>'
    )
    assert ">under $0.01<" in money(Decimal("0.0001"))
    assert ">$0.00<" in money(Decimal(0)) and ">-$1.50<" in money(Decimal("-1.5"))
    assert "unpriced" in money(None)


def test_times_are_told_by_how_long_ago_they_are() -> None:
    now = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
    told = {
        timedelta(seconds=5): "just now",
        timedelta(minutes=3, seconds=50): "3 min ago",
        timedelta(hours=5): "5 h ago",
        timedelta(days=2): "2 d ago",
        timedelta(days=45): "2026-04-02",
        timedelta(hours=-23, minutes=-5): "in 23 h",
    }
    assert {since: ago(now - since, now) for since in told} == told


def test_numbers_and_sizes_are_grouped() -> None:
    assert (number(1234567), size(512), size(1500), size(5_400_000)) == ("1,234,567", "512 B", "1.5 kB", "5.4 MB")


def test_nothing_at_all_is_laid_out_as_nothing() -> None:
    shown = laid_out("")
    assert shown is not None and (shown.text, shown.size, shown.cut) == ("", 0, False)
