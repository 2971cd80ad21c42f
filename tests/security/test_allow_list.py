"""Ways round the allow-list, and ways to make judging it expensive."""

import gzip
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock import patterns
from passthrough.bedrock.named import MOST_PARTS, model_in_body
from passthrough.bedrock.requested import units_requested
from passthrough.errors import Refusal
from passthrough.policy import access
from passthrough.policy.keys import VirtualKey
from passthrough.proxy.admit import Admit
from passthrough.proxy.route import route

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
CHAT = "/bedrock/openai/v1/chat/completions"
CONVERSE = f"/bedrock/model/{HAIKU}/converse"
AT_ONCE = 1.0  # seconds; what these are about took minutes


def key(*models: str, **fields: Any) -> VirtualKey:
    return VirtualKey(key_id="k", models=models, model_lists=(models,) if models else (), **fields)


class NoProfiles:
    def look_up(self, model: str) -> None: ...

    async def resolve(self, model: str) -> str | None:  # noqa: ARG002  # the interface
        return None


async def admitted(holder: VirtualKey, path: str, headers: Mapping[str, str]) -> None:
    admit = Admit(
        default_region="us-east-1", profiles=NoProfiles(), customers=lambda _end_user: None, clock=lambda: 0.0
    )
    await admit(holder, route("POST", path), scope_region=None, headers=headers, end_user=None)


@pytest.mark.parametrize("text", ["a" * 2040, "a" * 2_000_000])
def test_a_pattern_with_many_stars_is_held_against_a_hostile_id_at_once(text: str) -> None:
    began = time.process_time()
    assert not patterns.matches("*a*a*a*b", text)
    assert not patterns.matches("arn:aws:bedrock:*:*:inference-profile/*b", "arn:aws:bedrock:" + ":" * len(text))
    assert time.process_time() - began < AT_ONCE


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_pattern_matches_what_the_regular_expression_would(pattern: str, text: str) -> None:
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text, re.DOTALL) is not None
    assert patterns.matches(pattern, text) is expected


@pytest.mark.parametrize("model", ["anthropic." + "x" * 3000, "anthropic.\ud800", "anthropic.\x00", "anthropic.\n"])
def test_a_model_in_the_body_that_cannot_be_an_id_is_refused_whatever_the_pattern(model: str) -> None:
    with pytest.raises(Refusal) as refused:
        access.check_body(key("*"), route("POST", CHAT), json.dumps({"model": model}).encode())
    assert refused.value.status == 400
    assert model not in refused.value.message


@pytest.mark.parametrize("piece", [b"{},", b"[],", b"1,"])
@pytest.mark.parametrize(("path", "operation"), [(CHAT, "OpenAIChatCompletions"), ("/bedrock/rerank", "Rerank")])
def test_a_body_of_millions_of_parts_costs_neither_time_nor_memory(piece: bytes, path: str, operation: str) -> None:
    body = b'{"model":"x","sources":[' + piece * (MOST_PARTS + 1) + b"0]}"
    call = route("POST", path)
    began = time.process_time()
    with pytest.raises(Refusal, match="more members"):
        access.check_body(key(HAIKU), call, body)
    assert units_requested(operation, None, body) == {}
    assert operation != "Rerank" or model_in_body(call.operation, body) is None
    assert time.process_time() - began < AT_ONCE


def test_a_large_body_of_text_and_base64_is_read() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "A" * 3_000_000}}, {"type": "text", "text": "so, then " * 9999}]
    body = json.dumps({"model": HAIKU, "messages": [{"role": "user", "content": parts}]}).encode()
    access.check_body(key(HAIKU), route("POST", CHAT), body)


@pytest.mark.parametrize("model", ["x" * 2049, "a\x00b", "a\nb", ""])
def test_what_cannot_be_a_model_id_is_not_recorded_as_one(model: str) -> None:
    for path, document in (
        (CHAT, {"model": model}),
        ("/bedrock/async-invoke", {"modelId": model}),
    ):
        assert model_in_body(route("POST", path).operation, json.dumps(document).encode()) is None


REDIRECTING = [
    "x-amz-target",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
]


@pytest.mark.parametrize("name", REDIRECTING)
@pytest.mark.parametrize("holder", [key(HAIKU), key(allowed_routes=("Converse",))], ids=["models", "routes"])
async def test_a_limited_key_sends_no_field_that_could_make_another_request_of_the_call(
    holder: VirtualKey, name: str
) -> None:
    await admitted(holder, CONVERSE, {})
    with pytest.raises(Refusal) as refused:
        await admitted(holder, CONVERSE, {name: "AmazonBedrockFrontendService.InvokeModel"})
    assert refused.value.status == 403


@pytest.mark.parametrize("name", REDIRECTING)
async def test_a_key_without_limits_sends_what_it_likes(name: str) -> None:
    await admitted(key(), CONVERSE, {name: "anything"})


async def test_a_body_that_is_judged_may_not_be_compressed() -> None:
    with pytest.raises(Refusal) as refused:
        await admitted(key(HAIKU), CHAT, {"content-encoding": "deflate"})
    assert refused.value.status == 400
    await admitted(key(HAIKU), CONVERSE, {"content-encoding": "gzip"})  # the path tells its model
    await admitted(key(), CHAT, {"content-encoding": "gzip"})
    with pytest.raises(Refusal, match="plain JSON"):  # and unannounced it is no JSON
        access.check_body(key(HAIKU), route("POST", CHAT), gzip.compress(json.dumps({"model": HAIKU}).encode()))


OF_A_RESOURCE = [
    ("POST", "/knowledgebases/RESOURCE12/datasources/D/documents/X/content"),
    ("POST", "/knowledgebases/RESOURCE12/datasources/D/get-ingested-document-acl"),
    ("GET", "/agents/RESOURCE12/agentAliases/A/memories"),
    ("DELETE", "/agents/RESOURCE12/agentAliases/A/memories"),
    ("GET", "/flows/RESOURCE12/aliases/A/executions/E"),
    ("POST", "/flows/RESOURCE12/aliases/A/executions/E/stop"),
    ("GET", "/flows/RESOURCE12/executions"),
]


@pytest.mark.parametrize(("method", "path"), OF_A_RESOURCE)
def test_what_belongs_to_a_resource_that_is_not_listed_is_out_of_reach(method: str, path: str) -> None:
    call = route(method, "/bedrock" + path)
    assert call.operation.name
    access.check_model(key(), call)
    access.check_model(key(HAIKU, "RESOURCE12"), call)
    with pytest.raises(Refusal):
        access.check_model(key(HAIKU), call)


def test_new_sessions_guardrails_and_the_catalogue_are_everybodys() -> None:
    for method, path in (
        ("PUT", "/sessions/"),
        ("POST", "/guardrail/g1/version/1/apply"),
        ("GET", "/foundation-models"),
        ("GET", "/openai/v1/models"),
    ):
        access.check_model(key(HAIKU), route(method, "/bedrock" + path))
