"""The SDKs that people use, whole and streamed; what they send and get is the same on both sides of the proxy."""

from typing import Any

import anthropic
import openai
import pytest
from langchain_aws import BedrockEmbeddings, ChatBedrock, ChatBedrockConverse

from tests.conformance.conftest import Wire
from tests.conformance.judge import signature_of, untouched
from tests.fakes.running import Blocking

CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"
GPT = "openai.gpt-oss-20b-1:0"
SAID: list[Any] = [{"role": "user", "content": "hello there"}]
REPLY = "This is the passthrough sandbox"


@pytest.fixture(autouse=True)
def _nothing_changed(wire: Wire, key: str) -> Any:
    """After each test: every call it made is the same on both sides, signed anew, and without the key."""
    yield
    assert wire.exchanges
    for exchange in wire.exchanges:
        untouched(exchange)
        signature_of(exchange.forwarded)
    assert key.encode() not in wire.upstream_bytes


# -- Anthropic's


@pytest.mark.parametrize(
    "credentials",
    [{"api_key": "{key}"}, {"aws_access_key": "{key}", "aws_secret_key": "anything"}],
    ids=["bearer", "sigv4"],
)
@pytest.mark.parametrize(
    "model",
    [CLAUDE, f"us.{CLAUDE}", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"],
    ids=["model", "profile", "arn"],
)
def test_anthropics_bedrock_client_creates_and_streams(
    model: str, credentials: dict[str, str], proxy: Blocking, key: str
) -> None:
    given: dict[str, Any] = {name: value.format(key=key) for name, value in credentials.items()}
    with anthropic.AnthropicBedrock(**given, aws_region="us-east-1", base_url=proxy.bedrock, max_retries=0) as client:
        message = client.messages.create(model=model, max_tokens=100, messages=SAID)
        with client.messages.stream(model=model, max_tokens=100, messages=SAID) as stream:
            streamed = stream.get_final_message()

    (block,), (streamed_block,) = message.content, streamed.content
    assert block.type == streamed_block.type == "text"
    assert block.text == streamed_block.text
    assert block.text.startswith(REPLY)
    assert message.usage.output_tokens == streamed.usage.output_tokens


@pytest.mark.parametrize("place", ["api_key", "auth_token"])
def test_anthropics_own_client_works_on_bedrocks_messages_endpoint(place: str, proxy: Blocking, key: str) -> None:
    given: dict[str, Any] = {"api_key": None, place: key}
    with anthropic.Anthropic(**given, base_url=f"{proxy.bedrock}/anthropic", max_retries=0) as client:
        message = client.messages.create(model=CLAUDE, max_tokens=100, messages=SAID)
        with client.messages.stream(model=CLAUDE, max_tokens=100, messages=SAID) as stream:
            text = "".join(stream.text_stream)
        counted = client.messages.count_tokens(model=CLAUDE, messages=SAID)

    (block,) = message.content
    assert block.type == "text"
    assert block.text == text
    assert counted.input_tokens == message.usage.input_tokens


# -- OpenAI's


def test_openais_client_completes_streams_and_lists(proxy: Blocking, key: str) -> None:
    with openai.OpenAI(api_key=key, base_url=f"{proxy.bedrock}/openai/v1", max_retries=0) as client:
        completion = client.chat.completions.create(model=GPT, messages=SAID)
        chunks = list(
            client.chat.completions.create(
                model=GPT, messages=SAID, stream=True, stream_options={"include_usage": True}
            )
        )
        models = client.models.list()

    text = completion.choices[0].message.content
    assert text is not None
    assert text.startswith(REPLY)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == text
    assert completion.usage is not None
    assert chunks[-1].usage == completion.usage
    assert models.data


def test_openais_client_asks_for_responses(proxy: Blocking, key: str) -> None:
    with openai.OpenAI(api_key=key, base_url=f"{proxy.bedrock}/openai/v1", max_retries=0) as client:
        response = client.responses.create(model=GPT, input="hello there")
        events = list(client.responses.create(model=GPT, input="hello there", stream=True))

    assert response.output_text.startswith(REPLY)
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == response.output_text


# -- LangChain


def test_langchain_invokes_streams_and_embeds(proxy: Blocking, key: str) -> None:
    place: dict[str, Any] = {
        "region_name": "us-east-1",
        "endpoint_url": proxy.bedrock,
        "aws_access_key_id": key,
        "aws_secret_access_key": "anything",
    }
    converse = ChatBedrockConverse(model=CLAUDE, **place)
    invoke = ChatBedrock(model=CLAUDE, **place)
    embeddings = BedrockEmbeddings(model_id="amazon.titan-embed-text-v2:0", **place)

    whole = converse.invoke("hello there")
    streamed = "".join(str(chunk.text) for chunk in converse.stream("hello there"))
    by_invoke = invoke.invoke("hello there")
    vector = embeddings.embed_query("hello there")
    for each in (converse, invoke, embeddings):
        each.client.close()

    assert str(whole.text).startswith(REPLY)
    assert streamed == str(whole.text) == str(by_invoke.text)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0
    assert len(vector) == 1024
