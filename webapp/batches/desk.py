"""What a step works with: the settings, the task plugins and the way to the API.
The wiring makes one per process; steps get it as their first argument and reach for nothing global but the database.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from flask import current_app

from webapp.gateway import Gateway, Heard
from webapp.hooks import Registry
from webapp.settings import Settings


@dataclass
class Desk:
    """Settings, plugins and gateway of this process.

    :param open_gateway: makes the gateway at its first use, so that pages and quick commands never load the SDK's
        client, and nothing is connected before a fork.
    """

    settings: Settings
    registry: Registry
    open_gateway: Callable[[], Gateway] = field(repr=False)

    @cached_property
    def gateway(self) -> Gateway:
        return self.open_gateway()

    def take_heard(self) -> Heard:
        """What the API last said to this process since it was asked here; nothing is opened for that."""
        gateway: Gateway | None = vars(self).get("gateway")
        if gateway is None:
            return Heard()
        heard, gateway.heard = gateway.heard, Heard()
        return heard


def ceiling() -> int:
    """The most attempts at one item by rule, for reads that no step asks."""
    desk: Desk = current_app.extensions["batchdesk"]
    return desk.settings.max_attempts
