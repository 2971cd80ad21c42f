"""Claude Code's requests as version 2.1.197 sends them to `ANTHROPIC_BEDROCK_BASE_URL`, by the byte."""

import json

import pytest
from botocore.eventstream import EventStreamBuffer

from tests.conformance.conftest import Wire
from tests.conformance.judge import signature_of, untouched
from tests.fakes.running import Blocking
from tests.fakes.speak import ask

SESSION = "6bb40429-8cd1-47dc-aa6f-0dbc1e75b228"
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
STAINLESS = (
    "Accept: application/json",
    "Content-Type: application/json",
    f"X-Claude-Code-Session-Id: {SESSION}",
    "X-Stainless-Arch: x64",
    "X-Stainless-Lang: js",
    "X-Stainless-OS: Linux",
    "X-Stainless-Package-Version: 0.94.0",
    "X-Stainless-Retry-Count: 0",
    "X-Stainless-Timeout: 600",
    "anthropic-beta: claude-code-20250219",
    "anthropic-dangerous-direct-browser-access: true",
    "anthropic-version: 2023-06-01",
    "x-app: cli",
    "Accept-Encoding: gzip, deflate, br, zstd",
)
BODY = {
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    "system": [{"type": "text", "text": "You are a CLI.", "cache_control": {"type": "ephemeral"}}],
    "max_tokens": 32000,
    "thinking": {"budget_tokens": 31999, "type": "enabled"},
    "anthropic_beta": ["interleaved-thinking-2025-05-14"],
    "anthropic_version": "bedrock-2023-05-31",
}
# How ANTHROPIC_AUTH_TOKEN, ANTHROPIC_API_KEY, apiKeyHelper and ANTHROPIC_CUSTOM_HEADERS give the key.
GIVEN = {
    "auth token": ("Authorization: Bearer {key}",),
    "api key": ("X-Api-Key: {key}",),
    "key helper": ("Authorization: Bearer {key}", "X-Api-Key: {key}"),
    "custom header": ("x-litellm-api-key: {key}",),
}


@pytest.mark.parametrize("given", GIVEN)
def test_it_streams_its_answer_and_its_session_is_in_the_ledger(
    given: str, proxy: Blocking, wire: Wire, key: str
) -> None:
    line = f"POST /bedrock/model/{MODEL}/invoke-with-response-stream"
    place = [field.format(key=key) for field in GIVEN[given]]

    answer = ask(proxy.url, line, *place, *STAINLESS, body=json.dumps(BODY).encode())

    assert answer.value("content-type") == "application/vnd.amazon.eventstream"
    frames = EventStreamBuffer()
    frames.add_data(answer.body)
    assert {event.headers[":event-type"] for event in frames} == {"chunk"}
    untouched(wire.exchange)
    signature_of(wire.exchange.forwarded)
    row = proxy.rows()[-1]
    assert (row["session_id"], row["model"], row["outcome"]) == (SESSION, MODEL, "ok")
    assert (row["usage_source"], row["price_status"]) == ("stream", "priced")


def test_it_lists_inference_profiles_at_its_start(proxy: Blocking, wire: Wire, key: str) -> None:
    answer = ask(proxy.url, "GET /bedrock/inference-profiles?type=SYSTEM_DEFINED", f"Authorization: Bearer {key}")

    assert json.loads(answer.body)["inferenceProfileSummaries"]
    untouched(wire.exchange)
    assert proxy.rows()[-1]["service"] == "bedrock"
