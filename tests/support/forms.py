"""What a page's forms would send as they are, as a browser reads them."""

from __future__ import annotations

from html.parser import HTMLParser


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._open: tuple[str, str] | None = None  # (tag, name)
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        if tag == "input" and name and given.get("type") != "submit":
            if given.get("type") not in ("checkbox", "radio") or "checked" in given:
                self.fields[name] = given.get("value", "")
        elif tag in ("textarea", "select") and name:
            self._open, self._text = (tag, name), ""
        elif tag == "option" and self._open is not None:
            first = self._open[1] not in self.fields
            if "selected" in given or first:
                self.fields[self._open[1]] = given.get("value", "")

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if self._open is not None and tag == self._open[0]:
            if tag == "textarea":
                self.fields[self._open[1]] = self._text.replace("\r\n", "\n").removeprefix("\n")
            self._open = None


def fields(page: str) -> dict[str, str]:
    """By name, what is in the controls of a page's forms, but for the token against forged ones; the last of a name."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return {name: value for name, value in reader.fields.items() if name != "csrf_token"}
