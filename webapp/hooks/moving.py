"""The classes that sources and sinks derive from: where records come from, and where outputs go.
Plugin authors subclass them; importing and delivering call their methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel

from webapp.hooks.configured import Configured

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as a source gives it; it becomes a subject.

    :param key: the owner's id, unique among the records of one call.
    :param data: what JSON can hold.
    """

    key: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What plugins are told of a run.

    :param model: the Claude model that its shared part names.
    :param subjects: how many records it is over.
    :param requests: how many requests were built for them; the others cannot be sent.
    :param counts: records by status: succeeded, invalid, errored, canceled, expired, missing, stopped, pending.
    :param cost_usd: what its answers were billed so far; None while a price is unknown.
    :param estimate_usd: what the whole run may cost, at the most that is likely; None where that is not known.
    :param url: the run's page; a path where the installation does not know its own address.
    """

    id: int
    task: str
    task_version: str
    dataset: str
    owner: str
    state: str
    model: str
    subjects: int
    requests: int
    batches: int
    counts: Mapping[str, int] = field(default_factory=dict)
    cost_usd: Decimal | None = None
    estimate_usd: Decimal | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """One output on its way to a sink.

    :param custom_id: of the request that the output was made of: the same row again has the same one.
    :param key: the record's key in its dataset.
    :param status: ``succeeded``, or ``invalid`` where the answer was no use.
    :param output: what the task's processor made; None when invalid.
    :param error: why it is invalid, else None.
    :param data: the record as imported.
    """

    custom_id: str
    key: str
    status: str
    output: Any
    error: str | None
    data: Mapping[str, Any]


class Source(Configured[S]):
    """Where records come from. A setting called `kind` or `text_field` takes the place of what is said here."""

    noun = "Source"
    name: str = ""  # [a-z][a-z0-9_]*, unique in the installation
    title: str = ""  # for people; drawn from the name when left out
    kind: str = "document"  # of the records: `document`, or a kind of your own
    text_field: str = "text"  # the member of a record's data that holds its text; a document must have one
    Settings: type[S]

    def records(self, settings: S) -> Iterator[Record]:
        """Each record once, one after the other; never all in memory. What `file_records` gives is passed on as it is.

        Runs in a process of its own. One that gives nothing for ten minutes is ended.

        :raises InputError: the records cannot be read; the text says why and what to do.
        """
        raise NotImplementedError


class Sink(Configured[S]):
    """Where outputs go."""

    noun = "Sink"
    name: str = ""  # [a-z][a-z0-9_]*, unique in the installation
    title: str = ""  # for people; drawn from the name when left out
    Settings: type[S]

    def deliver(self, run: RunFacts, outputs: Sequence[OutputRecord], settings: S, key: str) -> None:
        """Take some outputs of a run. Any of them may come again, in other company: to take one again changes nothing.

        :param key: names this delivery, and is the same when it is tried again.
        :raises Exception: they were not taken; they come again later, with a growing delay.
        """
        raise NotImplementedError
