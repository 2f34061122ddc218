"""The page of outputs: what the tasks made of the answers, newest first. Registered by `init_app` of this room; each
row leads to its request, where all of it is shown.
"""

from __future__ import annotations

from flask import Response
from flask.typing import ResponseReturnValue

from webapp.admin import exporting
from webapp.admin.filters import Asked
from webapp.admin.frame import Page, expose, reading
from webapp.admin.looking import Wanted, listed
from webapp.admin.payloads import laid_out
from webapp.admin.selected import selection
from webapp.batches import exports
from webapp.batches.states import OutputState


class OutputsPage(Page):
    """Outputs, newest first."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        asked = Asked()
        wanted = Wanted.of_outputs(asked)
        found = listed(reading(), asked, wanted)
        return self.render(
            "desk/outputs.html",
            states=[OutputState.OK, OutputState.INVALID],
            beginnings={row.id: _on_one_line(row.value) for row in found["found"].rows if row.value},
            **found,
        )

    @expose("/export.<any(jsonl, csv):kind>")
    def export(self, kind: str) -> Response:
        """Each output that fits, whatever page it would be on, with its request as exports of requests have it."""
        meant = selection(Wanted.of_outputs)
        return exporting.requests(lambda part: exports.requests(part, meant), kind, "batchdesk-outputs")


def _on_one_line(value: str) -> str:
    """The beginning of a value, laid out for people, without the new lines."""
    payload = laid_out(value)
    return " ".join(line.strip() for line in payload.text.split("\n")) if payload else ""
