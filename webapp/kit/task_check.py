"""Proves one task: its shared part, its requests, and what its processor makes of answers good and bad.
The check of its plugin calls it, with two processes that have loaded the plugin and a sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from webapp.batches.processing import MOST_OUTPUT
from webapp.errors import ApiError
from webapp.kit import nasty, road, samples
from webapp.kit.findings import Book, Finding
from webapp.kit.sandboxes import Sandbox
from webapp.kit.trial import Broke, Trial
from webapp.money.prices import min_cacheable


class TaskCheck:
    """The check of one task.

    :param kinds: of records that it takes.
    """

    def __init__(self, task: str, kinds: list[str], first: Trial, second: Trial, sandbox: Sandbox) -> None:
        self._task, self._kinds, self._sandbox = task, kinds, sandbox
        self._first, self._second = first, second
        self._book = Book(f"task {task}")
        self._doing = ""
        self._shared: dict[str, Any] = {}
        self._asked: dict[str, dict[str, Any]] = {}  # what a sample record is -> its own part
        self._records: dict[str, dict[str, Any]] = {}

    def findings(self, raw: Mapping[str, str], own: Mapping[str, dict[str, Any]]) -> Iterator[Finding]:
        """Each point in turn.

        :param raw: settings as people write them; those that the task does not have are left out.
        :param own: records to try it with; without any, samples.
        """
        try:
            refused = self._settle(raw)
            if refused:
                yield refused
                return
            text = self._ask(self._first, "shared")
            if "text" not in text:
                yield self._book.problem(_fault(text, "its shared part cannot be made of its settings"))
                return
            self._shared = json.loads(text["text"])
            yield self._stable(text["text"])
            yield from self._cacheable()
            yield from self._requests(own)
            yield from self._answers()
        except Broke as broke:
            yield self._book.problem(f"{self._doing} {broke}. Nothing after it was tried.")

    def _ask(self, trial: Trial, method: str, **arguments: Any) -> dict[str, Any]:
        self._doing = {"own": "request_params", "shared": "shared_params"}.get(method, method)
        return trial.ask(method, task=self._task, **arguments)

    # -- settings ----------------------------------------------------------------------------------------------

    def _settle(self, raw: Mapping[str, str]) -> Finding | None:
        """Give both processes settings that the task takes; or say why none were found."""
        refused = "it has none"
        made = self._ask(self._first, "samples", raw=dict(raw))
        for settings in made.get("tries", ()):
            answer = self._ask(self._first, "settings", raw=settings)
            if not answer:
                self._ask(self._second, "settings", raw=settings)
                return None
            refused = _fault(answer, "checking its settings failed")
        if raw or not made.get("needed"):
            return self._book.problem(refused)
        return self._book.warning(
            f"not tried: no values were found for {', '.join(made['needed'])}. Give them with --set, or let the "
            f"fields have examples. {refused}"
        )

    # -- the shared part ---------------------------------------------------------------------------------------

    def _stable(self, text: str) -> Finding:
        again = self._ask(self._first, "shared").get("text")
        if again != text:
            return self._book.problem(f"shared_params gives another part when it is asked again: {_where(text, again)}")
        elsewhere = self._ask(self._second, "shared").get("text")
        if elsewhere != text:
            return self._book.problem(
                "shared_params gives another part in another process (the order of a set, or the date?): "
                + _where(text, elsewhere)
            )
        return self._book.ok("its shared part is the same each time, in this process and in another.")

    def _cacheable(self) -> Iterator[Finding]:
        markers = list(_markers(self._shared))
        if not markers:
            yield self._book.warning(
                "its shared part has no cache_control, so each request pays for it in full: put one on its last block."
            )
            return
        if any(marker.get("ttl") != "1h" for marker in markers):
            yield self._book.warning(
                'a cache_control is not for an hour, and a batch may take longer than five minutes: say "ttl": "1h".'
            )
        model = str(self._shared["model"])
        least = min_cacheable(model)
        if least is None:
            yield self._book.warning(f"nobody knows from how many tokens on model '{model}' caches, or what it costs.")
            return
        tokens = self._prefix_tokens()
        words = f"its shared part has about {tokens:,} tokens with these settings; {model} caches from {least:,} on"
        if tokens < least:
            yield self._book.warning(f"{words}: nothing is cached, and each request pays for it in full.")
        else:
            yield self._book.ok(f"{words}.")

    def _prefix_tokens(self) -> int:
        """About how many tokens come before the messages, as the sandbox counts them."""
        nothing = {"model": self._shared["model"], "messages": [{"role": "user", "content": "."}]}
        parts: dict[str, Any] = {
            name: self._shared[name] for name in ("tools", "system", "output_config") if name in self._shared
        }

        def count(params: dict[str, Any]) -> int:
            return int(self._sandbox.call("POST", "/v1/messages/count_tokens", params)["input_tokens"])

        try:
            return count({**nothing, **parts}) - count(nothing)
        except OSError:  # what the sandbox refuses here it refuses with the requests, and says so there
            return len(json.dumps(parts)) // 4

    # -- requests ----------------------------------------------------------------------------------------------

    def _samples(self, own: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Records to ask about, by what each is; one of the author's own is of a kind that the task takes."""
        if not own:
            return {what: record for kind in self._kinds for what, record in samples.records(kind).items()}
        kind = next((kind for kind in self._kinds if kind != "image"), "image")
        return {what: {**record, "kind": kind, "image": kind == "image"} for what, record in own.items()}

    def _requests(self, own: Mapping[str, dict[str, Any]]) -> Iterator[Finding]:
        faults: list[str] = []
        refusals: dict[str, list[str]] = {}
        for what, record in self._samples(own).items():
            made = self._ask(self._first, "own", subject=record)
            if "text" in made:
                self._asked[what], self._records[what] = json.loads(made["text"]), record
                if made["changed"]:
                    faults.append("request_params changes its settings, which all records share.")
            elif "refused" in made:
                refusals.setdefault(str(made["refused"]), []).append(what)
            else:
                begins = f"Task '{self._task}', record '{record['key']}': "
                faults.append(f"{what}: {_fault(made, 'request_params failed').removeprefix(begins)}")
        for why, whats in refusals.items():
            yield self._book.ok(f"it asks nothing about {' and '.join(whats)}: {why.rstrip('.')}.")
        if self._asked:
            # One that raises fails only its own record, as InputError would, and says less.
            hint = "Where a record cannot be asked about, raise InputError and say why."
            for fault in faults:
                yield self._book.warning(f"{fault} {hint}")
        elif faults:
            yield from self._book.problems(faults)
        else:
            yield self._book.warning(
                "not tried further: it asks about none of the records. Give others with --records."
            )

    # -- answers -----------------------------------------------------------------------------------------------

    def _answers(self) -> Iterator[Finding]:
        names = dict(enumerate(self._asked))
        requests = {str(at): {**self._shared, **self._asked[what]} for at, what in names.items()}
        try:
            results = road.results_of(self._sandbox.url, requests)
        except ApiError as error:
            yield self._book.problem(f"the sandbox refuses its requests: {error}")
            return
        refused, good = [], {}
        for at, what in names.items():  # results come back in any order
            result = results[str(at)]
            if result["type"] == "succeeded":
                good[what] = result["message"]
            else:
                refused.append(f"the sandbox refuses its request about {what}: {result['error']['error']['message']}")
        yield from self._book.problems(refused)
        if not good:
            return
        if not refused:
            yield self._book.ok(f"the sandbox takes its requests, and answers {len(good)}.")
        yield from self._processing(good)

    def _processing(self, good: Mapping[str, dict[str, Any]]) -> Iterator[Finding]:
        trouble = _Trouble()
        for what, message in good.items():
            answer = self._process(trouble, what, f"the answer about {what}", message)
            if "invalid" in answer:
                yield self._book.warning(f"the sandbox's answer about {what} is no use to it: {answer['invalid']}.")
        what, message = next(iter(good.items()))
        count = 0
        for name, bad in nasty.messages(message):
            self._process(trouble, what, name, bad)
            count += 1
        yield from trouble.findings(self._book, count)

    def _process(self, trouble: _Trouble, what: str, name: str, message: dict[str, Any]) -> dict[str, Any]:
        given = {"subject": self._records[what], "message": message}
        try:
            answer = self._ask(self._first, "process", **given)
            again = self._ask(self._first, "process", **given)
            elsewhere = self._ask(self._second, "process", **given)
        except Broke as broke:
            raise Broke(f"of {name} {broke}") from None
        trouble.see(name, answer, again, elsewhere)
        return answer


