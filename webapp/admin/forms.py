"""The form of the settings of a task, a sink or a plugin, drawn from their schema: a control for each, with words and
faults beside it. Starting, rebuilding, schedules, destinations and plugins show it; what is typed is read by the schema
alone.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flask import abort, current_app, request
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python
from wtforms import BooleanField, Field, SelectField, StringField, TextAreaField
from wtforms.fields import SelectChoice
from wtforms.form import BaseForm
from wtforms.widgets import NumberInput

from webapp.errors import BadSettings, BatchdeskError, NotFound
from webapp.hooks import Registry, Task
from webapp.hooks.configured import Configured
from webapp.records import jsontext

PREFIX = "set-"
LONG = 200  # characters; a text that may have more gets several lines
_TOKEN = re.compile("[a-z2-7]{16}")
Make = Callable[[str, str, bool], Any]  # (label, words, whether it is required) -> a field
_NUMBERS = {"integer": "1", "number": "any"}


class Box(BooleanField):  # type: ignore[misc] # WTForms ships no types
    """A checkbox that is preceded by a hidden field, so that a form that lacks it is told from one not ticked."""

    def process_formdata(self, valuelist: list[str]) -> None:
        if valuelist:
            self.data = valuelist[-1] not in self.false_values


def asked_token() -> str:
    """The token of a form that makes a run: a double click of it makes one."""
    token = request.form.get("token", "")
    if not _TOKEN.fullmatch(token):
        abort(400, "This form is not complete. Open a fresh page and do it again.")
    return token


def registry() -> Registry:
    """The plugins of this installation."""
    found: Registry = current_app.extensions["batchdesk"].registry
    return found


def task_named(name: str) -> Task[Any] | None:
    """The installed task, if it is there."""
    try:
        return registry().task(name)
    except NotFound:
        return None


class Choice(SelectField):  # type: ignore[misc] # likewise
    """One of some values, which need not be texts."""

    def __init__(self, *arguments: Any, options: list[Any], **more: Any) -> None:
        super().__init__(*arguments, validate_choice=False, **more)
        self.options = options

    @property
    def chosen(self) -> Any:
        """The value whose text was chosen, or the text if there is none."""
        return next((option for option in self.options if str(option) == self.data), self.data)


class Lines(TextAreaField):  # type: ignore[misc] # likewise
    """A list: comma-separated on one line, or one value on each of several lines."""


class Json(TextAreaField):  # type: ignore[misc] # likewise
    """A value that is written as JSON."""


@dataclass
class SettingsForm:
    """The settings of a task, a source, a sink or a plugin as people fill them in.

    :param task: whose they are.
    :param values: what each setting is before anybody types, where it is stored.
    :param fields: the controls, by the setting's name.
    :param kept: settings that no control can show, and that stay as they are.
    :param problems: faults of several settings together.
    """

    task: Configured[Any]
    values: dict[str, Any]
    fields: BaseForm
    kept: list[str]
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, task: Configured[Any], stored: Mapping[str, Any] | None = None) -> SettingsForm:
        """The form over stored settings (those that the task no longer has are left out), with what this request says.

        A request without the form shows it as it is.
        """
        values = {name: value for name, value in (stored or {}).items() if name in task.Settings.model_fields}
        schema = _schema(task)
        controls, data, kept = {}, {}, []
        for name, info in task.Settings.model_fields.items():
            value = values[name] if name in values else _default(info)
            make = _control(schema.get(name, {}), value)
            if make is None and not info.is_required():
                kept.append(name)
                continue
            label = info.title or name.replace("_", " ").capitalize()
            controls[name] = (make or _json)(label, _words(info, schema.get(name, {})), info.is_required())
            data[name] = _written(value)
        form = BaseForm(controls, prefix=PREFIX)
        form.process(request.form if _given() else None, data=data)
        return cls(task, values, form, kept)

    @property
    def raw(self) -> dict[str, Any]:
        """What the form says, for `Registry.parse_settings`."""
        found = dict(self.values)
        for control in self.fields:
            name = control.short_name
            value = _read(control)
            # Nothing typed where something is needed is a setting that is not given.
            if value in ("", None) and self.required(name):
                found.pop(name, None)
            else:
                found[name] = value
        return found

    def required(self, name: str) -> bool:
        """Whether a setting has no default."""
        return bool(self.task.Settings.model_fields[name].is_required())

    def parse(self) -> BaseModel | None:
        """The settings; None when something is wrong with them, which the form then says where it is."""
        try:
            return registry().parse_settings(self.task, self.raw)
        except BadSettings as error:
            for name, sentence in error.faults:
                self._blame(name, sentence)
        except BatchdeskError as error:
            self.problems.append(str(error))
        return None

    def _blame(self, name: str, sentence: str) -> None:
        if name not in self.fields:
            self.problems.append(sentence)
            return
        own = sentence.removeprefix(f"setting '{name}'").lstrip(": ")
        control = self.fields[name]
        if _schema(self.task).get(name, {}).get("format") == "secret":
            control.data = ""  # it may be the secret itself, which no page repeats
        control.errors = [*control.errors, own[:1].upper() + own[1:]]


class Described(NamedTuple):
    """A setting as it is told where nobody fills it in; `default` as people write it, None where one is needed."""

    name: str
    default: str | None
    words: str
    secret: bool = False


def described(one: Configured[Any]) -> list[Described]:
    """The settings of a task, a source, a sink or a plugin."""
    schema = _schema(one)
    return [
        Described(
            name,
            None if info.is_required() else str(_written(_default(info))),
            info.description or "",
            secret=schema.get(name, {}).get("format") == "secret",
        )
        for name, info in one.Settings.model_fields.items()
    ]


def _given() -> bool:
    return any(name.startswith(PREFIX) for name in request.form)


def _schema(task: Configured[Any]) -> dict[str, Any]:
    """The JSON schema of each setting, with what it refers to put in its place; none for types that have none."""
    try:
        schema = task.Settings.model_json_schema(by_alias=False)
    except Exception:  # noqa: BLE001 - whatever a plugin's types do: its settings are then plain text
        return {}
    defs = schema.get("$defs", {})
    return {name: _resolved(part, defs) for name, part in schema.get("properties", {}).items()}


def _resolved(part: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """A setting's schema with `$ref`s followed, and with its variants but for null taken in when there is one."""
    if "$ref" in part:
        part = {**defs.get(part["$ref"].rsplit("/", 1)[-1], {}), **{k: v for k, v in part.items() if k != "$ref"}}
    variants = [_resolved(one, defs) for one in part.get("anyOf", ())]
    real = [one for one in variants if one.get("type") != "null"]
    if len(real) == 1:
        return {**part, **real[0], "nullable": len(real) < len(variants)}
    if "const" in part:
        return {**part, "enum": [part["const"]]}
    if "items" in part:
        return {**part, "items": _resolved(part["items"], defs)}
    return dict(part)


