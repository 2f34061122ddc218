"""A sink that posts outputs as JSON to an address on the web, signed, so that the receiver knows who sends them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from webapp.hooks import OutputRecord, RunFacts, Secret, Sink, hookimpl, reveal

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHOWN = 200  # characters of an answer that refuses


class WebhookSettings(BaseModel):
    """Where outputs are posted to, and what they are signed with."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    url: str = Field(
        title="URL", description="Where each part of the outputs is posted to: https, or http on this machine only."
    )
    secret: Secret = Field(
        description="What the posts are signed with (HMAC-SHA256), in an environment variable of the workers: write "
        "env:NAME.",
    )
    with_records: bool = Field(default=False, description="Send the record as imported beside each output.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            parts.port  # noqa: B018 - raises where it is no number
        except ValueError:
            raise ValueError("write an address such as https://example.com/outputs") from None
        if not parts.hostname or parts.scheme not in ("https", "http"):
            raise ValueError("write an address such as https://example.com/outputs")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("write an address with https: without it, anybody on the way could read the outputs")
        if parts.username or parts.password:
            raise ValueError("leave name and password out of the address: it is stored and shown as it is")
        return value


class NotTaken(Exception):
    """The receiver did not take a post.

    :param retry_after: seconds that it asks to wait, or None.
    """

    def __init__(self, words: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(words)


class Webhook(Sink[WebhookSettings]):
    """One POST for each part; any 2xx says that it was taken. The same part again has the same idempotency key."""

    name = "webhook"
    title = "Webhook"
    Settings = WebhookSettings

    def deliver(self, run: RunFacts, outputs: Sequence[OutputRecord], settings: WebhookSettings, key: str) -> None:
        import httpx2

        body = _body(run, outputs, settings, key)
        moment = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "idempotency-key": key,
            "batchdesk-timestamp": moment,
            "batchdesk-signature": f"v1={signature(reveal(settings.secret), moment, body)}",
        }
        patience = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        try:
            with httpx2.Client(timeout=patience, follow_redirects=False) as client:
                answer = client.post(settings.url, content=body, headers=headers)
        except httpx2.HTTPError as error:
            raise NotTaken(f"no answer came: {type(error).__name__}: {error}") from None
        if answer.is_redirect:
            raise NotTaken(f"the receiver sends us on to another address ({answer.status_code}), which is not followed")
        if not answer.is_success:
            words = " ".join(answer.text[:SHOWN].split())
            raise NotTaken(f"the receiver answered {answer.status_code} {words}".rstrip(), _wait(answer.headers))


def signature(secret: str, moment: str, body: bytes) -> str:
    """What a receiver compares with the header: over the seconds of the timestamp, a dot, and the body as it came."""
    return hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()


def _body(run: RunFacts, outputs: Sequence[OutputRecord], settings: WebhookSettings, key: str) -> bytes:
    told = {
        "id": run.id,
        "task": run.task,
        "task_version": run.task_version,
        "dataset": run.dataset,
        "state": run.state,
    }
    lines = []
    for one in outputs:
        line: dict[str, Any] = {"custom_id": one.custom_id, "key": one.key, "status": one.status}
        line |= {"output": one.output, "error": one.error}
        lines.append(line | {"record": dict(one.data)} if settings.with_records else line)
    return json.dumps({"delivery": key, "run": told, "outputs": lines}).encode("ascii")


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after` asks for; a date there is not read."""
    given = headers.get("retry-after", "").strip()
    return float(given) if given.isascii() and given.isdigit() and len(given) < 10 else None


@hookimpl
def register_sinks() -> list[Sink[Any]]:
    return [Webhook()]
