"""The road of a batch without database or queue: requests are sent to a sandbox as one batch, their results come back.
The checks and the fixtures of the kit send through here, over the gateway that the workers use.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Any

from webapp.gateway import ApiBatch, Gateway
from webapp.hooks import Image
from webapp.kit.sandboxes import API_KEY
from webapp.records import jsontext

LOOK_SECONDS = 0.02
PATIENCE = 60.0  # seconds for a batch to end


def results_of(url: str, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The result of each request, by its custom_id.

    :param url: the sandbox's.
    :param requests: custom_id -> parameters, all of them and ready to be sent.
    :raises ApiError: the batch was refused, or did not end.
    """
    if not requests:
        return {}
    lines = [{"custom_id": name, "params": params} for name, params in requests.items()]
    body = jsontext.dumps({"requests": lines})
    gateway = Gateway(api_key=API_KEY, base_url=url)
    try:
        batch = _ended(gateway, gateway.create(iter([body]), len(body)))
        with gateway.results(batch) as found:
            rows = [jsontext.loads(line) for line in found]
    finally:
        gateway.close()
    return {row["custom_id"]: row["result"] for row in rows}


def sendable(value: Any, pictures: Mapping[str, bytes]) -> Any:
    """Parameters with the base64 of each image in its place.

    :param pictures: the bytes of each image, by its sha256.
    """
    if isinstance(value, Image):
        return base64.b64encode(pictures[value.sha256]).decode("ascii")
    if isinstance(value, Mapping):
        return {key: sendable(part, pictures) for key, part in value.items()}
    return [sendable(part, pictures) for part in value] if isinstance(value, list | tuple) else value


def _ended(gateway: Gateway, batch: ApiBatch) -> ApiBatch:
    deadline = time.monotonic() + PATIENCE
    while not batch.ended:
        if time.monotonic() > deadline:
            raise TimeoutError(f"batch {batch.id} did not end: is the sandbox's delay too long?")
        time.sleep(LOOK_SECONDS)
        batch = gateway.retrieve(batch.id)
    return batch