class _Trouble:
    """What was seen of a processor that is against the contract."""

    def __init__(self) -> None:
        self._raised: list[str] = []
        self._varied: list[str] = []
        self._touched: list[str] = []
        self._changed: list[str] = []

    def see(self, name: str, answer: dict[str, Any], again: dict[str, Any], elsewhere: dict[str, Any]) -> None:
        if "output" not in answer and "invalid" not in answer:
            self._raised.append(f"process, given {name}: {_fault(answer, 'it failed')}")
        elif len(answer.get("output", "")) > MOST_OUTPUT:
            self._raised.append(
                f"process, given {name}: its output is larger than the {MOST_OUTPUT:,} bytes that are kept"
            )
        elif not _made(answer) == _made(again) == _made(elsewhere):
            self._varied.append(f"process says another thing when it runs again, given {name}: it must be pure.")
        self._touched += [f"process is not pure, it opens something: {what}." for what in answer.get("touched", ())]
        self._changed += [f"process changes its {what}." for what in answer.get("changed", ())]

    def findings(self, book: Book, count: int) -> Iterator[Finding]:
        """
        :param count: of nasty answers that it was given.
        """
        yield from book.problems(self._raised)
        if not self._raised:
            yield book.ok(f"process makes an output, or says why not, of each of {count} nasty answers.")
        for faults in (self._varied, self._touched, self._changed):
            yield from book.problems(faults)
        if not (self._varied or self._touched or self._changed):
            yield book.ok("process is pure: the same again, no file, no socket, and its arguments as they were.")


def _made(answer: dict[str, Any]) -> Any:
    """What it came to; the words of a refusal are for people and may be any."""
    return answer.get("output", "invalid" in answer)


def _fault(answer: Mapping[str, Any], otherwise: str) -> str:
    words = answer.get("refused") or answer.get("problem")
    return str(words) if words else f"{otherwise}.\n{answer.get('failed', '')}".rstrip()


def _markers(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("cache_control"), dict):
            yield value["cache_control"]
        for part in value.values():
            yield from _markers(part)
    elif isinstance(value, list):
        for part in value:
            yield from _markers(part)


def _where(one: str, other: str | None) -> str:
    """Where two texts begin to differ."""
    if other is None:
        return "it fails."
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"…{one[max(0, at - 30) : at + 30]}… and …{other[max(0, at - 30) : at + 30]}…"
