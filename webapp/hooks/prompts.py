"""Prompts in files of their own: read beside the plugin, in parts, with gaps for what the settings say.
Plugins use it; nothing else in the house does.
"""

from __future__ import annotations

import re
from pathlib import Path

from webapp.errors import PluginError

_PART = re.compile(r"^--- ([a-z0-9][a-z0-9 _.-]*) ---[ \t]*$", re.MULTILINE)
_GAP = re.compile(r"\{\{([a-z_]+)\}\}")


class Prompt:
    """The prompt of a task, as its file says it.

    A file has parts, each after a line like ``--- system ---``; what stands before the first is for its readers and
    is not sent. A gap is written ``{{name}}``. A file that is changed asks something else, so it gets a new name, with
    the task's new version in it.

    :param beside: the plugin's own ``__file__``.
    :param name: of the file in the folder ``prompts`` beside it, without ``.md``: ``classify-2``.
    :raises PluginError: there is no such file, or it has no parts or two of one name.
    """

    def __init__(self, beside: str, name: str) -> None:
        self.file = Path(beside).parent / "prompts" / f"{name}.md"
        try:
            _, *found = _PART.split(self.file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise PluginError(f"The prompt {self.file} cannot be read: {error}.") from error
        names = found[::2]
        twice = [name for name in names if names.count(name) > 1]
        if not names or twice:
            why = f"has the part '{twice[0]}' twice" if twice else "has no part: begin it with a line --- system ---"
            raise PluginError(f"The prompt {self.file} {why}.")
        self._parts = dict(zip(names, (text.strip() for text in found[1::2]), strict=True))

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its parts, in the file's order."""
        return tuple(self._parts)

    def part(self, name: str, **values: str) -> str:
        """The text of a part, with the values in its gaps; braces within a value stay as they are.

        :raises PluginError: there is no such part, or a gap is left.
        """
        if name not in self._parts:
            raise PluginError(f"The prompt {self.file} has no part '{name}'; it has {', '.join(self._parts)}.")
        gaps = set(_GAP.findall(self._parts[name]))
        if gaps - values.keys():
            missing = ", ".join(sorted(gaps - values.keys()))
            raise PluginError(f"The prompt {self.file}, part '{name}', has gaps that nothing fills: {missing}.")
        return _GAP.sub(lambda gap: values[gap[1]], self._parts[name])
