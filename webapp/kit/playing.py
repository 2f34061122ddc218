"""Plays a task over some records as a run would: requests built and checked, sent as one batch, answers processed.
The fixture `run_task` calls it; there is no database, no queue and no other process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webapp.errors import InputError, InvalidOutput, PluginError
from webapp.hooks import Image, Message, Registry, Subject, Task, calls
from webapp.hooks.parsing import parse_settings
from webapp.kit import road, targets
from webapp.records.faults import Fault
from webapp.records.images import fit_image

Given = Task[Any] | str | Path
Answers = Mapping[str, Any] | Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record.

    :param status: ``succeeded``, ``invalid`` (the answer was no use), ``unsent`` (no request could be built), or what
        the API called the result: ``errored``, ``expired``, …
    :param error: why there is no output, else None.
    :param request: the parameters that were sent, both parts together; None when unsent.
    :param message: what the model answered; None without an answer.
    :param value: the output; None without one.
    """

    key: str
    status: str
    error: str | None = None
    request: Mapping[str, Any] | None = None
    message: Mapping[str, Any] | None = None
    value: Any = None

    @property
    def output(self) -> Any:
        """The output.

        :raises AssertionError: there is none; says why.
        """
        if self.status != "succeeded":
            raise AssertionError(f"Record '{self.key}' has no output: it is {self.status}: {self.error}")
        return self.value


def play(
    url: str, given: Given, records: Iterable[Any], answers: Answers | None, raw: Mapping[str, Any]
) -> list[Outcome]:
    """What becomes of each record, in order.

    :param url: the sandbox's.
    :param given: a task, or the path of a plugin with one task.
    :param records: texts, mappings (their ``key`` and ``text`` are the record's), paths of images, or subjects.
    :param answers: what the model says, by the record's key, instead of the sandbox's own words: text, a `Message`, or
        a value that is written as JSON. A record that it does not name gets the sandbox's.
    :param raw: the settings, as people write them.
    :raises InputError: the settings are no use, or the shared part cannot be made of them.
    :raises PluginError: the plugin breaks the contract.
    """
    task = given if isinstance(given, Task) else _only_task(Path(given))
    settings = parse_settings(task, raw)
    shared = calls.shared_params(task, settings)
    pictures: dict[str, bytes] = {}
    subjects = [subject_of(record, place, task, pictures) for place, record in enumerate(records, 1)]
    outcomes: dict[int, Outcome] = {}
    requests: dict[str, dict[str, Any]] = {}
    for place, subject in enumerate(subjects):
        try:
            own = calls.request_params(task, subject, settings, shared)
        except (InputError, PluginError) as error:
            outcomes[place] = Outcome(subject.key, "unsent", str(error))
        else:
            requests[str(place)] = road.sendable({**shared, **own}, pictures)
    for name, result in road.results_of(url, requests).items():
        subject = subjects[int(name)]
        outcomes[int(name)] = _outcome(task, subject, settings, requests[name], _answered(result, subject, answers))
    return [outcomes[place] for place in range(len(subjects))]


def _only_task(path: Path) -> Task[Any]:
    registries: Sequence[Registry] = [target.load() for target in targets.find(path)]
    for registry in registries:
        for problem in registry.problems:
            raise PluginError(f"{problem.error}\n{problem.traceback}".rstrip())
    tasks = [task for registry in registries for task in registry.tasks.values()]
    if len(tasks) != 1:
        names = ", ".join(task.name for task in tasks) or "none"
        raise PluginError(f"{path} has not one task but {names}: give run_task the task itself.")
    return tasks[0]


def subject_of(record: Any, place: int, task: Task[Any], pictures: dict[str, bytes]) -> Subject:
    """A record as the task gets it; the bytes of an image join the pictures."""
    if isinstance(record, Subject):
        return record
    kind = next(iter(task.subject_kinds))
    if isinstance(record, Path):
        fitted = fit_image(record.read_bytes())
        if isinstance(fitted, Fault):
            raise InputError(f"{record}: {fitted.fault}; {fitted.remedy}.")
        name = fitted.sha256.hex()
        pictures[name] = fitted.content
        image = Image(name, fitted.media_type, fitted.width, fitted.height)
        return Subject("image", record.name, {"path": record.name}, image=image)
    data = record if isinstance(record, Mapping) else {"text": record}
    text = data.get("text")
    return Subject(kind, str(data.get("key", place)), data, text=text if isinstance(text, str) else None)


def _answered(result: Mapping[str, Any], subject: Subject, answers: Answers | None) -> Mapping[str, Any]:
    """The result, with what the test wants the model to say."""
    if result["type"] != "succeeded" or answers is None:
        return result
    said = answers(subject.key) if callable(answers) else answers.get(subject.key)
    if said is None:
        return result
    if isinstance(said, Message):
        return {**result, "message": said.raw}
    text = said if isinstance(said, str) else json.dumps(said)
    message = {**result["message"], "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
    return {**result, "message": message}


def _outcome(
    task: Task[Any], subject: Subject, settings: Any, request: Mapping[str, Any], result: Mapping[str, Any]
) -> Outcome:
    if result["type"] != "succeeded":
        detail = result.get("error") or {}
        words = (detail.get("error") or detail).get("message", "the batch ended without an answer")
        return Outcome(subject.key, result["type"], words, request)
    message = result["message"]
    try:
        output = calls.process(task, subject, Message(message), settings)
    except InvalidOutput as error:
        return Outcome(subject.key, "invalid", str(error), request, message)
    return Outcome(subject.key, "succeeded", None, request, message, output)
