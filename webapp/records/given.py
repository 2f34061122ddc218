"""Records that no file holds but a plugin's source gives: checked as those of files are, and told by their number.
Importing from a source makes one `Giving` for each time it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webapp.records.escapes import one_line
from webapp.records.faults import Fault
from webapp.records.jsontext import dumps, json_noun
from webapp.records.record import MAX_RECORD_BYTES, RAW_BYTES, FirstLines, Problem, Record, key_fault

DOCUMENT = "document"  # the kind that must have a text


class Giving:
    """Decides record by record what becomes one, and numbers them: all from 1 for words, the usable ones from 0.

    :param kind: of the records.
    :param text_field: the member of a document's data that holds its text.
    """

    def __init__(self, kind: str, text_field: str) -> None:
        self._kind = kind
        self._text_field = text_field
        self._first = FirstLines()
        self._position = 0
        self.number = 0
        self.key: str | None = None  # of the latest

    def admit(self, key: Any, data: Any, fault: str | None) -> Record | Problem:
        """The next record, or what is wrong with it.

        :param data: a mapping, if it is usable.
        :param fault: why JSON cannot hold the data.
        """
        self.number += 1
        self.key = str(key) if type(key) in (str, int) else None
        found = self._fault(data, fault)
        text = b"" if fault or not isinstance(data, Mapping) else dumps(data)
        if found is None and len(text) > MAX_RECORD_BYTES:
            found = Fault(f"it is longer than {MAX_RECORD_BYTES >> 20} MB", "cut it into smaller records")
        if found is None:
            return self._placed(Record(self._position, self.key or "", self._kind, text))
        return Problem(
            self.where, found.fault, found.remedy, (text or repr(data).encode("utf-8", "replace"))[:RAW_BYTES]
        )

    def take(self, found: Record | Problem) -> Record | Problem:
        """The next one as a reader of files has found it."""
        self.number += 1
        if isinstance(found, Problem):
            self.key = None
            return found
        self.key = found.key
        return self._placed(Record(self._position, found.key, found.kind, found.data, found.image))

    @property
    def where(self) -> str:
        """The latest record, as people are told of it."""
        return f"record {self.number:,}" + ("" if self.key is None else f' (key "{one_line(self.key, 80)}")')

    def _placed(self, record: Record) -> Record | Problem:
        first = self._first.remember(record.key, self.number)
        if first:
            fault = f"its key is already that of record {first:,}"
            return Problem(self.where, fault, "give each record its own key", record.data[:RAW_BYTES])
        self._position += 1
        return record

    def _fault(self, data: Any, fault: str | None) -> Fault | None:
        if self.key is None:
            return Fault("it has no key of text or a whole number", "give each record one")
        if found := key_fault(self.key):
            return Fault(found.fault, "give the record another key")
        if fault is not None:
            return Fault(fault, "give what JSON can hold")
        if not isinstance(data, Mapping):
            return Fault(f"its data is {_noun(data)}, not a mapping", "give names with values")
        if self._kind != DOCUMENT:
            return None
        field, text = one_line(self._text_field), data.get(self._text_field)
        if isinstance(text, str) and text and not text.isspace():
            return None
        if self._text_field not in data:
            names = ", ".join(f'"{one_line(str(name), 40)}"' for name in list(data)[:8]) or "nothing"
            return Fault(f'it has no "{field}"', f"name another field as the text (it has {names})")
        if isinstance(text, str):
            return Fault(f'its text in "{field}" is empty', "fill it, or leave the record out")
        return Fault(f'its "{field}" is {_noun(text)}, not text', "make it text, or name another field as the text")


def _noun(value: Any) -> str:
    plain = value is None or type(value) in (str, bool, int, float, list, dict)
    return json_noun(value) if plain else f"of type {type(value).__name__}"
