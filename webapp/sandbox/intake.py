"""Takes in the body of a create: checks it as it arrives, spills it, draws each request's fate.

The create route calls `take_in`. What it refuses is refused for the whole batch, with the API's own texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, BinaryIO

from .body import Element, RequestSplitter
from .caching import TTL_SECONDS
from .checks import check_params
from .config import SandboxConfig
from .fates import COUNTED_AS, Fate, draw_fate
from .hashing import number
from .models import find_model
from .store import BatchFiles, Row, pack_row
from .tokens import find_prefixes

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SPAN = float(1 << 32)


class BatchRefused(ValueError):
    """The whole batch is refused; the text is the API's."""


class Intake:
    """What is known of a batch once its body was read."""

    def __init__(self, config: SandboxConfig, version: str, betas: tuple[str, ...]) -> None:
        self._config, self._version, self._betas = config, version, betas
        self.total = 0
        self.planned: Counter[str] = Counter()
        #: Keys of the prompt-cache prefixes that will be written, and the seconds each lives.
        self.prefixes: dict[bytes, int] = {}
        self._seen: set[str] = set()
        self._duplicate: str | None = None
        self._refusal: str | None = None

    def take_in(self, read: Callable[[int], bytes], files: BatchFiles) -> None:
        """Read a body to its end and write the files of its batch.

        :raises BatchRefused: the requests are not acceptable.
        :raises InvalidJson: the body is not JSON.
        :raises BodyTooLarge: it is over the configured limit.
        """
        with files.body.open("wb") as body, files.index.open("wb") as index, files.ids.open("wb") as ids:
            splitter = RequestSplitter(read, body, self._config.max_body_bytes)
            for element in splitter:
                self._take(element, index, ids)
        refusal = self._shape_refusal(splitter) or self._refusal
        if refusal is None and self._duplicate is not None:
            refusal = (
                f"requests: custom_id's must be unique within a batch. Duplicate custom_id found: {self._duplicate}"
            )
        if refusal is not None:
            raise BatchRefused(refusal)

    def _shape_refusal(self, splitter: RequestSplitter) -> str | None:
        if splitter.shape == "other":
            return "Input should be a valid dictionary or object to extract fields from"
        if splitter.shape == "no list":
            return "requests: Input should be a valid list"
        if "requests" not in splitter.keys:
            return "requests: Field required"
        extra = next((key for key in splitter.keys if key != "requests"), None)
        if extra is not None:
            return f"{extra}: Extra inputs are not permitted"
        if not self.total:
            return "requests: List should have at least 1 item after validation, not 0"
        most = self._config.max_requests
        if self.total > most:
            return f"requests: List should have at most {most} items after validation, not {self.total}"
        return None

    def _take(self, element: Element, index: BinaryIO, ids: BinaryIO) -> None:
        at = self.total
        self.total += 1
        if self._refusal is not None:
            return
        self._refusal = _refusal(element.value, at)
        if self._refusal is not None:
            return
        custom_id: str = element.value["custom_id"]
        if custom_id in self._seen:
            self._duplicate = self._duplicate or custom_id
        self._seen.add(custom_id)
        drawn = number(custom_id)
        fate = self._fate(element, (drawn >> 32) / _SPAN)
        self.planned[COUNTED_AS[fate]] += 1
        index.write(pack_row(Row(element.offset, element.length, drawn & 0xFFFFFFFF, fate)))
        ids.write(custom_id.encode() + b"\n")

    def _fate(self, element: Element, chance: float) -> Fate:
        params: dict[str, Any] = element.value["params"]
        if check_params(params, self._version, self._betas, element.length) is not None:
            return Fate.REJECTED
        fate = draw_fate(self._config, chance)
        if fate in (Fate.SUCCEEDED, Fate.NASTY):
            self._note_prefixes(params)
        return fate

    def _note_prefixes(self, params: dict[str, Any]) -> None:
        model = find_model(params["model"])
        assert model is not None
        for prefix in find_prefixes(params, model):
            seconds = TTL_SECONDS[prefix.ttl]
            if self.prefixes.get(prefix.key, 0) < seconds:
                self.prefixes[prefix.key] = seconds


def _refusal(request: Any, at: int) -> str | None:
    """Why a request makes the whole batch refused, or None."""
    place = f"requests.{at}"
    if not isinstance(request, dict):
        return f"{place}: Input should be a valid dictionary or object to extract fields from"
    if "custom_id" not in request:
        return f"{place}.custom_id: Field required"
    custom_id = request["custom_id"]
    if not isinstance(custom_id, str):
        return f"{place}.custom_id: Input should be a valid string"
    if len(custom_id) > 64:
        return f"{place}.custom_id: String should have at most 64 characters"
    if not custom_id:
        return f"{place}.custom_id: String should have at least 1 character"
    if not _CUSTOM_ID.fullmatch(custom_id):
        return f"{place}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
    if "params" not in request:
        return f"{place}.params: Field required"
    if not isinstance(request["params"], dict):
        return f"{place}.params: Input should be a valid dictionary or object to extract fields from"
    extra = next((key for key in request if key not in ("custom_id", "params")), None)
    return f"{place}.{extra}: Extra inputs are not permitted" if extra is not None else None
