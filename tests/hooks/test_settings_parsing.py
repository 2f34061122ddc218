"""Settings as people write them become a task's settings, or every fault is named at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator, model_validator

from webapp.errors import InputError, PluginError
from webapp.hooks import Registry, Task


class Settings(BaseModel):
    count: int = Field(default=3, ge=1, le=9)
    share: float = 0.5
    loud: bool = False
    tags: list[str] = []
    sizes: Annotated[tuple[int, ...] | None, Field(max_length=3)] = None
    mode: Literal["fast", "slow"] = "fast"
    note: str | None = None
    title: str = Field(default="", alias="Heading")

    @field_validator("note")
    @classmethod
    def _note(cls, note: str | None) -> str | None:
        if note == "bad":
            raise ValueError("'bad' is no note.")
        if note == "crash":
            raise KeyError(note)
        return note

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.loud and self.mode == "slow":
            raise ValueError("loud and slow do not go together")
        return self


class Stub(Task[Settings]):
    name = "stub"
    Settings = Settings


def parse(**raw: Any) -> Settings:
    settings = Registry().parse_settings(Stub(), raw)
    assert isinstance(settings, Settings)
    return settings


def fault(**raw: Any) -> str:
    with pytest.raises(InputError) as caught:
        parse(**raw)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "5", 5),
        ("share", "0.25", 0.25),
        ("loud", "true", True),
        ("loud", "no", False),
        ("mode", "slow", "slow"),
        ("note", "a, b", "a, b"),
        ("note", "", None),
        ("title", "Hello", "Hello"),
        ("title", "", ""),
        ("tags", "a,b", ["a", "b"]),
        ("tags", " a , b ", ["a", "b"]),
        ("tags", '"news, local", sport', ["news, local", "sport"]),
        ("tags", "", []),
        ("tags", "grün,🙂", ["grün", "🙂"]),
        ("sizes", "1, 2", (1, 2)),
        ("sizes", "", None),
    ],
)
def test_text_is_read_as_the_type_of_its_field(name: str, text: str, value: object) -> None:
    assert getattr(parse(**{name: text}), name) == value


def test_values_that_are_typed_already_are_taken_as_they_are() -> None:
    stored = parse(count="4", tags="a,b", sizes="1").model_dump(mode="json")
    assert parse(**stored) == parse(count=4, tags=["a", "b"], sizes=(1,))


def test_an_unknown_setting_names_the_closest() -> None:
    words = fault(cuont="1")
    assert "setting 'cuont' is unknown. Did you mean 'count'? Known settings: count, share, loud" in words


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"count": "many"}, "setting 'count' is 'many': "),
        ({"count": "many"}, "Allowed: a whole number, at least 1, at most 9; default 3."),
        ({"count": "12"}, "less than or equal to 9"),
        ({"share": "half"}, "Allowed: a number; default 0.5."),
        ({"loud": "perhaps"}, "Allowed: true or false; default False."),
        ({"mode": "medium"}, "Allowed: one of fast, slow; default fast."),
        ({"tags": "a,,b"}, "'a,,b' has an empty value between its commas"),
        ({"tags": "a,"}, "has an empty value"),
        ({"tags": '"a'}, "is not a comma-separated list"),
        ({"tags": "a\nb"}, "is not a comma-separated list on one line"),
        ({"sizes": "1,x"}, "setting 'sizes' (1) is 'x'"),
        ({"sizes": "1,2,3,4"}, "at most 3 of them"),
        ({"note": "bad"}, "setting 'note': 'bad' is no note."),
        ({"loud": "1", "mode": "slow"}, "loud and slow do not go together"),
    ],
)
def test_a_fault_names_the_setting_and_what_is_allowed(raw: dict[str, str], words: str) -> None:
    assert words in fault(**raw)


def test_every_fault_is_named_at_once_and_each_only_once() -> None:
    words = fault(cuont="1", share="half", tags="a,,b")
    assert [name for name in ("cuont", "share", "tags") if words.count(f"setting '{name}'") == 1] == [
        "cuont",
        "share",
        "tags",
    ]


def test_a_check_of_the_plugin_that_breaks_names_the_task() -> None:
    with pytest.raises(PluginError, match="Task 'stub': checking its settings raised KeyError"):
        parse(note="crash")
