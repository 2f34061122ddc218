"""The data that is measured with: records of a given size, and the lines of results that answer them.
Everything is drawn from a fixed seed, so that two runs work on the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import orjson

from webapp.records.record import Record

MODEL = "claude-opus-5-5"
LABELS = ("alpha", "beta")
_CORPUS_WORDS = 200_000
_VOCABULARY = 4_000


class Prose:
    """Text that compresses as prose does: words of a made-up language, the frequent ones short.

    :param seed: the same seed, the same text.
    """

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        words = ["".join(self._random.choices("etaoinshrdlucmfwyp", k=2 + n % 9)) for n in range(_VOCABULARY)]
        words.sort(key=len)
        weights = [1 / (rank + 10) for rank in range(_VOCABULARY)]
        self._corpus = " ".join(self._random.choices(words, weights, k=_CORPUS_WORDS))

    def piece(self, size: int) -> str:
        """Some text of `size` characters, another one with each call."""
        start = self._random.randrange(len(self._corpus) - size)
        return self._corpus[start : start + size]


def records(count: int, size: int) -> Iterator[Record]:
    """Documents whose JSON text is `size` bytes, or a little more where that is too short for its key."""
    prose = Prose()
    for position in range(count):
        key = f"doc-{position}"
        text = prose.piece(max(1, size - len(f'{{"key":"{key}","text":""}}')))
        yield Record(position, key, "document", orjson.dumps({"key": key, "text": text}), None)


def result_lines(custom_ids: Sequence[str], size: int) -> Iterator[bytes]:
    """One succeeded line for each request, shuffled as the API shuffles them, of about `size` bytes."""
    prose = Prose()
    shuffled = list(custom_ids)
    random.Random(11).shuffle(shuffled)
    bare = len(_line("", LABELS[0], ""))
    for number, custom_id in enumerate(shuffled):
        thinking = prose.piece(max(1, size - bare - len(custom_id)))
        yield _line(custom_id, LABELS[number % len(LABELS)], thinking)


def _line(custom_id: str, label: str, thinking: str) -> bytes:
    content = [
        {"type": "thinking", "thinking": thinking, "signature": "c2lnbmF0dXJl"},
        {"type": "text", "text": f'{{"label":"{label}"}}'},
    ]
    usage = {
        "input_tokens": 21 + len(thinking) % 700,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 612,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 40 + len(thinking) // 5,
        "service_tier": "batch",
        "inference_geo": "global",
    }
    message = {
        "id": f"msg_{custom_id}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    return orjson.dumps({"custom_id": custom_id, "result": {"type": "succeeded", "message": message}}) + b"\n"
