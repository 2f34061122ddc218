"""What admins do about prices: the form in which they give one, and the verbs, each one transaction with its event;
and what the Prices page lists. The pages of money call it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from flask import abort, request
from sqlalchemy import Connection
from wtforms import Form, StringField
from wtforms.validators import InputRequired, Length, Optional, Regexp, ValidationError
from wtforms.widgets import DateInput

from webapp import db
from webapp.admin.filters import FIRST_YEAR, LAST_YEAR
from webapp.money import overrides
from webapp.money.overrides import Wanted, in_words, multiplied
from webapp.money.prices import Price, PriceBook, min_cacheable
from webapp.records import jsontext

AMOUNT = Regexp(r"\d{1,6}(\.\d{1,8})?$", message="Write dollars such as 2.50, with a point and at most 8 decimals.")
MOST_GIVEN = 200  # prices of admins that the page shows, the latest first
# What a cache costs by the published multipliers, where nothing else is said.
USUAL = {"write_5m": "1.25", "write_1h": "2", "read": "0.1"}


@dataclass(frozen=True, slots=True)
class Known:
    """A model on the Prices page, with what it costs now (None: nobody knows) and what it cost or will cost."""

    model: str
    price: Price | None
    min_cacheable: int | None
    others: list[Price]


def listed(tx: Connection, model: str | None) -> dict[str, Any]:
    """What the Prices page shows: the models whose names hold some words, and what admins gave.

    :param model: the words; None: all models.
    """
    book, now = overrides.book(tx), db.scalar(tx, "SELECT now()")
    names = [name for name in book.models if model is None or model.lower() in name.lower()]
    given = db.rows(
        tx,
        "SELECT id, model, since, entry::text AS entry, note, created_by, created_at, removed_by, removed_at "
        "FROM price_overrides WHERE CAST(:model AS text) IS NULL OR position(lower(:model) IN lower(model)) > 0 "
        "ORDER BY id DESC LIMIT :most",
        model=model,
        most=MOST_GIVEN,
    )
    return {
        "models": [_known(book, name, now) for name in names],
        "given": [(line, in_words(jsontext.loads(line.entry))) for line in given],
        "in_force": {one.id for one, _ in book.overrides if not one.removed},
    }


def _known(book: PriceBook, model: str, now: Any) -> Known:
    price = book.price(model, now)
    removed = {one.id for one, _ in book.overrides if one.removed}
    others = [one for one in book.of(model) if one is not price and one.override not in removed]
    return Known(model, price, min_cacheable(model), others)


def find(tx: Connection, price_id: int) -> Any:
    """A price of an admin's that is in force; answers 404 where there is none."""
    found = db.row(
        tx,
        "SELECT id, model, since, entry::text AS entry, note, created_by, created_at FROM price_overrides "
        "WHERE id = :id AND removed_at IS NULL",
        id=price_id,
    )
    if found is None:
        abort(404, f"There is no price {price_id}, or it is removed already.")
    return found


def add(wanted: Wanted, *, actor: str) -> int:
    """Put a price in force; see `overrides.add`."""
    with db.transaction() as tx:
        return overrides.add(tx, wanted, actor=actor)


def remove(price_id: int, *, actor: str) -> str:
    """Take a price out of force; see `overrides.remove`."""
    with db.transaction() as tx:
        return overrides.remove(tx, price_id, actor=actor)


