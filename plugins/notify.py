"""Tells people that a run is over, by whatever apprise speaks to: mail, Slack, Teams, a webhook and a hundred more."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from webapp.hooks import RunFacts, Secret, hookimpl, reveal

FAILURES = ("invalid", "errored", "expired", "missing", "canceled", "stopped")
Outcome = Literal["finished", "failures", "cancelled"]


class Settings(BaseModel):
    """Whom to tell of what. Nobody, at first."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    urls: list[Secret] = Field(
        default=[],
        description="Whom to tell: URLs of apprise, such as mailto:// or slack://, each in an environment variable of "
        "the workers: write env:NAME.",
    )
    tell: list[Outcome] = Field(
        default=[],
        description="What to tell: finished (without a failure), failures (finished with some), cancelled.",
    )


class NotTold(Exception):
    """Somebody could not be told."""


@hookimpl
def on_run_finished(run: RunFacts, settings: Settings, key: str) -> None:
    """Tell everybody; where one cannot be told, all are told again later."""
    if not settings.urls or outcome(run) not in settings.tell:
        return
    from apprise import Apprise, NotifyType

    post = Apprise()
    for secret in settings.urls:
        if not post.add(reveal(secret)):
            raise NotTold(f"What {secret} holds is no URL that apprise can read.")
    kind = {"finished": NotifyType.SUCCESS, "failures": NotifyType.WARNING}.get(outcome(run), NotifyType.INFO)
    if not post.notify(title=title(run), body=body(run, key), notify_type=kind):
        raise NotTold(f"Not everybody could be told ({', '.join(settings.urls)}): the worker's log says more.")


def outcome(run: RunFacts) -> Outcome:
    """What has become of a run."""
    if run.state == "cancelled":
        return "cancelled"
    return "failures" if any(run.counts.get(name) for name in FAILURES) else "finished"


def title(run: RunFacts) -> str:
    """One line."""
    words = {"finished": "is finished", "failures": "is finished, with failures", "cancelled": "is cancelled"}
    return f"Run {run.id} of {run.task} {words[outcome(run)]}"


def body(run: RunFacts, key: str) -> str:
    """What one wants to know, in a few lines; the key last, by which a program knows what it has seen."""
    counts = ", ".join(f"{count:,} {name}" for name, count in run.counts.items() if count)
    cost = "not known" if run.cost_usd is None else f"{run.cost_usd:.2f} USD"
    lines = [f"{run.subjects:,} records of {run.dataset}: {counts or 'none answered'}.", f"Cost: {cost}."]
    return "\n".join([*lines, f"Started by {run.owner}. {run.url}", f"Delivery {key}"])
