"""What the sandbox bills for the tokens of a batch: list prices written down a second time, apart from the desk's own,
so that one can be held against the other. Nobody pays them.

Amounts are whole picodollars (1e-12 USD) per token, halved for the batch already, so that sums are exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .models import Model


class _Rates(NamedTuple):
    """Picodollars per token in a batch."""

    input: int
    write_5m: int
    write_1h: int
    read: int
    output: int


_FABLE_5_1 = _Rates(5_000_000, 6_250_000, 10_000_000, 125_000, 25_000_000)
_FABLE_5 = _Rates(5_000_000, 6_250_000, 10_000_000, 500_000, 25_000_000)
_OPUS = _Rates(2_500_000, 3_125_000, 5_000_000, 250_000, 12_500_000)
_SONNET_4 = _Rates(1_500_000, 1_875_000, 3_000_000, 150_000, 7_500_000)

_RATES = {
    ("fable", (5, 1)): _FABLE_5_1,
    ("mythos", (5, 1)): _FABLE_5_1,
    ("fable", (5, 0)): _FABLE_5,
    ("mythos", (5, 0)): _FABLE_5,
    ("opus", (5, 5)): _Rates(2_000_000, 2_500_000, 4_000_000, 100_000, 10_000_000),
    ("opus", (5, 0)): _OPUS,
    ("opus", (4, 8)): _OPUS,
    ("opus", (4, 7)): _OPUS,
    ("opus", (4, 6)): _OPUS,
    ("opus", (4, 5)): _OPUS,
    ("sonnet", (5, 5)): _Rates(1_000_000, 1_250_000, 2_000_000, 50_000, 5_000_000),
    ("sonnet", (5, 0)): _Rates(1_000_000, 1_250_000, 2_000_000, 100_000, 5_000_000),
    ("sonnet", (4, 6)): _SONNET_4,
    ("sonnet", (4, 5)): _SONNET_4,
    ("haiku", (5, 5)): _Rates(50_000, 62_500, 100_000, 5_000, 250_000),
    ("haiku", (4, 5)): _Rates(500_000, 625_000, 1_000_000, 50_000, 2_500_000),
}
#: A prompt of Haiku 5.5 beyond this pays five times as much, for its output too.
_HAIKU_LONG, _HAIKU_TIMES = 100_000, 5


def bill_message(model: Model, message: dict[str, Any]) -> int | None:
    """Picodollars for one answer, or None where no price was published."""
    rates = _RATES.get((model.line, model.generation))
    if rates is None:
        return None
    usage = message["usage"]
    split = usage["cache_creation"]
    tokens = _Rates(
        usage["input_tokens"],
        split["ephemeral_5m_input_tokens"],
        split["ephemeral_1h_input_tokens"],
        usage["cache_read_input_tokens"],
        usage["output_tokens"],
    )
    if model.id == "claude-fable-5" and message["stop_reason"] == "refusal" and not tokens.output:
        return 0
    amount = sum(rate * count for rate, count in zip(rates, tokens, strict=True))
    if (model.line, model.generation) == ("haiku", (5, 5)) and sum(tokens[:4]) > _HAIKU_LONG:
        amount *= _HAIKU_TIMES
    # A tenth more; every rate is a multiple of ten.
    return amount * 11 // 10 if usage["inference_geo"] == "us" else amount
