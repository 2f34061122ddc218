"""Starting a run at the dashboard: dataset, task, settings, preview, start; and repeating one."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from PIL import Image as Picture
from support.audit import audit
from support.desk import DeskDriver, documents
from support.forms import fields
from support.sandbox import Sandbox
from support.visitor import Visitor

from webapp.runs import preview

NEW = "/runs/new?dataset=1&task=classify"
LABELS = {"set-labels": "alpha, beta"}

WIDE = """
from typing import Any, Literal
from enum import Enum
from pydantic import BaseModel, Field, model_validator
from webapp.errors import InputError
from webapp.hooks import ModelSettings, Task, hookimpl

class Tone(Enum):
    DRY = "dry"
    WARM = "warm"

class Inner(BaseModel):
    depth: int = 2

class WideSettings(ModelSettings):
    tone: Tone = Tone.DRY
    level: Literal[1, 2] = 1
    prompt: str = Field(default="", max_length=4000, title="What to say", description="<b>Words</b> for it.")
    share: float = Field(default=0.5, ge=0, le=1)
    strict: bool = True
    loud: bool | None = None
    sizes: list[int] = []
    inner: Inner = Inner()
    needed: dict[str, Any]

    @model_validator(mode="after")
    def _together(self):
        if self.loud and self.strict:
            raise ValueError("loud and strict do not go together")
        return self

class Wide(Task[WideSettings]):
    name = "wide"
    title = "<i>Wide</i>"
    Settings = WideSettings

    def shared_params(self, settings):
        if settings.prompt == "impossible":
            raise InputError("nobody can ask that")
        return settings.base_params()

    def request_params(self, subject, settings):
        if subject.key == "doc-1":
            raise InputError("<u>this</u> record cannot be asked about")
        return {"messages": [{"role": "user", "content": subject.text}]}

    def process(self, subject, message, settings):
        return message.text

@hookimpl
def register_tasks():
    return [Wide()]
