"""The pages of destinations: the list, one destination with what was delivered there last, and what people do with them
and with deliveries. Registered by `init_app` of this room; the forms that start runs offer what `offered` finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Connection

from webapp import db, wishes
from webapp.admin.access import actor, acts
from webapp.admin.filters import Asked
from webapp.admin.forms import SettingsForm, registry
from webapp.admin.frame import Page, act, back_to, expose, reading
from webapp.admin.payloads import laid_out
from webapp.delivery import destinations
from webapp.errors import BatchdeskError, NotFound
from webapp.hooks import Sink
from webapp.records import jsontext

LATEST = 20  # deliveries that a destination's page shows
MOST_NAME = 200  # characters of a name that is shown back


class DestinationsPage(Page):
    """Destinations, by name."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        tx = reading()
        return self.render("desk/destinations.html", rows=_list(tx), sinks=registry().sinks, asked=Asked())

    @expose("/<row:destination_id>/")
    def details(self, destination_id: int) -> ResponseReturnValue:
        tx = reading()
        found = _find(tx, destination_id)
        return self.render(
            "desk/destination.html",
            destination=found,
            sink=registry().sinks.get(found.sink),
            settings=laid_out(found.settings),
            namers=destinations.namers_of(tx, destination_id),
            deliveries=_latest(tx, found.name),
            asked=Asked(),
        )

    @expose("/new", methods=("GET", "POST"))
    @acts
    def new(self) -> ResponseReturnValue:
        asked = Asked()
        sinks = registry().sinks
        sink = sinks.get(asked.choice("sink", sorted(sinks)) or "")
        if sink is None:
            return self.render(
                "desk/new_destination.html", sinks=[one for _, one in sorted(sinks.items())], asked=asked
            )
        form, name = SettingsForm.of(sink), request.form.get("name", "").strip()
        faults = []
        if request.method == "POST":
            faults = [] if destinations.NAME.fullmatch(name) else [f"Write {destinations.NAMING}."]
            if form.parse() is not None and not faults:
                try:
                    made = wishes.ask_make_destination(name, sink.name, form.raw, actor=actor())
                except BatchdeskError as error:
                    faults.append(str(error))
                else:
                    flash(f"Destination {name} is saved: runs may name it.", "success")
                    return redirect(url_for(".details", destination_id=made), 303)
        return self._filling(asked, sink, form, name=name[:MOST_NAME], faults=faults)

    @expose("/<row:destination_id>/edit", methods=("GET", "POST"))
    @acts
    def edit(self, destination_id: int) -> ResponseReturnValue:
        found = _find(reading(), destination_id)
        sink = registry().sinks.get(found.sink)
        if sink is None:
            abort(404, f"The sink {found.sink} is not installed: the destination cannot be changed without it.")
        form = SettingsForm.of(sink, jsontext.loads(found.settings))
        if request.method == "POST" and form.parse() is not None:
            try:
                wishes.ask_edit_destination(destination_id, form.raw, actor=actor())
            except BatchdeskError as error:
                form.problems.append(str(error))
            else:
                flash(f"Destination {found.name} is changed, for all that is delivered from now on.", "success")
                return redirect(url_for(".details", destination_id=destination_id), 303)
        return self._filling(Asked(), sink, form, name=found.name, faults=[], destination=found)

    def _filling(
        self,
        asked: Asked,
        sink: Sink[Any],
        form: SettingsForm,
        *,
        name: str,
        faults: list[str],
        destination: Any = None,
    ) -> ResponseReturnValue:
        return self.render(
            "desk/destination_settings.html",
            asked=asked,
            sink=sink,
            form=form,
            name=name,
            faults=faults,
            naming=destinations.NAMING,
            destination=destination,
        )

    @expose("/<row:destination_id>/enable", methods=("POST",))
    def enable(self, destination_id: int) -> ResponseReturnValue:
        return self._switch(destination_id, "enabled: what waits for it is delivered.", on=True)

    @expose("/<row:destination_id>/disable", methods=("POST",))
    def disable(self, destination_id: int) -> ResponseReturnValue:
        return self._switch(
            destination_id, "disabled: what is to go there waits, and no new run may name it.", on=False
        )

    def _switch(self, destination_id: int, words: str, *, on: bool) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_switch_destination(destination_id, on=on, actor=actor())
            return f"Destination {destination_id} is {words}"

        return act(back_to(url_for(".details", destination_id=destination_id)), deed)

    @expose("/<row:destination_id>/delete", methods=("GET", "POST"))
    @acts
    def delete(self, destination_id: int) -> ResponseReturnValue:
        if request.method == "POST":

            def deed() -> str:
                wishes.ask_delete_destination(destination_id, actor=actor())
                return f"Destination {destination_id} is deleted. What was delivered there stays there."

            return act(url_for(".index"), deed)
        tx = reading()
        found = _find(tx, destination_id)
        back = back_to(url_for(".details", destination_id=destination_id))
        namers = destinations.namers_of(tx, destination_id)
        return self.render("desk/delete_destination.html", destination=found, namers=namers, back=back)

    @expose("/deliveries/<row:delivery_id>/again", methods=("POST",))
    def again(self, delivery_id: int) -> ResponseReturnValue:
        def deed() -> str:
            wishes.ask_deliver_again(delivery_id, actor=actor())
            return f"Delivery {delivery_id} is tried again, from where it had come to."

        return act(back_to(url_for(".index")), deed)


@dataclass(frozen=True, slots=True)
class Offer:
    """A destination that a form offers, and whether it is chosen."""

    name: str
    sink: str
    chosen: bool


def offered(tx: Connection, former: Sequence[str]) -> list[Offer]:
    """What a run may name; chosen is what this request's form says, else the former ones."""
    named = set(chosen() if request.method == "POST" else former)
    found = [one for one in destinations.all_of_them(tx) if one.enabled or one.name in former]
    return [Offer(one.name, one.sink if one.enabled else "disabled", one.name in named) for one in found]


def chosen() -> list[str]:
    """The destinations that this request's form names."""
    return request.form.getlist("to")


def _find(tx: Connection, destination_id: int) -> Any:
    """A destination; answers 404 when there is none."""
    try:
        return destinations.find(tx, destination_id)
    except NotFound as error:
        abort(404, str(error))


def _list(tx: Connection) -> Sequence[Any]:
    return db.rows(
        tx,
        """
        SELECT d.id, d.name, d.sink, d.enabled, d.changed_by, d.changed_at, last.run_id, last.state, last.state_since
        FROM destinations d LEFT JOIN LATERAL (
            SELECT run_id, state, state_since FROM deliveries v WHERE v.name = d.name AND v.kind = 'sink'
            ORDER BY v.id DESC LIMIT 1
        ) AS last ON true
        ORDER BY d.name LIMIT 200
        """,
    )


def _latest(tx: Connection, name: str) -> Sequence[Any]:
    return db.rows(
        tx,
        "SELECT v.id, v.run_id, v.round, v.state, v.state_since, v.reason, v.outputs, v.failures, r.task "
        "FROM deliveries v JOIN runs r ON r.id = v.run_id WHERE v.kind = 'sink' AND v.name = :name "
        "ORDER BY v.id DESC LIMIT :limit",
        name=name,
        limit=LATEST,
    )
