"""Where the database, the queue and the API are, by the settings and by what runs in the home.
The wiring and the command line ask here; it starts nothing.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from webapp import local
from webapp.errors import ApiUnclear, LocalServicesError
from webapp.gateway import Gateway
from webapp.settings import Settings

SANDBOX_KEY = "sandbox"
SANDBOX_HOST = "127.0.0.1"
SANDBOX_NAME = "sandbox:"  # its address changes from start to start, its account does not


def urls(settings: Settings) -> tuple[str, str]:
    """(database URL, Redis URL), given or of the embedded services that are up.

    :raises LocalServicesError: they are needed and not up.
    """
    database, redis = settings.database_url, settings.redis_url
    if database and redis:
        return database.get_secret_value(), redis.get_secret_value()
    embedded = local.running(settings.home)
    if embedded is None:
        raise LocalServicesError(
            f"The embedded services of {settings.home} are not up. Start everything with `batchdesk up`, "
            "or set DATABASE_URL and REDIS_URL to use servers of your own."
        )
    return (
        database.get_secret_value() if database else embedded.database_url,
        redis.get_secret_value() if redis else embedded.redis_url,
    )


def secret_key(settings: Settings) -> str:
    """The key that signs sessions: given, or made once under the home."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    path = settings.home / "secret_key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text("ascii")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(48))
    return path.read_text("ascii")


def sandbox_folder(settings: Settings) -> Path:
    """Where the sandbox of this home keeps its batches."""
    return settings.home / "sandbox"


def sandbox_address(settings: Settings) -> Path:
    """The file in which the sandbox of this home writes its URL."""
    return sandbox_folder(settings) / "address"


def open_gateway(settings: Settings) -> Gateway:
    """The way to the API, or to the sandbox when no key is set.

    :raises ApiUnclear: the sandbox is needed and not up.
    """
    if settings.anthropic_api_key is not None:
        key = settings.anthropic_api_key.get_secret_value()
        return Gateway(api_key=key, base_url=settings.anthropic_base_url)
    try:
        address = sandbox_address(settings).read_text("ascii").strip()
    except OSError:
        raise ApiUnclear(
            "The sandbox is not up: start it with `batchdesk sandbox`, or everything with `batchdesk up`."
        ) from None
    return Gateway(api_key=SANDBOX_KEY, base_url=address, name=SANDBOX_NAME)
