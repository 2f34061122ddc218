"""Estimates before a run, against what the sandbox bills after it: it counts, caches and answers as it always does, and
knows nothing of how it is estimated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from PIL import Image as Picture
from support.desk import DeskDriver
from support.sandbox import Sandbox

PLAIN = """
the a of to and in that it was for on with as by at from order invoice harbour ship delivery customer money
late returned damaged arrived warehouse yesterday morning report contract payment bridge engineer weather
committee decided against although nobody expected nearly everything question answer without between other
paper
"""
WORDS = PLAIN.split()

TEXTS = '''
from typing import Any
from webapp.hooks import ModelSettings, Task, hookimpl

class Free(Task[ModelSettings]):
    """Free text, nothing cached."""
    name = "free"
    Settings = ModelSettings

    def shared_params(self, settings):
        return settings.base_params() | {"system": "Say what the document is about, in your own words. Be brief."}

    def request_params(self, subject, settings):
        return {"messages": [{"role": "user", "content": subject.require_text()}]}

    def process(self, subject, message, settings):
        return message.text

class Long(Free):
    """A long shared part, cached."""
    name = "long"

    def shared_params(self, settings):
        rules = " ".join(f"Rule {n}: what is said of case {n} holds of the others too." for n in range(150))
        block = {"type": "text", "text": rules, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        schema = {
            "type": "object",
            "properties": {"topic": {"enum": ["harbour", "money", "weather"]}, "why": {"type": "string"}},
            "required": ["topic", "why"],
            "additionalProperties": False,
        }
        return settings.base_params(schema) | {"system": [block]}

@hookimpl
def register_tasks() -> list[Task[Any]]:
    return [Free(), Long()]
'''


def prose(rng: random.Random, sentences: int) -> str:
    """Sentences of six to eighteen words."""
    made = (" ".join(rng.choices(WORDS, k=rng.randint(6, 18))) for _ in range(sentences))
    return " ".join(f"{one.capitalize()}." for one in made)


def records(count: int, least: int, most: int) -> list[dict[str, Any]]:
    """Documents of so many sentences."""
    rng = random.Random(count * most)
    return [{"key": f"r{n}", "text": prose(rng, rng.randint(least, most))} for n in range(count)]


@dataclass(frozen=True)
class Wanted:
    """One run: a task, a model, how many records of how many sentences."""

    task: str
    model: str
    count: int
    sentences: tuple[int, int] = (3, 12)
    settings: dict[str, str] = field(default_factory=dict)


LABELS = {"labels": "harbour,money,weather"}
RUNS = (
    Wanted("classify", "claude-haiku-5-5", 24, settings=LABELS),
    Wanted("classify", "claude-haiku-5-5", 40, (20, 60), settings=LABELS),
    Wanted("classify", "claude-haiku-4-5", 24, settings=LABELS),
    Wanted("classify", "claude-opus-4-8", 12, (1, 80), settings=LABELS),
    Wanted("classify", "claude-sonnet-5-5", 30, settings={"labels": "yes,no"}),
    Wanted("classify", "claude-sonnet-5-5", 12, settings={"labels": "yes,no"}),
    Wanted("summarise", "claude-haiku-5-5", 20, (20, 60)),
    Wanted("summarise", "claude-haiku-5-5", 30, (20, 40)),
    Wanted("summarise", "claude-sonnet-5", 16, (40, 90)),
    Wanted("summarise", "claude-sonnet-5", 24, (4, 90)),
    Wanted("summarise", "claude-haiku-4-5", 20, (10, 30)),
    Wanted("free", "claude-opus-4-8", 15, (30, 60)),
    Wanted("free", "claude-opus-4-8", 25, (5, 20)),
    Wanted("free", "claude-fable-5-1", 10, (60, 90)),
    Wanted("long", "claude-sonnet-5-5", 30, (2, 8)),
    Wanted("long", "claude-sonnet-5-5", 24, (2, 8)),
    Wanted("long", "claude-opus-5", 40, (2, 8)),
    Wanted("long", "claude-haiku-4-5", 20, (2, 8)),
    Wanted("alt_text", "claude-haiku-5-5", 8),
    Wanted("alt_text", "claude-haiku-5-5", 10),
)


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        Picture.new("RGB", (300 + 170 * n, 200 + 90 * n), (20 * n, 90, 120)).save(folder / f"{n}.png")
    return folder


def test_what_a_run_costs_is_in_the_range_that_was_shown_before(
    desk: DeskDriver, sandbox: Sandbox, tmp_path: Path
) -> None:
    desk.add_plugin(tmp_path / "plugins", TEXTS)
    told, wide = [], []
    for number, wanted in enumerate(RUNS):
        settings = {"model": wanted.model} | wanted.settings
        if wanted.task == "alt_text":
            run_id = desk.start_folder(pictures(tmp_path / str(number), wanted.count), wanted.task, **settings)
        else:
            run_id = desk.start(records(wanted.count, *wanted.sentences), wanted.task, **settings)
        desk.work_until_over(run_id)
        ((low, high, counted),) = desk.rows(
            "SELECT low_usd, high_usd, counted FROM run_estimates WHERE run_id = :id", id=run_id
        )
        actual: Decimal = desk.summary(run_id).cost_usd or Decimal()
        told.append((low <= actual <= high, wanted.task, wanted.model, f"{low:.6f} {actual:.6f} {high:.6f}"))
        wide.append(high / low)
        assert counted == min(wanted.count, 6) and actual > 0
    assert sum(inside for inside, *_ in told) >= 18, "\n".join(map(str, told))
    assert max(wide) <= Decimal("2.5"), wide
