"""What the rounds share, made once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.household import Workshop
from chaos.nursery import Nursery
from chaos.points import Point
from chaos.scenarios import Scenario, discover
from webapp.local import Services


@pytest.fixture(scope="package")
def workshop(services: Services, template: str) -> Iterator[Workshop]:
    """Services and a nursery for rounds."""
    with Nursery() as nursery:
        yield Workshop(services, template, nursery)


@pytest.fixture(scope="package")
def points(workshop: Workshop) -> dict[Point, Scenario]:
    """Every fault point, with a scenario that passes it."""
    return discover(workshop)