def _control(schema: Mapping[str, Any], value: Any) -> Make | None:
    """What makes the control of a setting; None: its value cannot be written as text."""
    kind = schema.get("type")
    if "enum" in schema:
        return _select(schema["enum"], nullable=bool(schema.get("nullable")))
    if kind == "boolean":
        return _select([True, False], nullable=True) if schema.get("nullable") else _box
    if kind in _NUMBERS:
        return _number(schema, _NUMBERS[kind])
    if kind == "array":
        inner = schema.get("items", {})
        return _lines if inner.get("type") in ("string", *_NUMBERS) or "enum" in inner else None
    if kind == "string":
        long = schema.get("maxLength", 0) > LONG or schema.get("format") == "textarea" or "\n" in str(value or "")
        return _text(long=long)
    if value is None or isinstance(value, str | int | float):
        return _text(long=False) if kind is None else None
    return None


def _words(info: FieldInfo, schema: Mapping[str, Any]) -> str:
    """What a setting is for, and what it is if nobody says."""
    words = [info.description or ""]
    if schema.get("format") == "secret":
        words.append("A secret: write env:NAME, the name of an environment variable of the workers that holds it.")
    if schema.get("type") == "array":
        separated = "comma" not in words[0]
        words.append(f"{'Comma-separated, or' if separated else 'Or'} each on a line of its own.")
    default = _written(_default(info))
    if default not in ("", False):
        words.append(f"Default: {default}.")
    return " ".join(one for one in words if one)


def _known(*, required: bool, **more: Any) -> dict[str, Any]:
    kept = {name: value for name, value in more.items() if value is not None}
    return {"autocomplete": "off", "spellcheck": "false"} | ({"aria-required": "true"} if required else {}) | kept


def _select(options: list[Any], *, nullable: bool) -> Make:
    def make(label: str, words: str, required: bool) -> Any:
        first = "Not set" if nullable else "Choose …"
        choices = [SelectChoice(str(option), str(option)) for option in options]
        if nullable or required:
            choices.insert(0, SelectChoice("", first))
        return Choice(label, options=options, choices=choices, description=words)

    return make


def _box(label: str, words: str, required: bool) -> Any:
    return Box(label, description=words)


def _number(schema: Mapping[str, Any], step: str) -> Make:
    def make(label: str, words: str, required: bool) -> Any:
        known = _known(required=required, min=schema.get("minimum"), max=schema.get("maximum"))
        return StringField(label, description=words, widget=NumberInput(step=step), render_kw=known)

    return make


def _text(*, long: bool) -> Make:
    def make(label: str, words: str, required: bool) -> Any:
        known = _known(required=required)
        if long:
            return TextAreaField(label, description=words, render_kw=known | {"rows": 6})
        return StringField(label, description=words, render_kw=known)

    return make


def _lines(label: str, words: str, required: bool) -> Any:
    return Lines(label, description=words, render_kw=_known(required=required, rows=2))


def _json(label: str, words: str, required: bool) -> Any:
    known = _known(required=required, rows=6)
    return Json(label, description=f"{words} Written as JSON.".strip(), render_kw=known)


def _default(info: FieldInfo) -> Any:
    """A default as it would be stored; None where there is none."""
    if info.is_required():
        return None
    try:
        return to_jsonable_python(info.get_default(call_default_factory=True), fallback=str)
    except Exception:  # noqa: BLE001 - a plugin's factory, which may need the other settings: then it is not shown
        return None


def _written(value: Any) -> Any:
    """A stored value as people write it."""
    if isinstance(value, list):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        return line.getvalue()
    if isinstance(value, dict):
        return jsontext.dumps(value).decode()
    return "" if value is None else value if isinstance(value, bool) else str(value)


def _read(control: Field) -> Any:
    """What a control says, for the schema: mostly text, which is read as the type of the setting."""
    if isinstance(control, Box):
        return bool(control.data)
    if isinstance(control, Choice):
        return control.chosen
    text = "" if control.data is None else str(control.data).replace("\r\n", "\n")
    if isinstance(control, Lines) and "\n" in text.strip():
        return [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(control, Json) and text.strip():
        with suppress(ValueError):
            return jsontext.loads(text)
    return text
