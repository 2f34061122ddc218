"""The host's calls to a plugin's methods and hooks: what a plugin raises or returns amiss becomes an error of ours.
Planning, checking, importing, processing and delivering call plugins through here and nowhere else.

Caught are Exception and SystemExit, but for MemoryError: that is a bound of the process, and whoever set it says so.
What interrupts a worker from outside must derive from BaseException, so that it passes through and is not taken for
the fault of one record.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from webapp.errors import BatchdeskError, InputError, InvalidOutput, PluginError
from webapp.hooks.checks import check_json, check_own, check_shared
from webapp.hooks.configured import hidden
from webapp.hooks.moving import OutputRecord, Record, RunFacts, Sink, Source
from webapp.hooks.payloads import Message, Subject
from webapp.hooks.registry import Hooked
from webapp.hooks.task import Task
from webapp.records.given import Giving
from webapp.records.reading import Problem
from webapp.records.reading import Record as FileRecord


def shared_params(task: Task[Any], settings: BaseModel) -> dict[str, Any]:
    """The shared part of a run's requests, checked.

    :raises InputError: the task says that these settings are no use together.
    :raises PluginError: the task raised, or its parameters cannot be sent.
    """
    who = f"Task '{task.name}'"
    try:
        params = task.shared_params(settings)
        check_shared(params, plugin=who)
    except (InputError, PluginError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{who}: shared_params raised {_raised(error)}.") from error
    return params


def request_params(task: Task[Any], subject: Subject, settings: BaseModel, shared: Mapping[str, Any]) -> dict[str, Any]:
    """One record's own part of its request, checked against the shared part.

    :raises InputError: the task says that this record cannot be asked about.
    :raises PluginError: the task raised, or its parameters cannot be sent.
    """
    who = f"Task '{task.name}', record '{subject.key}'"
    try:
        params = task.request_params(subject, settings)
        check_own(params, shared, plugin=who)
    except (InputError, PluginError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{who}: request_params raised {_raised(error)}.") from error
    return params


def process(task: Task[Any], subject: Subject, message: Message, settings: BaseModel) -> Any:
    """The output made of an answer, known to be a JSON value.

    :raises InvalidOutput: the answer is no use, the processor raised, or what it made is no JSON.
    """
    try:
        output = task.process(subject, message, settings)
        check_json(output, f"the output of task '{task.name}'")
    except (InvalidOutput, MemoryError):
        raise
    except PluginError as error:
        raise InvalidOutput(str(error)) from error
    except (Exception, SystemExit) as error:
        raise InvalidOutput(f"the processor of task '{task.name}' raised {_raised(error)}") from error
    return output


def check_run(check: Hooked, run: RunFacts, settings: BaseModel) -> str | None:
    """Why a plugin wants a run not to be sent, in its own words; None: it lets it go.

    :raises PluginError: it raised, or answered with anything else. Then the run must not be sent either.
    """
    try:
        answer = check.call(run=run, settings=settings)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"check_run raised {_raised(error)}") from error
    if answer is not None and not (isinstance(answer, str) and answer.strip()):
        raise PluginError(f"check_run answered {answer!r:.100}, which is neither a sentence nor None")
    return answer


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something was not delivered: the end of a sentence, and when the receiver wants to be asked again."""

    words: str
    retry_after: float | None = None


def deliver(
    sink: Sink[Any], run: RunFacts, outputs: Sequence[OutputRecord], settings: BaseModel, key: str
) -> Trouble | None:
    """Hand outputs to a sink; None: they were taken."""
    return _trouble(lambda: sink.deliver(run, outputs, settings, key), settings)


def tell(listener: Hooked, run: RunFacts, settings: BaseModel, key: str) -> Trouble | None:
    """Tell a plugin that a run is over; None: it was told."""
    return _trouble(lambda: listener.call(run=run, settings=settings, key=key), settings)


def _trouble(call: Callable[[], object], settings: BaseModel) -> Trouble | None:
    try:
        call()
    except MemoryError:
        raise
    except BatchdeskError as error:
        words, wait = str(error), getattr(error, "retry_after", None)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
        words, wait = f"it raised {_raised(error)}", getattr(error, "retry_after", None)
    else:
        return None
    known = isinstance(wait, int | float) and math.isfinite(wait)
    return Trouble(hidden(words, settings), wait if known else None)


def records(source: Source[Any], settings: BaseModel) -> Iterator[FileRecord | Problem]:
    """What a source gives, checked record by record; a record that is no use is a problem, and does not end it.

    :raises InputError: the source says that it cannot read, or reads on.
    :raises PluginError: it raised, or gave what is no record; says after which one.
    """
    giving = Giving(getattr(settings, "kind", None) or source.kind, text_field(source, settings))
    try:
        found = source.records(settings)
        if not isinstance(found, Iterable):
            raise PluginError(f"records returned {type(found).__name__}: write it with `yield`, or return an iterator")
        for one in found:
            if isinstance(one, FileRecord | Problem):
                yield giving.take(one)
            elif isinstance(one, Record):
                yield giving.admit(one.key, one.data, _fault_of(one.data))
            else:
                raise PluginError(f"records gave {type(one).__name__}, which is no Record")
    except MemoryError:
        raise
    except InputError as error:
        words = f"{str(error).rstrip('.')}{_after(giving)}." if giving.number else str(error)
        raise InputError(hidden(words, settings)) from error
    except PluginError as error:
        raise PluginError(f"Source '{source.name}': {error}{_after(giving)}.") from error
    except (Exception, SystemExit) as error:
        words = hidden(_raised(error), settings)
        raise PluginError(f"Source '{source.name}': records raised {words}{_after(giving)}.") from error


def text_field(source: Source[Any], settings: BaseModel) -> str:
    """The member of a source's records that holds their text."""
    return str(getattr(settings, "text_field", None) or source.text_field)


def _fault_of(data: Any) -> str | None:
    """Why JSON cannot hold a record's data."""
    try:
        check_json(data, "its data")
    except PluginError as error:
        return str(error).rstrip(".")
    except RecursionError:
        return "its data is nested too deeply"
    return None


def _after(giving: Giving) -> str:
    return f", after {giving.where}" if giving.number else ", before its first record"


def _raised(error: BaseException) -> str:
    """What was raised, and the plugin's line that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
