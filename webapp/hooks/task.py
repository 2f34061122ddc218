"""The class that every task derives from, and the settings that every task needs.
Plugin authors subclass both; the host calls a task's methods through `webapp.hooks.calls` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from webapp.hooks.configured import Configured
from webapp.hooks.payloads import Message, Subject

S = TypeVar("S", bound=BaseModel)


class ModelSettings(BaseModel):
    """Settings of a task that asks one model one question: derive from it and add your own."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    model: str = Field(
        default="claude-haiku-5-5",
        min_length=1,
        description="The Claude model that answers, by its API name.",
    )
    max_tokens: int = Field(
        default=2048,
        ge=1,
        le=128_000,
        description="The most tokens one answer may have. Models that think first spend part of it on "
        "thinking, and an answer that is cut is no use, so leave room: only tokens used are paid.",
    )
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None,
        description="How hard the model thinks before it answers; low is cheapest. Empty leaves it to the "
        "model; older models (claude-haiku-4-5 among them) refuse any value.",
    )

    def base_params(self, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The request parameters that these settings stand for.

        :param schema: the JSON schema that the answer must fit (structured outputs), or None for free text.
        """
        config: dict[str, Any] = {}
        if self.effort is not None:
            config["effort"] = self.effort
        if schema is not None:
            config["format"] = {"type": "json_schema", "schema": dict(schema)}
        params: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens}
        return {**params, "output_config": config} if config else params


class Task(Configured[S]):
    """One thing that can be asked about a record, and what becomes of the answer.

    Methods get frozen payloads and settings. They keep no state between calls: each may run in
    any process, in any order, and again.
    """

    noun = "Task"
    name: str = ""  # [a-z][a-z0-9_]*, unique in the installation; `batchdesk run NAME`
    title: str = ""  # for people; drawn from the name when left out
    subject_kinds: tuple[str, ...] | frozenset[str] = ("document",)
    version: str = "1"  # change it when the prompt or the output changes; kept with each run
    Settings: type[S]

    def shared_params(self, settings: S) -> dict[str, Any]:
        """All that is the same in each request of a run: model, max_tokens, system, tools, format."""
        raise NotImplementedError

    def request_params(self, subject: Subject, settings: S) -> dict[str, Any]:
        """Only what differs from record to record: the messages.

        :raises InputError: this record cannot be asked about; it is set down as failed, unsent.
        """
        raise NotImplementedError

    def process(self, subject: Subject, message: Message, settings: S) -> Any:
        """Turn the answer into the record's output, a JSON value. Pure: it may run again any time.

        :raises InvalidOutput: the answer is no use; the text says why.
        """
        raise NotImplementedError
