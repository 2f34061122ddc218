"""The page of outputs: what the tasks made of the answers, newest first. Registered by `init_app` of this room; each
row leads to its request, where all of it is shown.
"""

from __future__ import annotations

from flask.typing import ResponseReturnValue

from webapp.admin.filters import Asked
from webapp.admin.frame import Page, expose, reading
from webapp.admin.looking import Wanted, listed
from webapp.batches.states import OutputState


class OutputsPage(Page):
    """Outputs, newest first."""

    @expose("/")
    def index(self) -> ResponseReturnValue:
        asked = Asked()
        wanted = Wanted.of_outputs(asked)
        states = [OutputState.OK, OutputState.INVALID]
        return self.render("desk/outputs.html", states=states, **listed(reading(), asked, wanted))
