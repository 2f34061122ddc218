"""The fixtures that authors of plugins get: a sandbox, and a task played over records."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from webapp.errors import InputError, PluginError
from webapp.hooks import InvalidOutput, Message, ModelSettings, Registry, Subject, Task
from webapp.kit.sandboxes import Sandbox
from webapp.kit.scaffold import write_package
from webapp.kit.testing import RunTask

# The fixture itself, whatever of Batchdesk is installed where the tests run.
from webapp.kit.testing import run_task as run_task

PLUGINS = Path(__file__).parents[2] / "plugins"


class Asking(Task[ModelSettings]):
    name = "asking"
    Settings = ModelSettings

    def shared_params(self, settings: ModelSettings) -> dict[str, Any]:
        return settings.base_params()

    def request_params(self, subject: Subject, settings: ModelSettings) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": subject.require_text()}]}

    def process(self, subject: Subject, message: Message, settings: ModelSettings) -> Any:
        message.require_complete()
        if "no use" in message.text:
            raise InvalidOutput("it says so itself")
        return {"said": message.text}


def test_a_task_is_run_over_texts_in_the_sandbox(run_task: RunTask, sandbox: Sandbox) -> None:
    outcomes = run_task(Asking(), ["one", "two"], model="claude-sonnet-5-5")
    assert [(outcome.key, outcome.status) for outcome in outcomes] == [("1", "succeeded"), ("2", "succeeded")]
    assert all(outcome.output["said"] for outcome in outcomes)
    assert outcomes[1].request is not None and outcomes[1].message is not None
    assert outcomes[1].request["messages"][0]["content"] == "two"
    assert outcomes[1].message["model"] == "claude-sonnet-5-5"
    assert sandbox.bill()["total"]["requests"] == 2


def test_answers_are_given_by_key_as_text_json_or_a_message(run_task: RunTask) -> None:
    records = [{"key": key, "text": "Hello."} for key in ("text", "json", "message", "none")]
    answers = {"text": "Yes.", "json": {"a": 1}, "message": Message({"content": [], "stop_reason": "refusal"})}
    said, json, message, none = run_task(Asking(), records, answers=answers)
    assert said.output == {"said": "Yes."}
    assert json.output == {"said": '{"a": 1}'}
    assert (message.status, message.error) == ("invalid", "the model declined to answer")
    assert none.output["said"]


def test_answers_may_come_from_a_function_of_the_key(run_task: RunTask) -> None:
    outcomes = run_task(Asking(), ["one", "two"], answers=lambda key: f"It is {key}.")
    assert [outcome.output["said"] for outcome in outcomes] == ["It is 1.", "It is 2."]


def test_a_record_without_an_output_says_why_when_it_is_asked_for_it(run_task: RunTask) -> None:
    unsent, invalid = run_task(Asking(), ["", "two"], answers={"2": "of no use"})
    assert (unsent.status, unsent.request) == ("unsent", None)
    with pytest.raises(AssertionError, match=r"Record '1' has no output: it is unsent: record '1' has no text"):
        _ = unsent.output
    with pytest.raises(AssertionError, match=r"it is invalid: it says so itself"):
        _ = invalid.output


def test_what_the_api_refuses_is_shown(run_task: RunTask, sandbox: Sandbox) -> None:
    [refused] = run_task(Asking(), ["one"], model="claude-nothing")
    assert refused.status == "errored" and refused.error is not None and "claude-nothing" in refused.error
    sandbox.configure(expired_share=1)
    [expired] = run_task(Asking(), ["one"])
    assert (expired.status, expired.error) == ("expired", "the batch ended without an answer")


def test_a_plugin_is_given_by_its_path(run_task: RunTask) -> None:
    [outcome] = run_task(PLUGINS / "classify.py", ["Buy now!"], labels="spam,ham")
    assert outcome.output["label"] in ("spam", "ham")


def test_bad_settings_and_bad_plugins_fail_the_test(run_task: RunTask, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="setting 'labels' is required"):
        run_task(PLUGINS / "classify.py", ["Buy now!"])
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        run_task(tmp_path / "bad.py", ["Buy now!"])


def test_a_plugin_of_several_tasks_is_not_guessed(run_task: RunTask, tmp_path: Path) -> None:
    write_package("mood", tmp_path / "package", Registry())
    code = (tmp_path / "package" / "batchdesk_mood.py").read_text()
    other = 'class Other(Mood):\n    name = "other"\n\n\n@hookimpl'
    (tmp_path / "two.py").write_text(code.replace("@hookimpl", other).replace("[Mood()]", "[Mood(), Other()]"))
    with pytest.raises(PluginError, match=r"has not one task but mood, other: give run_task the task itself"):
        run_task(tmp_path / "two.py", ["Buy now!"])


def test_images_and_ready_subjects_are_records_too(run_task: RunTask, tmp_path: Path) -> None:
    content = BytesIO()
    Pillow.new("RGB", (20, 10)).save(content, "PNG")
    (tmp_path / "photo.png").write_bytes(content.getvalue())
    [image] = run_task(PLUGINS / "alt_text.py", [tmp_path / "photo.png"])
    assert image.key == "photo.png" and image.status == "succeeded"
    [subject] = run_task(Asking(), [Subject("document", "s", {}, text="Hello.")])
    assert (subject.key, subject.status) == ("s", "succeeded")
    (tmp_path / "no.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"no\.png: it is no image"):
        run_task(PLUGINS / "alt_text.py", [tmp_path / "no.png"])