class PriceForm(Form):  # type: ignore[misc] # WTForms ships no types
    """A price as people write it: synchronous dollars per million tokens."""

    model = StringField(
        "Model",
        [InputRequired("Name the model."), Length(max=200)],
        description="As requests and answers name it; a date at its end is left off.",
    )
    since = StringField(
        "From",
        [InputRequired("From which day on?"), Regexp(r"\d{4}-\d\d-\d\d$", message="A day is written as 2026-11-30.")],
        widget=DateInput(),
        description="The first day (UTC) whose batches cost this. What is in the ledger already stays as it is.",
    )
    input = StringField("Input", [InputRequired("What does the input cost?"), AMOUNT])
    output = StringField("Output", [InputRequired("What does the output cost?"), AMOUNT])
    write_5m = StringField("5-minute cache write", [Optional(), AMOUNT], description="Empty: 1.25 times the input.")
    write_1h = StringField("1-hour cache write", [Optional(), AMOUNT], description="Empty: twice the input.")
    read = StringField("Cache read", [Optional(), AMOUNT], description="Empty: a tenth of the input.")
    tokens = StringField(
        "Dearer beyond",
        [Optional(), Regexp(r"[1-9]\d{0,8}$", message="Write a number of tokens such as 100000.")],
        description="Tokens of a prompt, cached ones too: one with more pays more for every token. Empty: no tier.",
    )
    times = StringField(
        "Then every rate times", [Optional(), AMOUNT], description="Only with the field before, such as 5."
    )
    note = StringField(
        "Where it is from",
        [InputRequired("Say where this price is from, for those who check it later."), Length(max=500)],
    )

    @classmethod
    def of(cls, tx: Connection, model: str | None) -> PriceForm:
        """As it was sent; or for a model, filled in with what it costs today."""
        if request.method == "POST":
            return cls(request.form)
        now = db.scalar(tx, "SELECT now()")
        price = overrides.book(tx).price(model, now) if model else None
        values = {"model": model, "since": now.date().isoformat()}
        if price is not None:
            values |= {name: f"{getattr(price.rates, name)}" for name in ("input", "output", *USUAL)}
            if price.over != price.rates:
                values |= {
                    "tokens": f"{price.most_tokens}",
                    "times": multiplied(price.over.input / price.rates.input, "1"),
                }
        return cls(data=values)

    def validate_since(self, field: Any) -> None:
        if field.errors:  # it is no day at all
            return
        try:
            day = date.fromisoformat(field.data)
        except ValueError as error:
            raise ValidationError("There is no such day.") from error
        if not FIRST_YEAR <= day.year <= LAST_YEAR:
            raise ValidationError(f"A day from {FIRST_YEAR} to {LAST_YEAR}.")

    def validate_model(self, field: Any) -> None:
        if not field.data.strip().isprintable():
            raise ValidationError("A name of characters that can be shown.")

    def validate_input(self, field: Any) -> None:
        _costs_something(field)

    validate_output = validate_write_5m = validate_write_1h = validate_read = validate_input

    def validate_times(self, field: Any) -> None:
        if bool(field.data) != bool(self.tokens.data):
            raise ValidationError("Beyond how many tokens, and how many times: both, or neither.")
        _costs_something(field)

    # `Optional` ends the checks of an empty field: what that one lacks, the other tells.
    def validate_tokens(self, field: Any) -> None:
        if field.data and not self.times.data:
            raise ValidationError("Say below how many times the rates it then is.")

    @property
    def wanted(self) -> Wanted:
        """What the form says; once it is valid."""
        entry = self._entry()
        if self.tokens.data:
            dearer = {name: multiplied(Decimal(rate), self.times.data) for name, rate in entry.items()}
            entry = {**entry, "over": {"tokens": int(self.tokens.data), **dearer}}
        return Wanted(self.model.data.strip(), date.fromisoformat(self.since.data), entry, self.note.data.strip())

    def _entry(self) -> dict[str, Any]:
        base = Decimal(self.input.data)
        given: Mapping[str, Any] = {name: self[name].data or multiplied(base, times) for name, times in USUAL.items()}
        return {"input": self.input.data, **given, "output": self.output.data}

    def blame(self, words: str) -> None:
        """Say why the price cannot be put in force."""
        self.model.errors = [*self.model.errors, words]


def _costs_something(field: Any) -> None:
    """A price of nothing would hide what is billed somewhere; unpriced is the word for not knowing."""
    if field.data and re.match(AMOUNT.regex, field.data) and not Decimal(field.data):
        raise ValidationError("Nothing is free here: leave a model without a price if nobody knows it.")
