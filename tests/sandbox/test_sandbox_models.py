"""The endpoints beside the batches: models, and counting tokens."""

from __future__ import annotations

import base64
import io

import anthropic
import pytest
from anthropic.types import MessageTokensCount
from PIL import Image
from support.sandbox import Sandbox
from support.sandbox_calls import HAIKU, SONNET, call

from webapp.sandbox.models import MODELS


def test_every_model_can_be_batched_and_tells_its_limits(shared_client: anthropic.Anthropic) -> None:
    models = list(shared_client.models.list(limit=5))
    assert len(models) == len(MODELS)
    for model in models:
        assert model.capabilities is not None
        assert model.capabilities.batch.supported
        assert model.max_tokens
        assert model.max_input_tokens


def test_a_model_is_found_by_id_and_by_its_short_name(shared_client: anthropic.Anthropic) -> None:
    for name in (HAIKU, "claude-haiku-4-5-20251001"):
        model = shared_client.models.retrieve(name)
        assert (model.id, model.max_tokens) == ("claude-haiku-4-5-20251001", 64_000)


def test_an_unknown_model_is_not_found(shared_client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        shared_client.models.retrieve("claude-none")


def test_a_page_of_models_can_be_walked_backwards(shared: Sandbox) -> None:
    third = MODELS[3].id
    page = call(shared.url, "GET", f"/v1/models?limit=2&before_id={third}").json
    assert [model["id"] for model in page["data"]] == [MODELS[1].id, MODELS[2].id]
    assert page["has_more"]


def test_tokens_are_counted_as_they_will_be_billed(shared_client: anthropic.Anthropic, shared: Sandbox) -> None:
    count = shared_client.messages.count_tokens(
        model=HAIKU, system="s" * 40, messages=[{"role": "user", "content": "u" * 400}]
    )
    assert count.input_tokens == 10 + 100 + 8 + 4
    body = b'{"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "Hi"}]}'
    reply = call(shared.url, "POST", "/v1/messages/count_tokens", body)
    MessageTokensCount.model_validate_json(reply.body, strict=True)


def test_newer_models_count_more_tokens_for_the_same_text(shared_client: anthropic.Anthropic) -> None:
    old, new = (
        shared_client.messages.count_tokens(model=model, messages=[{"role": "user", "content": "u" * 4000}])
        for model in (HAIKU, SONNET)
    )
    assert (old.input_tokens - 12, new.input_tokens - 12) == (1000, 1300)


@pytest.mark.parametrize(("size", "tokens"), [((28, 28), 1), ((100, 57), 12), ((8000, 100), 112)])
def test_images_count_by_their_patches_after_reduction(
    shared_client: anthropic.Anthropic, size: tuple[int, int], tokens: int
) -> None:
    out = io.BytesIO()
    Image.new("1", size).save(out, "PNG")
    data = base64.b64encode(out.getvalue()).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    content = [{"type": "image", "source": source}]
    count = shared_client.messages.count_tokens(model=HAIKU, messages=[{"role": "user", "content": content}])  # type: ignore[list-item,typeddict-item]
    # 8,000 by 100 pixels are reduced to 1,568 by 19: 56 patches across, one down.
    expected = 56 if size == (8000, 100) else tokens
    assert count.input_tokens == 12 + expected


def test_what_cannot_be_counted_is_refused(shared: Sandbox) -> None:
    body = b'{"model": "claude-haiku-4-5"}'
    reply = call(shared.url, "POST", "/v1/messages/count_tokens", body)
    assert (reply.status, reply.error[1]) == (400, "messages: Field required")


def test_counting_takes_only_what_counts(shared: Sandbox) -> None:
    body = b'{"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}'
    reply = call(shared.url, "POST", "/v1/messages/count_tokens", body)
    assert (reply.status, reply.error[1]) == (400, "max_tokens: Extra inputs are not permitted")


def test_counting_has_faults_and_a_limit_of_its_own(sandbox: Sandbox) -> None:
    body = b'{"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "Hi"}]}'
    sandbox.configure(rpm=2, count_faults="403")

    def count() -> int:
        return call(sandbox.url, "POST", "/v1/messages/count_tokens", body).status

    assert [count() for _ in range(3)] == [403, 200, 429]
    assert call(sandbox.url, "GET", "/v1/messages/batches").status == 200
