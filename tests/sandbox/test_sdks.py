"""Anthropic's and OpenAI's own SDKs against the endpoints that are shaped for them."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from passthrough.sandbox import DEFAULT_BEARER_TOKEN, DEFAULT_CREDENTIALS, Sandbox

MODEL = "anthropic.claude-sonnet-4-20250514-v1:0"
SAID: list[Any] = [{"role": "user", "content": "hello there"}]
TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
FUNCTION: Any = {"name": "weather", "parameters": TOOL["input_schema"]}


@pytest.fixture
async def bedrock(sandbox: Sandbox) -> AsyncIterator[anthropic.AsyncAnthropicBedrock]:
    async with anthropic.AsyncAnthropicBedrock(
        aws_access_key=DEFAULT_CREDENTIALS.access_key,
        aws_secret_key=DEFAULT_CREDENTIALS.secret_key,
        aws_region="us-east-1",
        base_url=sandbox.url,
        max_retries=0,
    ) as client:
        yield client


@pytest.fixture
async def messages_api(sandbox: Sandbox) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        auth_token=DEFAULT_BEARER_TOKEN, api_key=None, base_url=f"{sandbox.url}/anthropic", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def openai_api(sandbox: Sandbox) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=DEFAULT_BEARER_TOKEN, base_url=f"{sandbox.url}/openai/v1", max_retries=0
    ) as client:
        yield client


async def test_anthropics_bedrock_client_invokes_and_streams(bedrock: anthropic.AsyncAnthropicBedrock) -> None:
    whole = await bedrock.messages.create(model=MODEL, max_tokens=100, messages=SAID)
    async with bedrock.messages.stream(model=MODEL, max_tokens=100, messages=SAID) as stream:
        text = "".join([part async for part in stream.text_stream])
        final = await stream.get_final_message()

    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert (final.usage.input_tokens, final.stop_reason) == (3, "end_turn")


async def test_the_messages_api_answers_streams_and_counts(messages_api: anthropic.AsyncAnthropic) -> None:
    whole = await messages_api.messages.create(model=MODEL, max_tokens=100, messages=SAID)
    async with messages_api.messages.stream(model=MODEL, max_tokens=100, messages=SAID) as stream:
        final = await stream.get_final_message()
    counted = await messages_api.messages.count_tokens(model=MODEL, messages=SAID)

    assert [block.text for block in final.content] == [block.text for block in whole.content]  # type: ignore[union-attr]  # text blocks
    assert counted.input_tokens == whole.usage.input_tokens == 3


async def test_the_messages_api_uses_a_demanded_tool(messages_api: anthropic.AsyncAnthropic) -> None:
    choice: Any = {"type": "tool", "name": "weather"}
    asked: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": SAID,
        "tools": [TOOL],
        "tool_choice": choice,
    }

    whole = await messages_api.messages.create(**asked)
    async with messages_api.messages.stream(**asked) as stream:
        final = await stream.get_final_message()

    assert whole.content[0].type == "tool_use"
    assert whole.content[0].input == {"city": "sandbox"}
    assert final.content[0].type == "tool_use"
    assert final.content[0].input == {"city": "sandbox"}
    assert whole.stop_reason == final.stop_reason == "tool_use"


async def test_the_messages_api_words_its_errors_as_anthropic_does(messages_api: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="at least one message is required"):
        await messages_api.messages.create(model=MODEL, max_tokens=1, messages=[])
    with pytest.raises(anthropic.RateLimitError):
        await messages_api.messages.create(model="sandbox.throttle", max_tokens=1, messages=SAID)


async def test_chat_completions_answer_and_stream_with_usage_when_asked(openai_api: openai.AsyncOpenAI) -> None:
    whole = await openai_api.chat.completions.create(model="openai.gpt-oss-20b-1:0", messages=SAID)
    stream = await openai_api.chat.completions.create(
        model="openai.gpt-oss-20b-1:0", messages=SAID, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    bare = [
        chunk async for chunk in await openai_api.chat.completions.create(model="openai.x", messages=SAID, stream=True)
    ]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 3
    assert not any(chunk.usage for chunk in bare)


async def test_chat_completions_use_a_demanded_tool(openai_api: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "openai.gpt-oss-20b-1:0",
        "messages": SAID,
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "required",
    }

    whole = await openai_api.chat.completions.create(**asked)
    chunks = [chunk async for chunk in await openai_api.chat.completions.create(**asked, stream=True)]

    calls = whole.choices[0].message.tool_calls
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or []]
    assert [call.function.arguments for call in calls or []] == ['{"city":"sandbox"}']
    assert "".join(part.function.arguments for part in parts) == '{"city":"sandbox"}'
    assert whole.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("limit", [None, 16])
async def test_responses_answer_and_stream(limit: int | None, openai_api: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "openai.gpt-oss-20b-1:0", "input": "hello there"}
    if limit:
        asked["max_output_tokens"] = limit

    whole = await openai_api.responses.create(**asked)
    async with openai_api.responses.stream(**asked) as stream:
        events = [event.type async for event in stream]
        final = await stream.get_final_response() if limit is None else None

    assert "hello there" in whole.output_text or limit
    assert whole.status == ("incomplete" if limit else "completed")
    assert whole.usage is not None
    assert whole.usage.input_tokens == 3
    assert whole.usage.output_tokens == (limit or whole.usage.output_tokens)
    assert events[0] == "response.created"
    assert events[-1] == ("response.incomplete" if limit else "response.completed")
    assert final is None or final.output_text == whole.output_text


async def test_responses_use_a_demanded_tool(openai_api: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "openai.gpt-oss-20b-1:0",
        "input": SAID,
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "weather"},
    }

    whole = await openai_api.responses.create(**asked)
    stream = await openai_api.responses.create(**asked, stream=True)
    events = [event async for event in stream]

    assert [item.arguments for item in whole.output if item.type == "function_call"] == ['{"city":"sandbox"}']
    done = [event.arguments for event in events if event.type == "response.function_call_arguments.done"]
    assert done == ['{"city":"sandbox"}']


async def test_models_are_listed_and_found(openai_api: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in openai_api.models.list()]

    assert "openai.gpt-oss-120b-1:0" in listed
    assert (await openai_api.models.retrieve(listed[0])).id == listed[0]


async def test_openai_errors_are_worded_as_openai_does(openai_api: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Field required: messages"):
        await openai_api.chat.completions.create(model="openai.x", messages=[])
    with pytest.raises(openai.RateLimitError):
        await openai_api.responses.create(model="sandbox.throttle", input="x")
