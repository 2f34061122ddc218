"""What tasks, sources, sinks and plugins have in common: a name, a title, and settings that people fill in.
The parser of settings and the forms work with any of them.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, WithJsonSchema

from webapp.errors import InputError

S = TypeVar("S", bound=BaseModel)

_SECRET = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_PASSWORD = re.compile(r"//[^/?#]*?:([^/?#]+)@")
SHORTEST_HIDDEN = 4  # characters: what is shorter is part of ordinary words
# What Batchdesk itself is set up with: whoever may fill in a form must not have it sent anywhere.
_OURS = re.compile(r"env:(DATABASE_URL|REDIS_URL|(ANTHROPIC|BATCHDESK|PG)[A-Z0-9_]*)", re.IGNORECASE)


class Configured(Generic[S]):
    """Something with a name and settings. Plugin authors derive from `Task`, `Source` or `Sink`, not from this."""

    noun: ClassVar[str] = "Plugin"
    name: str = ""
    title: str = ""
    Settings: type[S]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.title and isinstance(cls.name, str):
            cls.title = cls.name.replace("_", " ").capitalize()


def reveal(secret: str) -> str:
    """The secret that ``env:NAME`` stands for, read from this process's environment now.

    :raises InputError: the variable is not set here; names it.
    """
    match = _SECRET.fullmatch(secret)
    value = os.environ.get(match[1], "") if match else ""
    if not value:
        raise InputError(
            f"The secret {secret if match else 'of this setting'} is not there: set the environment variable "
            f"{match[1] if match else 'that it names'} where the workers run, and start them again."
        )
    return value


def hidden(text: str, settings: BaseModel) -> str:
    """The text without the secrets that some settings stand for, nor the passwords in them: what a library says of its
    troubles may hold them, and is kept and shown.
    """
    for secret in _secrets_of(settings.model_dump()):
        value = os.environ.get(secret.removeprefix("env:"), "")
        password = _PASSWORD.search(value)
        for known in (value, *(password.groups() if password else ())):
            if len(known) >= SHORTEST_HIDDEN:
                text = text.replace(known, secret)
    return text


def _secrets_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for one in value.values() for found in _secrets_of(one)]
    if isinstance(value, list | tuple | set | frozenset):
        return [found for one in value for found in _secrets_of(one)]
    return [value] if isinstance(value, str) and _SECRET.fullmatch(value) else []


def _named(value: str) -> str:
    if not _SECRET.fullmatch(value):
        # The value is not repeated: it may be the secret itself.
        raise ValueError("write env:NAME, where NAME is an environment variable of the workers that holds the secret")
    if _OURS.fullmatch(value):
        raise ValueError(f"{value} is one of Batchdesk's own: put what is needed into a variable of its own")
    return value


# A setting that is a secret: stored and shown as ``env:NAME``, which `reveal` resolves where it is used.
Secret = Annotated[
    str,
    AfterValidator(_named),
    WithJsonSchema({"type": "string", "pattern": "^env:[A-Za-z_][A-Za-z0-9_]*$", "format": "secret"}),
]
