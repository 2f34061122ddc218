"""How values look on pages: numbers, money, times, sizes, foreign text. Templates use them as filters.
Every one escapes what it is given.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

from flask import Flask
from markupsafe import Markup

from webapp.db import utcnow
from webapp.records.escapes import one_line, readable

CENT = Decimal("0.01")
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
NOUNS = {
    "submit_unknown": "held",
    "in_progress": "at the API",
    "canceling": "cancelling",
    "canceled": "cancelled",
    "ingesting": "storing results",
    "retrying": "waiting for their next attempt",
}


def init_app(app: Flask) -> None:
    """Make the formats known to the templates."""
    app.jinja_env.filters |= {
        "number": number,
        "money": money,
        "about": about,
        "moment": moment,
        "size": size,
        "visible": readable,
        "one_line": one_line,
        "words": words,
        "plural": plural,
    }


def number(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """1 batch, 2 batches, 1,000 batches."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def words(state: str) -> str:
    """A state or class as people say it."""
    return NOUNS.get(state, state.replace("_", " "))


def money(amount: Decimal | None) -> Markup:
    """Dollars to the cent; the exact amount is told on hover, and read out."""
    if amount is None:
        return Markup('<span class="money unpriced" title="At least one answer has no known price.">unpriced</span>')
    return Markup('<data class="money" value="{0}" title="exactly ${0}">{1}</data>').format(
        f"{amount:f}", dollars(amount)
    )


def dollars(amount: Decimal) -> str:
    """Dollars to the cent."""
    if amount < 0:
        return f"-{dollars(-amount)}"
    cents = amount.quantize(CENT, ROUND_HALF_UP)
    return f"${cents:,}" if cents or not amount else "under $0.01"


def about(amount: Decimal) -> str:
    """Dollars as exactly as an estimate is: to the cent, and small amounts to two figures."""
    return f"${amount:.2g}" if CENT / 10_000 < amount < 1 else dollars(amount)


def moment(when: datetime | None) -> Markup:
    """A point in time: how long ago, with the exact time in UTC. A script adds the viewer's own zone."""
    if when is None:
        return Markup('<span class="none">–</span>')
    exact = when.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        exact.isoformat(timespec="seconds"), exact.strftime("%Y-%m-%d %H:%M:%S"), ago(exact, utcnow())
    )


def ago(when: datetime, now: datetime) -> str:
    """3 min ago; in 2 h; a date when it is more than a month away."""
    seconds = (now - when).total_seconds()
    if abs(seconds) > 30 * 86_400:
        return when.strftime("%Y-%m-%d")
    for unit, name in UNITS:
        if abs(seconds) >= unit:
            count = int(abs(seconds) // unit)
            return f"{count} {name} ago" if seconds > 0 else f"in {count} {name}"
    return "just now" if seconds > -1 else "in a moment"


def size(count: int) -> str:
    """Bytes as 512 B, 1.5 kB, 3.2 MB."""
    if count < 1000:
        return f"{count} B"
    value = count / 1000
    for unit in ("kB", "MB"):
        if value < 1000:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
