"""What is done with every row that a list of runs or batches holds: pause, resume, cancel. Asked first, with a count.
The confirmation names the rows, and they are what is acted on, whatever the list holds by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flask import abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp.admin.access import acts
from webapp.admin.filters import MOST_DIGITS, Asked
from webapp.admin.formats import plural
from webapp.admin.frame import Page, back_to, expose, reading
from webapp.errors import BatchdeskError

MOST = 500  # rows that one click acts on


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that can be done with many rows.

    :param states: of the rows it makes sense for.
    :param means: what it does, for those who are asked.
    :param done: the end of a sentence about those it was done with.
    """

    ask: Callable[[int], None]
    states: frozenset[str]
    means: str
    done: str


class Many(Page):
    """The actions of a list on all that it holds; a list's page says what that is."""

    noun: ClassVar[tuple[str, str]]
    deeds: ClassVar[Mapping[str, Deed]]

    def listed(self, tx: Connection, asked: Asked, limit: int) -> list[Any]:
        """The rows that fit the filters in the address, each with an id and a state."""
        raise NotImplementedError

    @expose("/all/<verb>", methods=("GET", "POST"))
    @acts
    def many(self, verb: str) -> ResponseReturnValue:
        deed = self.deeds.get(verb)
        if deed is None:
            abort(404)
        asked = Asked()
        rows = self.listed(reading(), asked, MOST + 1)
        unknown = {name for name, value in request.args.items() if value} - set(asked.given) - {"back"}
        if asked.problems or unknown:
            abort(400, " ".join(asked.problems) or f"This list has no filter {', '.join(sorted(unknown))}.")
        back = back_to(url_for(".index", **asked.given))
        if request.method == "POST":
            return self._do(deed, back)
        fitting = [row for row in rows if row.state in deed.states]
        return self.render(
            "desk/many.html",
            verb=verb,
            deed=deed,
            noun=self.noun,
            rows=fitting,
            left_out=len(rows) - len(fitting),
            too_many=MOST if len(rows) > MOST else None,
            back=back,
        )

    def _do(self, deed: Deed, back: str) -> ResponseReturnValue:
        ids = [one for one in request.form.getlist("id") if one.isascii() and one.isdigit() and len(one) <= MOST_DIGITS]
        done, refused = 0, []
        for row_id in ids[:MOST]:
            try:
                deed.ask(int(row_id))
            except BatchdeskError as error:
                refused.append(str(error))
            else:
                done += 1
        for words in refused[:3]:
            flash(words, "error")
        if len(refused) > 3:
            flash(f"So it was with {len(refused) - 3:,} more.", "error")
        flash(f"{plural(done, *self.noun)} {'is' if done == 1 else 'are'} {deed.done}", "success")
        return redirect(back, 303)
