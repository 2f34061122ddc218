"""The plugin `notify`: whom it tells of what, through apprise, to a real receiver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.receiver import Receiver, receiving

from webapp.errors import BadSettings
from webapp.hooks import RunFacts, calls, load_plugins
from webapp.hooks.calls import Trouble

# apprise looks for a module of Python's that is gone in 3.13, and does without it there.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

ROOT = Path(__file__).parents[2]
REGISTRY = load_plugins(folder=ROOT / "plugins", entry_points=False)
(NOTIFY,) = REGISTRY.listeners
SUCCEEDED = {"succeeded": 1200}
GOOD = RunFacts(
    7, "classify", "1", "docs", "ann", "finished", "m", 1200, 1200, 1, SUCCEEDED, Decimal("1.5"), None, "/runs/7/"
)  # fmt: skip
BAD = replace(GOOD, counts={"succeeded": 1100, "errored": 100}, cost_usd=None)
ENDED = replace(GOOD, state="cancelled", counts={"stopped": 1200})


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as up:
        monkeypatch.setenv("TEAM_URL", up.url.replace("http://", "json://") + "/team")
        monkeypatch.setenv("BOSS_URL", up.url.replace("http://", "json://") + "/boss")
        yield up


def tell(run: RunFacts, tell: str = "finished,failures,cancelled", urls: str = "env:TEAM_URL") -> Trouble | None:
    assert NOTIFY.plugin.settings is not None
    settings = REGISTRY.parse_settings(NOTIFY.plugin.settings, {"urls": urls, "tell": tell})
    return calls.tell(NOTIFY, run, settings, "k-1")


def said(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(post.body) for post in receiver.posts]


def test_nobody_is_told_until_somebody_wants_it(receiver: Receiver) -> None:
    assert NOTIFY.plugin.settings is not None
    defaults = REGISTRY.parse_settings(NOTIFY.plugin.settings, {})
    assert calls.tell(NOTIFY, GOOD, defaults, "k") is None
    assert tell(GOOD, tell="") is None and tell(GOOD, urls="") is None and tell(GOOD, tell="failures") is None
    assert receiver.posts == []


@pytest.mark.parametrize(
    ("run", "title", "words", "kind"),
    [
        (GOOD, "Run 7 of classify is finished", "1,200 records of docs: 1,200 succeeded.", "success"),
        (BAD, "Run 7 of classify is finished, with failures", "1,100 succeeded, 100 errored.", "warning"),
        (ENDED, "Run 7 of classify is cancelled", "1,200 stopped.", "info"),
    ],
)
def test_what_has_become_of_a_run_is_told(receiver: Receiver, run: RunFacts, title: str, words: str, kind: str) -> None:
    assert tell(run) is None
    (message,) = said(receiver)
    assert (message["title"], message["type"]) == (title, kind)
    assert words in message["message"] and "/runs/7/" in message["message"] and "k-1" in message["message"]
    assert ("Cost: not known." if run is BAD else "Cost: 1.50 USD.") in message["message"]


def test_everybody_is_told_and_told_again_where_one_could_not_be(receiver: Receiver) -> None:
    receiver.answers = [200, 500]
    trouble = tell(GOOD, urls="env:TEAM_URL,env:BOSS_URL")
    assert trouble is not None and "Not everybody could be told (env:TEAM_URL, env:BOSS_URL)" in trouble.words
    assert tell(GOOD, urls="env:TEAM_URL,env:BOSS_URL") is None
    assert sorted(post.path for post in receiver.posts) == ["/boss", "/boss", "/team", "/team"]


def test_a_url_that_is_none_or_not_there_is_named_by_its_variable(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_URL", "nonsense hunter22")
    trouble = tell(GOOD)
    assert trouble is not None and "What env:TEAM_URL holds is no URL" in trouble.words
    assert "hunter22" not in trouble.words
    monkeypatch.delenv("TEAM_URL")
    trouble = tell(GOOD)
    assert trouble is not None and "set the environment variable TEAM_URL" in trouble.words


@pytest.mark.parametrize("settings", [{"urls": "mailto://me:hunter22@mail"}, {"tell": "everything"}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, str]) -> None:
    assert NOTIFY.plugin.settings is not None
    with pytest.raises(BadSettings) as refused:
        REGISTRY.parse_settings(NOTIFY.plugin.settings, settings)
    assert "hunter22" not in str(refused.value)
