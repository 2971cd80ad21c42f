"""Converse and ConverseStream as boto3 sees them: content, usage, tools, caching, errors."""

from typing import Any

import pytest

from passthrough.sandbox import Sandbox
from tests.sandbox.client import HELLO, MODEL, call
from tests.sandbox.conftest import Clients

TOOL = {
    "toolSpec": {
        "name": "weather",
        "inputSchema": {
            "json": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
        },
    }
}


def text_of(answer: dict[str, Any]) -> str:
    return "".join(block["text"] for block in answer["output"]["message"]["content"])


async def test_the_answer_quotes_the_user_and_counts_a_token_for_four_characters(
    sandbox: Sandbox, clients: Clients
) -> None:
    answer = await call(clients(sandbox), "converse", modelId=MODEL, messages=HELLO, system=[{"text": "be brief"}])

    text = text_of(answer)
    assert "hello there" in text
    output = -(-len(text) // 4)
    # "be brief" and "hello there" are 19 characters: 5 tokens.
    assert answer["usage"] == {"inputTokens": 5, "outputTokens": output, "totalTokens": 5 + output}
    assert answer["stopReason"] == "end_turn"
    assert answer["metrics"]["latencyMs"] > 0


async def test_the_stream_says_what_the_whole_answer_says(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox)
    whole = await call(client, "converse", modelId=MODEL, messages=HELLO)

    events = (await call(client, "converse_stream", modelId=MODEL, messages=HELLO))["stream"]

    names = [name for event in events for name in event]
    deltas = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert names[0] == "messageStart"
    assert names[-3:] == ["contentBlockStop", "messageStop", "metadata"]
    assert "".join(deltas) == text_of(whole)
    assert len(deltas) > 10
    assert events[-1]["metadata"]["usage"] == whole["usage"]


async def test_max_tokens_cut_the_answer_short(sandbox: Sandbox, clients: Clients) -> None:
    answer = await call(clients(sandbox), "converse", modelId=MODEL, messages=HELLO, inferenceConfig={"maxTokens": 5})

    assert answer["stopReason"] == "max_tokens"
    assert answer["usage"]["outputTokens"] == 5


@pytest.mark.parametrize("choice", [{"tool": {"name": "weather"}}, {"any": {}}])
async def test_a_demanded_tool_is_used_with_input_that_fits_its_schema(
    choice: dict[str, Any], sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox)
    asked = {"modelId": MODEL, "messages": HELLO, "toolConfig": {"tools": [TOOL], "toolChoice": choice}}

    answer = await call(client, "converse", **asked)
    events = (await call(client, "converse_stream", **asked))["stream"]

    (block,) = answer["output"]["message"]["content"]
    assert block["toolUse"]["name"] == "weather"
    assert block["toolUse"]["input"] == {"city": "sandbox", "days": 1}
    assert answer["stopReason"] == "tool_use"
    started = [
        event["contentBlockStart"]["start"]["toolUse"]["name"] for event in events if "contentBlockStart" in event
    ]
    pieces = [
        event["contentBlockDelta"]["delta"]["toolUse"]["input"] for event in events if "contentBlockDelta" in event
    ]
    assert started == ["weather"]
    assert "".join(pieces) == '{"city":"sandbox","days":1}'


async def test_an_offered_tool_is_not_used_when_the_model_may_talk(sandbox: Sandbox, clients: Clients) -> None:
    answer = await call(clients(sandbox), "converse", modelId=MODEL, messages=HELLO, toolConfig={"tools": [TOOL]})

    assert answer["stopReason"] == "end_turn"


async def test_a_prompt_with_cache_points_is_written_once_and_then_read(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox)
    asked = {
        "modelId": MODEL,
        "system": [{"text": "s" * 400}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": [{"text": "m" * 40}, {"cachePoint": {"type": "default"}}, {"text": "q" * 4}]}
        ],
    }

    first = (await call(client, "converse", **asked))["usage"]
    second = (await call(client, "converse", **asked))["usage"]
    other_model = (await call(client, "converse", **{**asked, "modelId": "amazon.nova-lite-v1:0"}))["usage"]

    assert (first["inputTokens"], first["cacheReadInputTokens"], first["cacheWriteInputTokens"]) == (1, 0, 110)
    assert first["cacheDetails"] == [{"ttl": "5m", "inputTokens": 10}, {"ttl": "1h", "inputTokens": 100}]
    assert (second["inputTokens"], second["cacheReadInputTokens"], second["cacheWriteInputTokens"]) == (1, 110, 0)
    assert first["totalTokens"] == second["totalTokens"] == 1 + 110 + first["outputTokens"]
    assert other_model["cacheWriteInputTokens"] == 110


async def test_the_choices_of_the_request_are_confirmed(sandbox: Sandbox, clients: Clients) -> None:
    answer = await call(
        clients(sandbox),
        "converse",
        modelId="arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1",
        messages=HELLO,
        performanceConfig={"latency": "optimized"},
        serviceTier={"type": "priority"},
    )

    assert answer["performanceConfig"] == {"latency": "optimized"}
    assert answer["serviceTier"] == {"type": "priority"}
    assert "us.anthropic." in answer["trace"]["promptRouter"]["invokedModelId"]


async def test_a_guardrail_blocks_what_it_is_told_to_block(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox)
    guardrail = {"guardrailIdentifier": "abc123", "guardrailVersion": "1", "trace": "enabled"}
    blocked = [{"role": "user", "content": [{"text": "please sandbox.intervene now"}]}]

    answer = await call(client, "converse", modelId=MODEL, messages=blocked, guardrailConfig=guardrail)
    let_through = await call(client, "converse", modelId=MODEL, messages=HELLO, guardrailConfig=guardrail)

    assert answer["stopReason"] == "guardrail_intervened"
    assert answer["usage"] == {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}
    assessment = answer["trace"]["guardrail"]["inputAssessment"]["abc123"]
    assert assessment["wordPolicy"]["customWords"][0]["match"] == "sandbox.intervene"
    assert let_through["stopReason"] == "end_turn"


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"messages": []}, "A conversation must start with a user message."),
        ({"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}, "must start with a user message."),
        ({"messages": [{"role": "nobody", "content": []}]}, "enum value set: [user, assistant, system]"),
    ],
)
async def test_a_conversation_that_aws_refuses_is_a_validation_exception(
    asked: dict[str, Any], text: str, sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox)

    with pytest.raises(client.exceptions.ValidationException) as caught:
        await call(client, "converse", modelId=MODEL, **asked)

    assert text in caught.value.response["Error"]["Message"]


async def test_counting_tokens_agrees_with_being_billed_for_them(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox)
    converse = {"messages": HELLO, "system": [{"text": "be brief, and be kind"}], "toolConfig": {"tools": [TOOL]}}
    body = b'{"anthropic_version": "x", "max_tokens": 5, "messages": [{"role": "user", "content": "hello there"}]}'

    counted = await call(client, "count_tokens", modelId=MODEL, input={"converse": converse})
    billed = await call(client, "converse", modelId=MODEL, **converse)
    counted_raw = await call(client, "count_tokens", modelId=MODEL, input={"invokeModel": {"body": body}})
    billed_raw = await call(client, "invoke_model", modelId=MODEL, body=body)

    assert counted["inputTokens"] == billed["usage"]["inputTokens"] == 10
    headers = billed_raw["ResponseMetadata"]["HTTPHeaders"]
    assert str(counted_raw["inputTokens"]) == headers["x-amzn-bedrock-input-token-count"] == "3"