"""


def words(page: str) -> str:
    """A page's text, on one line."""
    return re.sub(r" ([,.:)?])", r"\1", " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split()))


def send(operator: Visitor, path: str, do: str, **given: str) -> str:
    response = operator.send(path, do=do, **given)
    assert response.status_code == 200, response.text
    return response.text


def test_a_run_is_started_from_the_first_page_to_the_last(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox
) -> None:
    desk.run(documents(5), task="summarise")
    assert 'href="/runs/new"' in operator.get("/") and 'href="/runs/new"' in operator.get("/runs/")
    page = operator.get("/runs/new")
    assert "docs #1 5 documents" in words(page) and "/runs/new?dataset=1" in page
    page = operator.get("/runs/new?dataset=1")
    assert "classify, version 2 · takes document" in words(page)
    assert "takes image, and these are of kind document" in words(page)
    form = fields(operator.get(NEW))
    assert form["set-model"] and form["set-labels"] == "" and "over" not in form, "nothing was asked before"

    page = send(operator, NEW, "preview", **form | LABELS)
    told = words(page)
    assert "5 requests, all of the dataset" in told and "Batches 1 batch, " in told
    assert "The sandbox answers: it costs nothing" in told or "This costs money" in told
    assert "The requests of 3 subjects" in told
    assert all(f"doc-{n} record {n + 1}" in told for n in (0, 2, 4))
    assert "<document>\\nText 0 about beta." in unescape(page) and '"custom_id": "(made when planned)"' in unescape(
        page
    )
    assert desk.scalar("SELECT count(*) FROM runs") == 1, "a preview stores nothing"

    again = fields(page)
    assert again["set-labels"] == "alpha, beta"
    first = operator.send(NEW, **again | {"do": "start"})
    second = operator.send(NEW, **again | {"do": "start"})  # the second click of a double click
    assert first.status_code == second.status_code == 303
    assert first.headers["Location"] == second.headers["Location"] == "/runs/2/"
    assert desk.scalar("SELECT count(*) FROM runs") == 2
    desk.work_until_over(2)
    sent = desk.scalar("SELECT body_bytes FROM batches WHERE run_id = 2")
    assert f"{sent / 1000:.1f} kB in all" in told, "what was foretold was sent"
    assert desk.summary(2).succeeded == 5
    audit(desk, sandbox)


def test_a_wrong_setting_is_said_at_its_field_and_nothing_typed_is_lost(operator: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(2), task="summarise")
    form = fields(operator.get(NEW)) | {"set-labels": "only <one>", "set-max_tokens": "0", "set-model": "mine"}
    page = send(operator, NEW, "preview", **form)
    assert fields(page)["set-labels"] == "only <one>" and fields(page)["set-model"] == "mine"
    beside = re.search(r'id="set-labels-faults"[^>]*>([^<]*)<', page)
    assert beside and "at least two labels" in beside[1]
    assert "greater than or equal to 1" in words(page) and page.count('aria-invalid="true"') == 2
    page = send(operator, NEW, "preview", **form | {"set-labels": ""})
    assert "Is required. Allowed: a comma-separated list of text." in words(page)
    page = send(operator, NEW, "preview", **form | {"set-labels": "a b\nc, d\n", "set-max_tokens": "9"})
    assert '["a b","c, d"]' in unescape(page).replace("\n", "").replace("    ", "").replace("  ", "")
    page = send(operator, NEW, "change", **fields(page))
    assert fields(page)["set-labels"] == "a b\nc, d\n" and fields(page)["set-max_tokens"] == "9"
    assert desk.scalar("SELECT count(*) FROM runs") == 1


def test_each_type_of_setting_has_its_control(operator: Visitor, desk: DeskDriver, tmp_path: Path) -> None:
    run_id = desk.run(documents(3), task="summarise")
    desk.use_plugin(tmp_path / "own", WIDE)
    path = "/runs/new?dataset=1&task=wide"
    page = operator.get(path)
    for control in (
        '<select aria-describedby="set-tone-words" id="set-tone" name="set-tone"><option selected value="dry">',
        '<option selected value="1">',
        '<input aria-describedby="set-share-words" autocomplete="off" id="set-share" max="1" min="0"',
        '<textarea aria-describedby="set-prompt-words"',
        '<option selected value="">Not set</option>',
        "What to say",
        "&lt;b&gt;Words&lt;/b&gt; for it.",
        "Written as JSON.",
    ):
        assert control in page.replace(' selected=""', " selected"), control
    assert "&lt;i&gt;Wide&lt;/i&gt;" in page and "Not in this form, and left as it is: inner." in words(page)
    form = fields(page)
    assert form["set-strict"] == "true" and form["set-sizes"] == ""

    form |= {"set-level": "2", "set-tone": "warm", "set-sizes": "1,2", "set-loud": "true", "set-needed": '{"a": 1}'}
    page = send(operator, path, "preview", **form)
    assert "loud and strict do not go together" in words(page)
    page = send(operator, path, "preview", **form | {"set-strict": "false", "set-needed": "{"})
    assert "valid dictionary" in words(page) and fields(page)["set-needed"] == "{"
    page = send(operator, path, "preview", **form | {"set-strict": "false", "set-prompt": "impossible"})
    assert "nobody can ask that" in words(page)
    page = send(operator, path, "preview", **form | {"set-strict": "false"})
    assert "1 cannot be sent: its record fails at planning, and costs nothing." in words(page)
    assert "&lt;u&gt;this&lt;/u&gt; record cannot be asked about" in page
    operator.post(path, **fields(page) | {"do": "start"})
    stored = desk.scalar("SELECT settings::text FROM runs WHERE id > :id", id=run_id)
    assert stored.endswith(
        '"tone":"warm","level":2,"prompt":"","share":0.5,"strict":false,"loud":true,"sizes":[1,2],'
        '"inner":{"depth":2},"needed":{"a":1}}'
    )


def test_a_preview_shows_the_subject_that_is_asked_for(operator: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(9), task="summarise")
    page = send(operator, NEW, "preview", **fields(operator.get(NEW)) | LABELS | {"key": "doc-7"})
    assert "The requests of 1 subject" in words(page) and "doc-7 record 8" in words(page)
    page = send(operator, NEW, "preview", **fields(page) | {"key": "doc-<99>"})
    assert "has the key “doc-<99>”" in words(page) and "The requests of 3 subjects" in words(page)


def test_a_preview_of_many_subjects_says_that_it_estimates(operator: Visitor, desk: DeskDriver) -> None:
    desk.change(batch_max_requests=100)
    desk.start(documents(preview.BUILT * 3), task="summarise")
    told = words(send(operator, NEW, "preview", **fields(operator.get(NEW)) | LABELS))
    assert "600 requests, all of the dataset" in told and "about 6 batches, about" in told
    assert re.search(r"Estimated by building 20\d requests out of all\.", told)
    assert "Run #1 of this task" not in told, "it is another task's"
    assert "Run #1 of this task over this dataset is still under way" in words(
        send(operator, "/runs/new?repeat=1", "preview", **fields(operator.get("/runs/new?repeat=1")))
    )


def test_images_are_a_note_of_their_size_in_a_preview(operator: Visitor, desk: DeskDriver, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(2):
        Picture.new("RGB", (8, 8), (n, n, n)).save(pictures / f"{n}.png")
    desk.start_folder(pictures, "alt_text")
    page = operator.get("/runs/new?repeat=1")
    page = send(operator, "/runs/new?repeat=1", "preview", **fields(page) | {"over": "all"})
    assert "(image/png, " in page and "as base64)" in page and "blob:" not in page
    assert "takes records of kind document; those of this dataset are of kind image" in words(
        operator.get("/runs/new?dataset=1&task=classify")
    )
    assert "#1" not in words(operator.get("/runs/new?task=classify")).split("Choose a dataset")[1]


def test_a_run_is_repeated_over_what_is_older_than_its_settings(
    operator: Visitor, desk: DeskDriver, sandbox: Sandbox
) -> None:
    sandbox.configure(invalid_share=0.5)
    run_id = desk.run(documents(20), labels="alpha,beta")
    failed = desk.summary(run_id).errored
    sandbox.configure(invalid_share=0)
    assert 0 < failed < 20
    path = f"/runs/new?repeat={run_id}"
    assert path in unescape(operator.get(f"/runs/{run_id}/"))
    page = operator.get(path)
    assert fields(page)["set-labels"] == "alpha,beta" and fields(page)["over"] == "all"
    assert f"Only those whose output is older than the settings: {failed} subjects" in words(page)

    page = send(operator, path, "preview", **fields(page) | {"over": "stale"})
    assert f"{failed} requests, those without an output of these settings" in words(page)
    operator.post(path, **fields(page) | {"do": "start"})
    desk.work_until_over(run_id + 1)
    assert desk.summary(run_id + 1).requests == desk.summary(run_id + 1).succeeded == failed
    assert "those without an output of its settings" in words(operator.get(f"/runs/{run_id + 1}/"))

    page = send(operator, path, "preview", **fields(operator.get(path)) | {"over": "stale"})
    assert "There is nothing to start: every subject has an output of these settings." in words(page)
    assert 'value="start"' not in page
    page = send(operator, path, "start", **fields(page))
    assert "every subject has an output of these settings already" in words(page)
    page = send(operator, path, "preview", **fields(page) | {"over": "stale", "set-labels": "alpha,gamma"})
    assert "20 requests" in words(page), "other settings: all outputs are older"
    audit(desk, sandbox)


def test_what_does_not_exist_is_not_found_and_nonsense_is_said(operator: Visitor, desk: DeskDriver) -> None:
    assert "There are no records yet" in words(operator.get("/runs/new"))
    desk.run(documents(2))
    for path in ("/runs/new?dataset=99", "/runs/new?repeat=99", "/schedules/new?dataset=99"):
        assert operator.open(path).status_code == 404, path
    assert "it is a number" in operator.get("/runs/new?dataset=x")
    assert "cannot be “nothing”" in operator.get("/runs/new?dataset=1&task=nothing")
    assert "has “zebra” in its name" in words(operator.get("/runs/new?q=zebra"))
    form = fields(operator.get(NEW)) | LABELS
    assert operator.send(NEW, **form, do="start").status_code == 400, "without a token"
    desk.desk.registry = type(desk.desk.registry)()
    assert "The task classify of run 1 is not installed" in words(operator.get("/runs/new?repeat=1"))


def test_a_viewer_starts_nothing(viewer: Visitor, desk: DeskDriver) -> None:
    desk.run(documents(2))
    for path in ("/", "/runs/", "/runs/1/", "/schedules/"):
        page = viewer.get(path)
        assert "/runs/new" not in page and "/schedules/new" not in page, path
    for path in (NEW, "/schedules/new"):
        viewer.get(path, 403)
        assert viewer.send(path, do="start").status_code == 403
