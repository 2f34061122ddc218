"""Whatever params a batch holds, each of its requests gets exactly one row, and nothing breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sandbox_calls import HAIKU, SONNET
from werkzeug.test import Client

from webapp.sandbox import SandboxApp, SandboxConfig, create_sandbox

HEADERS = {"x-api-key": "key", "anthropic-version": "2023-06-01"}
CACHE = st.sampled_from([None, {}, {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}, {"ttl": 5}, "x"])

odd = st.sampled_from([None, 0, 1, -1, 2.5, True, "", "x", [], {}, [[]], [{}], ["x"], {"type": "text"}, {"a": 1}])
text_block = st.fixed_dictionaries(
    {"type": st.just("text"), "text": st.text(max_size=30)}, optional={"cache_control": CACHE, "citations": odd}
)
source = st.fixed_dictionaries(
    {"type": st.sampled_from(["base64", "text", "url", "file", "content"])},
    optional={"data": odd, "media_type": odd, "url": odd, "file_id": odd, "content": odd},
)
block = st.one_of(
    odd,
    text_block,
    st.fixed_dictionaries(
        {"type": st.sampled_from(["image", "document", "tool_result", "tool_use", "thinking", "other"])},
        optional={"source": source | odd, "content": st.lists(text_block, max_size=2) | odd, "text": odd},
    ),
)
message = odd | st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.lists(block, max_size=3) | odd}
)
schema = st.recursive(
    odd | st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "null", "boolean", "number"])}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", ["string", "null"], 5]),
            "properties": st.dictionaries(st.sampled_from(["a", "title", "tags"]), inner, max_size=3) | odd,
            "required": st.sampled_from([["a"], ["zz"], [], None, "a", [5]]),
            "additionalProperties": st.sampled_from([False, True]),
            "items": inner,
            "anyOf": st.lists(inner, max_size=2) | odd,
            "allOf": st.lists(inner, max_size=2) | odd,
            "enum": st.lists(odd, max_size=3) | odd,
            "const": odd,
            "$ref": st.sampled_from(["#", "#/$defs/a", "#/properties/a", "other", 5]),
            "format": odd,
        },
    ),
    max_leaves=6,
)
config = odd | st.fixed_dictionaries(
    {},
    optional={
        "format": odd | st.fixed_dictionaries({"type": st.just("json_schema"), "schema": schema}),
        "effort": odd | st.just("low"),
    },
)
tool = odd | st.fixed_dictionaries(
    {"name": st.just("t") | odd}, optional={"input_schema": schema, "type": odd, "cache_control": CACHE}
)
params = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from([HAIKU, SONNET, HAIKU, "none"]) | odd,
        "max_tokens": st.sampled_from([1, 5, 1000]) | odd,
        "messages": st.lists(message, max_size=3) | odd,
        "system": st.lists(text_block, max_size=2) | odd,
        "tools": st.lists(tool, max_size=2) | odd,
        "tool_choice": odd | st.sampled_from([{"type": "any"}, {"type": "tool"}, {"type": "tool", "name": "t"}]),
        "output_config": config,
        "thinking": odd | st.sampled_from([{"type": "enabled"}, {"type": "adaptive"}]),
        "stop_sequences": odd,
        "cache_control": CACHE,
        "inference_geo": odd,
        "temperature": odd,
    },
)
#: Requests whose messages are fine, and of the rest only what is asked for is odd.
fine_block = st.fixed_dictionaries(
    {"type": st.just("text"), "text": st.text(min_size=1, max_size=30)},
    optional={"cache_control": st.just({"type": "ephemeral"})},
)
object_schema = schema.filter(lambda value: isinstance(value, dict)).map(lambda value: value | {"type": "object"})
fine_tool = st.fixed_dictionaries({"name": st.just("t"), "input_schema": object_schema})
fine = {
    "model": st.sampled_from([HAIKU, "claude-opus-5-5"]),
    "max_tokens": st.sampled_from([1, 1000]),
    "messages": st.lists(
        st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(fine_block, min_size=1, max_size=2)}),
        min_size=1,
        max_size=2,
    ),
}
format_only = st.fixed_dictionaries(
    {"format": st.fixed_dictionaries({"type": st.just("json_schema"), "schema": schema})}
)
likely = st.one_of(
    st.fixed_dictionaries(fine | {"output_config": format_only}),
    st.fixed_dictionaries(
        fine | {"tools": st.lists(fine_tool, min_size=1, max_size=2), "tool_choice": st.just({"type": "any"})}
    ),
    st.fixed_dictionaries(fine, optional={"stop_sequences": odd, "thinking": odd, "system": odd, "metadata": odd}),
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxApp]:
    folder: Path = tmp_path_factory.mktemp("odd")
    app = create_sandbox(folder, SandboxConfig(delay=0))
    yield app
    app.close()


@given(st.lists(params | likely, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_request_gets_one_row_whatever_its_params(app: SandboxApp, wanted: list[Any]) -> None:
    client = Client(app)
    requests = [{"custom_id": f"r-{at}", "params": each} for at, each in enumerate(wanted)]
    created = client.post("/v1/messages/batches", data=json.dumps({"requests": requests}), headers=HEADERS)
    assert created.status_code == 200
    path = f"/v1/messages/batches/{created.get_json()['id']}"
    counts = client.get(path, headers=HEADERS).get_json()["request_counts"]
    rows = [json.loads(line) for line in client.get(f"{path}/results", headers=HEADERS).data.splitlines()]
    assert sorted(row["custom_id"] for row in rows) == sorted(request["custom_id"] for request in requests)
    succeeded = [row for row in rows if row["result"]["type"] == "succeeded"]
    assert counts["succeeded"] == len(succeeded)
    assert counts["errored"] == len(rows) - len(succeeded)
