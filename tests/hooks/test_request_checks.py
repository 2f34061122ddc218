"""What a task asks for is checked before anything is sent, and whoever broke it is named."""

from __future__ import annotations

from typing import Any

import pytest

from webapp.errors import InputError, InvalidOutput, PluginError
from webapp.hooks import Image, Message, ModelSettings, Subject, Task, calls
from webapp.hooks.checks import FORBIDDEN, check_own, check_shared

SHARED: dict[str, Any] = {"model": "claude-haiku-5-5", "max_tokens": 10}
CACHED: dict[str, Any] = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
OWN: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
IMAGE = Image("ab" * 32, "image/png", 2, 3)
SUBJECT = Subject("document", "k1", {"a": 1}, text="hi")


class Stub(Task[ModelSettings]):
    """Does what its attributes say: each may be a value to return or an exception to raise."""

    name = "stub"
    Settings = ModelSettings
    shared: object = SHARED
    own: object = OWN
    output: object = "fine"

    def shared_params(self, settings: ModelSettings) -> Any:
        return self._do(self.shared)

    def request_params(self, subject: Subject, settings: ModelSettings) -> Any:
        return self._do(self.own)

    def process(self, subject: Subject, message: Message, settings: ModelSettings) -> Any:
        return self._do(self.output)

    def _do(self, what: object) -> object:
        if isinstance(what, BaseException):
            raise what
        return what


def stub(**what: object) -> Stub:
    task = Stub()
    for name, value in what.items():
        setattr(task, name, value)
    return task


def shared(task: Stub) -> Any:
    return calls.shared_params(task, ModelSettings())


def own(task: Stub) -> Any:
    return calls.request_params(task, SUBJECT, ModelSettings(), SHARED)


def process(task: Stub) -> Any:
    return calls.process(task, SUBJECT, Message({}), ModelSettings())


def test_sound_parts_pass_unchanged() -> None:
    assert shared(stub()) is SHARED
    assert own(stub()) is OWN


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_a_parameter_that_a_batch_cannot_take_is_refused_in_both_parts(name: str) -> None:
    """I17: a temperature, say, is a 400 on newer models and versions of the API."""
    with pytest.raises(PluginError, match=f"Task 'stub': shared_params gives '{name}': .*Leave it out"):
        shared(stub(shared={**SHARED, name: None}))
    with pytest.raises(PluginError, match=f"Task 'stub', record 'k1': request_params gives '{name}': "):
        own(stub(own={**OWN, name: None}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, "must give 'model'"),
        ({"model": ""}, "must give 'model'"),
        ({"max_tokens": 0}, "must give 'max_tokens'"),
        ({"max_tokens": "10"}, "must give 'max_tokens'"),
        ({"max_tokens": True}, "must give 'max_tokens'"),
        ({"system": [IMAGE.block()]}, "holds an image of a record"),
        ({"system": [CACHED] * 5}, "has 5 cache_control markers"),
        ({"metadata": {"at": {1}}}, "at metadata.at is of type set, which JSON cannot hold"),
        ({"metadata": {"at": [0.0, float("nan")]}}, "at metadata.at\\[1\\] is nan"),
        ({"metadata": {1: 2}}, "at metadata has the key 1"),
    ],
)
def test_a_shared_part_that_cannot_be_sent_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        check_shared({**SHARED, **change})


@pytest.mark.parametrize("part", [None, [], "model", ModelSettings()])
def test_a_part_that_is_no_dict_is_refused(part: object) -> None:
    with pytest.raises(PluginError, match="not a dict of request parameters"):
        check_shared(part)


def test_a_key_in_both_parts_is_refused() -> None:
    with pytest.raises(PluginError, match="gives 'max_tokens', 'model', which shared_params gives too"):
        check_own({**OWN, **SHARED}, SHARED)


@pytest.mark.parametrize("messages", [None, [], "hi", {}])
def test_an_own_part_without_messages_is_refused(messages: object) -> None:
    with pytest.raises(PluginError, match="must give 'messages'"):
        check_own({"messages": messages}, SHARED)


def test_an_own_part_that_comes_before_the_cached_one_is_refused() -> None:
    with pytest.raises(PluginError, match="gives 'tools', which comes before or into the cached part"):
        check_own({**OWN, "tools": []}, {**SHARED, "system": [CACHED]})
    check_own({**OWN, "tools": []}, SHARED)


def test_an_image_is_taken_where_its_base64_goes_and_nowhere_else() -> None:
    check_own({"messages": [{"role": "user", "content": [IMAGE.block()]}]}, SHARED)
    with pytest.raises(PluginError, match="is of type Image"):
        check_own({"messages": [{"role": "user", "content": [IMAGE]}]}, SHARED)


def test_a_method_that_raises_is_named_with_its_line() -> None:
    broken = KeyError("colour")
    for call, task in [(shared, stub(shared=broken)), (own, stub(own=broken))]:
        with pytest.raises(PluginError, match=r"_params raised KeyError: 'colour' \(.*test_request_checks.py, line"):
            call(task)


def test_a_method_that_exits_does_not_stop_the_worker() -> None:
    with pytest.raises(PluginError, match="raised SystemExit"):
        own(stub(own=SystemExit(1)))
    with pytest.raises(InvalidOutput, match="raised SystemExit"):
        process(stub(output=SystemExit(1)))


def test_an_interrupt_of_the_host_passes_through() -> None:
    class TimeIsUp(BaseException):
        pass

    for call, task in [
        (shared, stub(shared=TimeIsUp())),
        (own, stub(own=TimeIsUp())),
        (process, stub(output=TimeIsUp())),
    ]:
        with pytest.raises(TimeIsUp):
            call(task)


def test_a_record_that_cannot_be_asked_about_keeps_its_reason() -> None:
    with pytest.raises(InputError, match=r"^too short$"):
        own(stub(own=InputError("too short")))


def test_parameters_nested_too_deep_are_the_plugins_fault() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PluginError, match="RecursionError"):
        own(stub(own={"messages": [deep]}))
    while deep:  # taken apart by hand: freeing it whole would recurse just as deep
        deep = deep.pop()


def test_an_output_is_any_json_value() -> None:
    for output in (None, 1, "a\x00\ud800", [1.5, {"a": True}]):
        assert process(stub(output=output)) == output


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (InvalidOutput("no use"), "^no use$"),
        (ValueError("odd"), "the processor of task 'stub' raised ValueError: odd"),
        ({1, 2}, "the output of task 'stub' is of type set"),
        (float("inf"), "is inf"),
        ({"at": object()}, "at at is of type object"),
    ],
)
def test_a_processor_that_fails_makes_the_output_invalid(output: object, words: str) -> None:
    with pytest.raises(InvalidOutput, match=words):
        process(stub(output=output))
