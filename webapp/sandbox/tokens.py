"""Estimates tokens and finds the prompt-cache prefixes of a request.

The intake asks which prefixes a batch will write, the results what each row read and wrote, count_tokens for
the total. Tokens are estimated: a quarter of the characters, 30 % more with the newer tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from .body import loads
from .images import read_source
from .models import Model

#: Every request has these on top, and each message some more.
REQUEST_OVERHEAD = 8
MESSAGE_OVERHEAD = 4
#: A marker also finds what was written up to so many blocks before it.
LOOKBACK = 20
#: What comes before the messages is remembered up to this size.
_REMEMBERED_BYTES = 200_000


class Block(NamedTuple):
    """One block of the prompt in the order the cache sees it; `ttl` is set where a marker ends a prefix."""

    content: Any
    label: str
    tokens: int
    ttl: str | None


class Prefix(NamedTuple):
    """A prefix that ends in a cache marker. `earlier` are key and tokens at each block before, nearest first."""

    key: bytes
    tokens: int
    ttl: str
    earlier: tuple[tuple[bytes, int], ...]


class Measured(NamedTuple):
    """The tokens of a whole prompt, and those of its prefixes that are long enough to be cached."""

    tokens: int
    prefixes: tuple[Prefix, ...]


def text_tokens(length: int, model: Model) -> int:
    """Tokens of a text of so many characters."""
    return -(-length * 13 // 40) if model.dense_tokenizer else -(-length // 4)


def text_length(tokens: int, model: Model) -> int:
    """Characters that so many tokens are good for."""
    return tokens * 40 // 13 if model.dense_tokenizer else tokens * 4


def dumps(value: Any) -> bytes:
    """JSON of a value that may hold lone surrogates."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # The standard library escapes what is not ASCII, so the escape comes back as it went.
        return json.dumps(value, separators=(",", ":")).encode()


def measure(params: dict[str, Any], model: Model) -> Measured:
    """Count the tokens of a request's prompt and find its cacheable prefixes."""
    head = _head(params, model)
    blocks = _message_blocks(params, model)
    messages = params.get("messages")
    total = head.tokens + REQUEST_OVERHEAD
    total += MESSAGE_OVERHEAD * (len(messages) if isinstance(messages, list) else 0)
    total += sum(block.tokens for block in blocks)
    last_marker = max((at for at, block in enumerate(blocks) if block.ttl), default=-1)
    if last_marker < 0:
        return Measured(total, head.prefixes)
    return Measured(total, _follow(head, blocks[: last_marker + 1], model).prefixes)


def find_prefixes(params: dict[str, Any], model: Model) -> tuple[Prefix, ...]:
    """The cacheable prefixes of a request, without counting more than it takes."""
    messages = _dicts(params.get("messages"))
    if any(_is_marked(holder) for holder in (params, *messages)):
        return measure(params, model).prefixes
    return _head(params, model).prefixes


def _is_marked(holder: dict[str, Any]) -> bool:
    content = holder.get("content")
    inside = isinstance(content, list) and any(_ttl(block) for block in _dicts(content))
    return inside or _ttl(holder) is not None


class _Trail(NamedTuple):
    """How far a prompt was followed: the running hash, the blocks passed, and the prefixes found."""

    hasher: blake2b
    tokens: int
    passed: tuple[tuple[bytes, int], ...]
    prefixes: tuple[Prefix, ...]


def _head(params: dict[str, Any], model: Model) -> _Trail:
    """What comes before the messages. It is mostly the same in a whole batch, so it is remembered."""
    output_format = (params.get("output_config") or {}).get("format")
    text = dumps([params.get("tools"), output_format, params.get("system")])
    if len(text) > _REMEMBERED_BYTES:
        return _follow_head.__wrapped__(text, model)
    return _follow_head(text, model)


@lru_cache(maxsize=32)
def _follow_head(text: bytes, model: Model) -> _Trail:
    tools, output_format, system = loads(text)
    blocks = [Block(tool, "tool", text_tokens(len(dumps(tool)), model), _ttl(tool)) for tool in _dicts(tools)]
    if output_format:
        blocks.append(Block(output_format, "format", text_tokens(len(dumps(output_format)), model), None))
    blocks += _content_blocks(system, "system", model)
    return _follow(_Trail(blake2b(model.id.encode(), digest_size=16), 0, (), ()), blocks, model)


def _follow(trail: _Trail, blocks: list[Block], model: Model) -> _Trail:
    hasher, tokens = trail.hasher.copy(), trail.tokens
    passed, prefixes = list(trail.passed), list(trail.prefixes)
    for block in blocks:
        hasher.update(block.label.encode())
        hasher.update(_bare(block.content))
        tokens += block.tokens
        key = hasher.digest()
        if block.ttl and tokens >= model.cache_minimum:
            prefixes.append(Prefix(key, tokens, block.ttl, tuple(reversed(passed[-LOOKBACK:]))))
        passed.append((key, tokens))
    return _Trail(hasher, tokens, tuple(passed), tuple(prefixes))


def _bare(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode("utf-8", "surrogatepass")
    return dumps({name: value for name, value in content.items() if name != "cache_control"})


def _message_blocks(params: dict[str, Any], model: Model) -> list[Block]:
    blocks: list[Block] = []
    for message in _dicts(params.get("messages")):
        blocks += _content_blocks(message.get("content"), str(message.get("role")), model)
    if blocks and not blocks[-1].ttl:
        # A marker at the top level stands for one on the last block.
        blocks[-1] = blocks[-1]._replace(ttl=_ttl(params))
    return blocks


def _content_blocks(content: Any, label: str, model: Model) -> Iterator[Block]:
    if isinstance(content, str):
        yield Block(content, label, text_tokens(len(content), model), None)
        return
    for block in _dicts(content):
        yield Block(block, label, _block_tokens(block, model), _ttl(block))


def _block_tokens(block: dict[str, Any], model: Model) -> int:
    text = block.get("text")
    if isinstance(text, str):
        return text_tokens(len(text), model)
    source = block.get("source")
    if isinstance(source, dict) and isinstance(source.get("data"), str):
        if block.get("type") == "image":
            return image_tokens(source, model)
        if source.get("type") == "base64":
            # A page of a PDF costs about 2,000 tokens and takes about 100 kB.
            return max(1, len(source["data"]) // 50)
    return text_tokens(len(dumps(block)), model)


def image_tokens(source: dict[str, Any], model: Model) -> int:
    """Tokens of an image: 28 by 28 pixels each, after it was reduced to what the model looks at."""
    picture = read_source(source)
    if picture is None:
        return model.image_token_cap
    edge = max(picture.width, picture.height)
    shrink = min(1.0, model.image_long_edge / edge) if edge else 1.0
    across, down = (-(-int(side * shrink) // 28) for side in (picture.width, picture.height))
    return min(max(1, across * down), model.image_token_cap)


def _ttl(block: dict[str, Any]) -> str | None:
    control = block.get("cache_control")
    if not isinstance(control, dict):
        return None
    return "1h" if control.get("ttl") == "1h" else "5m"


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for entry in value:
            if isinstance(entry, dict):
                yield entry
