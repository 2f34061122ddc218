"""What an answer is made of: the text and the pictures of a request, and extracts from them.

Only the answers use it. Everything is found when first asked for, since most answers need little of it.
"""

from __future__ import annotations

import re
import zlib
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

from .images import Picture, read_source

#: Characters of the input that are looked at for sentences and for words.
_LOOK_AT = 4_000
_COUNT_IN = 100_000
_SENTENCES = 6
_SHORT_WORD = 3

#: Trouble of more characters goes into one string of an answer, not into each.
_ONCE_ONLY = 1_000

_SENTENCE_END = re.compile(r"[.!?]\s+|\n\s*\n")
_WORDS = re.compile(r"[^\W\d_]{4,}")
_LABEL_WORDS = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Reading:
    """One request as its answerer sees it.

    :param params: the request's params; they have passed the checks.
    :param trouble: a text that goes into every free string of the answer; see ``nasty.py``.
    """

    def __init__(self, params: dict[str, Any], trouble: str = "") -> None:
        self.trouble = trouble
        #: Whether an answer took the trouble up.
        self.troubled = False
        self.pictures: list[Picture] = []
        texts: list[str] = []
        for message in params["messages"]:
            if message["role"] == "user":
                self._take(message["content"], texts)
        self.text = "\n".join(texts)

    def _take(self, content: Any, texts: list[str]) -> None:
        if isinstance(content, str):
            texts.append(content)
            return
        for block in content:
            if block["type"] == "text":
                texts.append(block["text"])
            elif block["type"] == "image":
                picture = read_source(block["source"])
                if picture is not None:
                    self.pictures.append(picture)
            elif block["type"] == "document" and isinstance(block["source"].get("data"), str):
                if block["source"].get("type") == "text":
                    texts.append(block["source"]["data"])
            elif block["type"] == "tool_result":
                self._take(block.get("content") or "", texts)

    def choice(self, *parts: str) -> int:
        """A number that depends on the input and the parts alone."""
        salt = "\0".join(parts).encode("utf-8", "surrogatepass")
        return zlib.crc32(salt, self._seed)

    @cached_property
    def _seed(self) -> int:
        pictures = repr(self.pictures) if self.pictures else ""
        return zlib.crc32((self.text[:_LOOK_AT] + pictures).encode("utf-8", "surrogatepass"))

    @cached_property
    def _lowered(self) -> str:
        return self.text[:_COUNT_IN].lower()

    def sentence(self, which: int) -> str:
        """One of the first sentences of the text, on one line; empty when the text is."""
        text, start, found = self.text[:_LOOK_AT].strip(), 0, []
        for end in islice(_SENTENCE_END.finditer(text), _SENTENCES):
            found.append(" ".join(text[start : end.start() + 1].split()))
            start = end.end()
            if len(found) > which:
                return found[which]
        if start < len(text) and len(found) < _SENTENCES:
            found.append(" ".join(text[start:].split()))
        return found[which % len(found)] if found else ""

    def describe_pictures(self) -> str:
        """A phrase that names type and size of each picture; empty when there are none."""
        phrases = [
            f"{picture.media_type} image of {picture.width} by {picture.height} pixels" for picture in self.pictures[:5]
        ]
        return " and an ".join(phrases)

    def extract(self, limit: int, which: int = 0) -> str:
        """A text for a free string: what the input says, in at most so many characters."""
        parts = []
        if self.pictures:
            parts.append(f"An {self.describe_pictures()}.")
        parts.append(self.sentence(which))
        text = _shorten(" ".join(parts).strip() or "Nothing was said.", limit)
        if not self.trouble or (self.troubled and len(self.trouble) > _ONCE_ONLY):
            return text
        self.troubled = True
        return text + self.trouble

    def keywords(self, most: int) -> list[str]:
        """The longest different words of the text's beginning, in the order they come."""
        words = list(dict.fromkeys(_WORDS.findall(self._lowered[:_LOOK_AT])))
        longest = set(sorted(words, key=len, reverse=True)[:most])
        return [word for word in words if word in longest]

    def score(self, label: str) -> int:
        """How often the text uses the words of a label."""
        text, found = self._lowered, 0
        for word in _label_words(label):
            found += text.count(word) if len(word) > _SHORT_WORD else _count_whole(text, word)
        return found

    def best(self, labels: list[Any]) -> Any:
        """The label whose words the text uses most; among equals, one that depends on the text."""
        scores = [self.score(str(label)) for label in labels]
        most = max(scores)
        ties = [label for label, score in zip(labels, scores, strict=True) if score == most]
        return max(ties, key=lambda label: self.choice("label", str(label))) if len(ties) > 1 else ties[0]


def _count_whole(text: str, word: str) -> int:
    # A short word would be found inside of others.
    return len(_whole_word(word).findall(text)) if word in text else 0


@lru_cache(maxsize=4096)
def _whole_word(word: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(word)}\b")


@lru_cache(maxsize=4096)
def _label_words(label: str) -> tuple[str, ...]:
    words = _LABEL_WORDS.findall(_CAMEL.sub(" ", label).lower())
    # A plural is met by its singular.
    return tuple(
        word[:-1] if len(word) > 4 and word.endswith("s") and not word.endswith("ss") else word for word in words
    )


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    cut = text[: limit - 1].rpartition(" ")[0] or text[: limit - 1]
    return cut.rstrip(" ,;:") + "…"
