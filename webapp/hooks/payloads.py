"""What plugins are given: a record, its image, and the model's answer, all frozen.
The host makes them from rows; plugins only read them, and tests of plugins may make their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from webapp.errors import InputError, InvalidOutput

M = TypeVar("M", bound=BaseModel)

_INCOMPLETE = {
    "refusal": "the model declined to answer",
    "max_tokens": "the answer was cut at max_tokens: raise max_tokens (thinking counts in it) and ask again",
    "pause_turn": "the answer stopped in the middle of a server tool's turn (pause_turn): let the task do "
    "with fewer tool calls",
    "model_context_window_exceeded": "the model's context window was full before the answer ended: shorten "
    "the record or choose a model with a larger window",
}


@dataclass(frozen=True, slots=True)
class Image:
    """A stored image, known by its content; its bytes never pass through a plugin."""

    sha256: str
    media_type: str
    width: int
    height: int

    def block(self) -> dict[str, Any]:
        """The content block that shows this image to the model.

        Its ``data`` is this object itself; the host writes the base64 in its place while sending.
        """
        return {"type": "image", "source": {"type": "base64", "media_type": self.media_type, "data": self}}


@dataclass(frozen=True, slots=True)
class Subject:
    """One record.

    :param kind: ``document``, ``image``, …
    :param key: the owner's id of the record, unique in its dataset.
    :param data: the record as imported, read-only.
    :param image: the record's image, if it is one.
    :param text: what stands in the record's text field, if it has one.
    """

    kind: str
    key: str
    data: Mapping[str, Any]
    image: Image | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.data, MappingProxyType):
            object.__setattr__(self, "data", MappingProxyType(self.data))

    def require_text(self) -> str:
        """The text, or InputError when there is none to ask about."""
        if self.text is None or not self.text.strip():
            raise InputError(f"record '{self.key}' has no text: name its text field, or leave the record out")
        return self.text

    def require_image(self) -> Image:
        """The image, or InputError when the record has none."""
        if self.image is None:
            raise InputError(f"record '{self.key}' has no image: import a folder of images for this task")
        return self.image


@dataclass(frozen=True, slots=True)
class Message:
    """The model's answer to a succeeded request, exactly as it came.

    Reading is lenient: what the API left out or wrote differently reads as empty, and never raises.
    """

    raw: Mapping[str, Any]

    @property
    def content(self) -> tuple[Mapping[str, Any], ...]:
        """The content blocks, whatever their types."""
        blocks = self.raw.get("content")
        return tuple(block for block in blocks if isinstance(block, dict)) if isinstance(blocks, list) else ()

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(self._texts())

    @property
    def stop_reason(self) -> str | None:
        reason = self.raw.get("stop_reason")
        return reason if isinstance(reason, str) else None

    @property
    def model(self) -> str:
        """The model that answered, by the name the API gave."""
        return str(self.raw.get("model") or "")

    @property
    def usage(self) -> Mapping[str, Any]:
        """The token counts, read-only."""
        usage = self.raw.get("usage")
        return MappingProxyType(usage if isinstance(usage, dict) else {})

    def require_complete(self) -> None:
        """Pass when the model answered and finished.

        :raises InvalidOutput: it declined, was cut, stopped half-way or said nothing.
        """
        reason = _INCOMPLETE.get(self.stop_reason or "")
        if reason is not None:
            raise InvalidOutput(reason + self._explanation())
        if not self.content:
            raise InvalidOutput("the answer has no content block")

    def structured(self, model: type[M]) -> M:
        """The answer as the pydantic model that its JSON must fit.

        :raises InvalidOutput: as `require_complete`, or no text, broken JSON, or JSON of another shape.
        """
        self.require_complete()
        text = next(iter(self._texts()), None)
        if text is None:
            raise InvalidOutput("the answer has no text block, so no JSON")
        value = _json(text)
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise InvalidOutput(f"the answer's JSON does not fit: {_faults(error)}") from None

    def _texts(self) -> list[str]:
        texts = [block.get("text") for block in self.content if block.get("type") == "text"]
        return [text for text in texts if isinstance(text, str)]

    def _explanation(self) -> str:
        details = self.raw.get("stop_details")
        words = details.get("explanation") if isinstance(details, dict) else None
        return f": {words}" if isinstance(words, str) and words else ""


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets nested thousands deep
        raise InvalidOutput(f"the answer is not JSON: {_why_not_json(error)}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _why_not_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    words = [f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}" for fault in faults[:5]]
    return "; ".join(words) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
