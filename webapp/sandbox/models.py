"""The models the sandbox knows: their limits, what they refuse, and how they appear in the models list.

Checks, cache accounting and the models endpoints read it. Limits and cache minimums are those published in
autumn 2026; where a figure was not published (Fable and Mythos 5.2) it is that of the version before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

EXTENDED_OUTPUT_BETA = "output-300k-2026-03-24"
EXTENDED_OUTPUT_TOKENS = 300_000


class Model(NamedTuple):
    """One model. `generation` is (major, minor), by which most of what models refuse can be told."""

    id: str
    display_name: str
    line: str
    generation: tuple[int, int]
    created_at: str
    max_tokens: int
    max_input_tokens: int
    #: The shortest prefix the prompt cache stores; shorter ones are silently not cached.
    cache_minimum: int
    #: Whether the beta for 300,000 output tokens covers it.
    extended_output: bool

    @property
    def dense_tokenizer(self) -> bool:
        """Whether the same text makes about 30 % more tokens than with older models."""
        return self.generation >= (4, 7)

    @property
    def takes_enabled_thinking(self) -> bool:
        return self.generation < (4, 7)

    @property
    def thinks_by_default(self) -> bool:
        return self.generation >= (5, 0)

    @property
    def takes_prefill(self) -> bool:
        return self.generation < (4, 6)

    @property
    def takes_sampling(self) -> bool:
        return self.generation < (4, 7)

    @property
    def takes_geo(self) -> bool:
        return self.generation >= (4, 6)

    @property
    def takes_forced_tool(self) -> bool:
        return (self.line, self.generation) not in {("fable", (5, 1)), ("sonnet", (5, 5))}

    @property
    def image_token_cap(self) -> int:
        return 4784 if self.generation >= (4, 7) else 1568

    @property
    def image_long_edge(self) -> int:
        """Pixels to which the longer side is reduced before tokens are counted."""
        return 2576 if self.generation >= (4, 7) else 1568

    def most_tokens(self, betas: tuple[str, ...]) -> int:
        """The largest `max_tokens` a request may ask for."""
        if self.extended_output and EXTENDED_OUTPUT_BETA in betas:
            return EXTENDED_OUTPUT_TOKENS
        return self.max_tokens


def _model(name: str, created: str, minimum: int, *, extended: bool = False, dated: str = "") -> Model:
    line, *numbers = name.split("-")
    generation = (int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0)
    small = generation < (4, 6)
    return Model(
        id=f"claude-{name}{dated}",
        display_name=f"Claude {line.title()} {'.'.join(numbers)}",
        line=line,
        generation=generation,
        created_at=f"{created}T00:00:00Z",
        max_tokens=64_000 if small else 128_000,
        max_input_tokens=200_000 if small else 1_000_000,
        cache_minimum=minimum,
        extended_output=extended,
    )


#: The models list gives an epoch value where the release date is unknown.
_UNKNOWN_DATE = "1970-01-01"

#: Newest first, as the models list gives them.
MODELS: tuple[Model, ...] = (
    _model("fable-5-2", "2026-11-09", 512),
    _model("mythos-5-2", "2026-11-09", 512),
    _model("haiku-5-5", "2026-10-07", 512, extended=True),
    _model("sonnet-5-5", "2026-09-28", 512, extended=True),
    _model("opus-5-5", "2026-09-22", 512, extended=True),
    _model("fable-5-1", _UNKNOWN_DATE, 512),
    _model("mythos-5-1", _UNKNOWN_DATE, 512),
    _model("opus-5", _UNKNOWN_DATE, 512, extended=True),
    _model("fable-5", _UNKNOWN_DATE, 512),
    _model("mythos-5", _UNKNOWN_DATE, 512),
    _model("sonnet-5", _UNKNOWN_DATE, 1024, extended=True),
    _model("opus-4-8", _UNKNOWN_DATE, 1024, extended=True),
    _model("opus-4-7", _UNKNOWN_DATE, 2048, extended=True),
    _model("sonnet-4-6", _UNKNOWN_DATE, 1024, extended=True),
    _model("opus-4-6", _UNKNOWN_DATE, 4096, extended=True),
    _model("opus-4-5", "2025-11-24", 4096, dated="-20251101"),
    _model("haiku-4-5", "2025-10-15", 4096, dated="-20251001"),
    _model("sonnet-4-5", "2025-09-29", 1024, dated="-20250929"),
)

_BY_NAME = {model.id: model for model in MODELS} | {
    # The dated models are also known by their short names.
    model.id.rpartition("-")[0]: model
    for model in MODELS
    if model.id[-8:].isdigit()
}


def find_model(name: object) -> Model | None:
    """The model of this id or alias, or None."""
    return _BY_NAME.get(name) if isinstance(name, str) else None


def model_info(model: Model) -> dict[str, Any]:
    """The model as the models endpoints show it."""
    yes, no = {"supported": True}, {"supported": False}
    thinking = {
        "adaptive": {"supported": model.generation >= (4, 6)},
        "between_tools": no,
        "disabled": yes,
        "enabled": {"supported": model.takes_enabled_thinking},
    }
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name,
        "created_at": model.created_at,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": model.line,
        "max_input_tokens": model.max_input_tokens,
        "max_tokens": model.max_tokens,
        "capabilities": {
            "batch": yes,
            "citations": yes,
            "code_execution": no,
            "context_management": {
                "supported": False,
                "clear_thinking_20251015": no,
                "clear_tool_uses_20250919": no,
                "compact_20260112": no,
            },
            "effort": {"supported": model.takes_geo}
            | {level: {"supported": model.takes_geo} for level in ("low", "medium", "high", "max", "xhigh")},
            "image_input": yes,
            "pdf_input": yes,
            "server_tools": {"supported": False, "code_execution": no, "web_search": no},
            "structured_outputs": yes,
            "thinking": {"supported": True, "types": thinking},
        },
    }
