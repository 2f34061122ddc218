"""The page of outputs: what the tasks made of the answers, newest first. Registered by `init_app` of this room; each
row leads to its request, where all of it is shown.
"""

from __future__ import annotations

from flask.typing import ResponseReturnValue

from webapp.admin.filters import Asked
from webapp.admin.frame import Page, expose, reading
from webapp.admin.looking import Wanted, listed
from webapp.admin.payloads import laid_out
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


def _on_one_line(value: str) -> str:
    """The beginning of a value, laid out for people, without the new lines."""
    payload = laid_out(value)
    return " ".join(line.strip() for line in payload.text.split("\n")) if payload else ""
