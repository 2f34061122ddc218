"""`batchdesk sandbox` serves the local API alone, for whoever speaks it."""

from __future__ import annotations

import urllib.request

from support.installation import Installation, until


def test_the_sandbox_prints_its_address_and_answers_there() -> None:
    with Installation.made(None) as installation:
        server = installation.start("sandbox", "--folder", installation.folder / "api", "--set", "delay=0")
        url = until(lambda: server.out.strip(), "the address").split()[-1]
        call = urllib.request.Request(
            f"{url}/v1/models", headers={"x-api-key": "any", "anthropic-version": "2023-06-01"}
        )
        with urllib.request.urlopen(call, timeout=20) as answer:
            assert answer.status == 200 and b"claude" in answer.read()
        server.stop()
