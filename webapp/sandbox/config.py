"""What the sandbox can be asked to do: one frozen record, read from ``name=value`` text or JSON.

The command line, the control endpoints and tests make one; every other module of the sandbox only reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from .faults import FaultQueue

_SHARES = ("errored_share", "overloaded_share", "invalid_share", "expired_share", "missing_share", "nasty_share")


class SandboxConfigError(ValueError):
    """A name is unknown or a value is no use; the text says which and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """How the sandbox behaves. What concerns a batch is frozen into it when it is created.

    Shares are parts of 1, chosen by a hash of the ``custom_id``: the same id always fares the same, and the
    same work under another id may fare otherwise. Lists of faults are explained in ``faults.py``.
    """

    #: Seconds from creation until a batch ends. Over 86,400 it expires: what was not reached by then is lost.
    delay: float = 2.0
    #: Seconds from a cancel until the batch ends (never later than it would have ended anyway).
    cancel_delay: float = 1.0
    #: The part of a cancelled batch that ends as ``canceled``; the rest was already done.
    canceled_share: float = 0.5
    #: Whether the counts move while the batch is processed; the documented API flips them all at the end.
    live_counts: bool = False

    #: Rows that end as errored with ``api_error``, ``overloaded_error`` and ``invalid_request_error``.
    errored_share: float = 0.0
    overloaded_share: float = 0.0
    invalid_share: float = 0.0
    #: Rows that end as expired although the batch ended in time.
    expired_share: float = 0.0
    #: Rows without a line in the results; they are counted as errored and not billed.
    missing_share: float = 0.0
    #: Succeeded rows whose answer is trouble: see ``nasty.py``.
    nasty_share: float = 0.0
    #: How long the long ones among the nasty answers are, in bytes.
    nasty_bytes: int = 5_000_000

    #: How many requests of a batch miss a prompt cache that nothing wrote before.
    cache_cold_requests: int = 1
    #: The part of the other requests that read the cache; the rest writes it again.
    cache_hit_rate: float = 0.97
    #: Whether models that think by default do so: an empty thinking block, and tokens for it.
    thinking: bool = True

    #: Requests in processing per workspace; more are refused with 429. 0: no limit.
    queue_limit: int = 0
    #: Calls a minute per workspace; more are refused with 429. 0: no limit.
    rpm: int = 0
    max_requests: int = 100_000
    #: Whether the real limit of 256 MB means 10**6 or 2**20 is unknown; this is the stricter reading.
    max_body_bytes: int = 256_000_000

    create_faults: str = ""
    retrieve_faults: str = ""
    list_faults: str = ""
    results_faults: str = ""
    cancel_faults: str = ""
    count_faults: str = ""
    #: ``true`` or ``false``: sent as ``x-should-retry`` with every fault's answer. Empty: not sent.
    should_retry: str = ""

    def __post_init__(self) -> None:
        faults = [*self._bad_numbers(), *self._bad_faults()]
        if self.should_retry not in ("", "true", "false"):
            faults.append("should_retry: write true, false or nothing")
        if faults:
            raise SandboxConfigError("; ".join(faults))

    @classmethod
    def parse(cls, assignments: Iterable[str]) -> SandboxConfig:
        """Read ``name=value`` texts, such as ``delay=0`` or ``create_faults=429:5,500``.

        :raises SandboxConfigError: a name is unknown or a value no use.
        """
        values = {}
        for assignment in assignments:
            name, separator, value = assignment.partition("=")
            if not separator:
                raise SandboxConfigError(f"{assignment!r}: write it as name=value")
            values[name.strip()] = value.strip()
        return cls().changed(values)

    def changed(self, values: Mapping[str, Any]) -> SandboxConfig:
        """A copy with other values, given as text or as JSON values.

        :raises SandboxConfigError: a name is unknown or a value no use.
        """
        kinds = {field.name: type(field.default) for field in dataclasses.fields(self)}
        read = {}
        for name, value in values.items():
            if name not in kinds:
                raise SandboxConfigError(f"{name}: no such setting; there are {', '.join(kinds)}")
            read[name] = _read(name, kinds[name], value)
        return dataclasses.replace(self, **read)

    def as_dict(self) -> dict[str, Any]:
        """Every setting and its value, as JSON values."""
        return dataclasses.asdict(self)

    def _bad_numbers(self) -> Iterable[str]:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and value < 0:
                yield f"{field.name}: must not be negative"
        for name in (*_SHARES, "canceled_share", "cache_hit_rate"):
            if getattr(self, name) > 1:
                yield f"{name}: must be a part of 1, such as 0.02"
        if sum(getattr(self, name) for name in _SHARES) > 1:
            yield "the shares of failed, missing and nasty rows must not add up to more than 1"

    def _bad_faults(self) -> Iterable[str]:
        for field in dataclasses.fields(self):
            if field.name.endswith("_faults"):
                try:
                    FaultQueue(getattr(self, field.name), stream=field.name == "results_faults")
                except ValueError as error:
                    yield f"{field.name}: {error}"


def _read(name: str, kind: type, value: Any) -> Any:
    if kind is bool:
        word = str(value).strip().lower()
        if word in ("true", "1", "yes", "on"):
            return True
        if word in ("false", "0", "no", "off"):
            return False
        raise SandboxConfigError(f"{name}: write true or false, not {value!r}")
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise SandboxConfigError(f"{name}: {value!r} is not a {kind.__name__}") from None
