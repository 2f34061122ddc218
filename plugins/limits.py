"""Limits on how large and how dear a run may be: one that is beyond them waits for a person before anything is sent.
Nothing is limited until somebody sets a limit.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field

from webapp.hooks import RunFacts, hookimpl


class Settings(BaseModel):
    """The limits; one that is empty is none."""

    most_records: int | None = Field(None, ge=1, description="The most records that a run may be over.")
    most_requests: int | None = Field(
        None, ge=1, description="The most requests that a run may send; records that cannot be asked about make none."
    )
    most_cost_usd: Decimal | None = Field(
        None, gt=0, description="The most that a run may be likely to cost, in US dollars, as estimated before it."
    )
    refuse_unknown_cost: bool = Field(
        False, description="Refuse a run also when nobody knows what it may cost; only with a limit on the cost."
    )


@hookimpl
def check_run(run: RunFacts, settings: Any) -> str | None:
    """Say by how much a run is beyond which limits."""
    beyond = [
        *_beyond("most_records", "is over", run.subjects, "records", settings.most_records),
        *_beyond("most_requests", "would send", run.requests, "requests", settings.most_requests),
        *_dear(run, settings),
    ]
    if not beyond:
        return None
    return (
        f"{' '.join(beyond)} Make it smaller, or change the limit: `batchdesk plugins set limits NAME=VALUE`, "
        "or Plugins → limits; then resume the run."
    )


def _beyond(name: str, verb: str, count: int, noun: str, limit: int | None) -> list[str]:
    if limit is None or count <= limit:
        return []
    return [f"The run {verb} {count:,} {noun}, {count - limit:,} more than the {limit:,} that {name} allows."]


def _dear(run: RunFacts, settings: Any) -> list[str]:
    limit = settings.most_cost_usd
    if limit is None:
        return []
    if run.estimate_usd is None:
        if not settings.refuse_unknown_cost:
            return []
        return [
            f"Nobody knows what the run may cost, and most_cost_usd allows ${limit:,.2f}: refuse_unknown_cost is set."
        ]
    if run.estimate_usd <= limit:
        return []
    more = run.estimate_usd - limit
    return [
        f"The run may cost ${run.estimate_usd:,.2f}, ${more:,.2f} more than the ${limit:,.2f} that most_cost_usd "
        "allows."
    ]
