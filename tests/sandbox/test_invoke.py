"""InvokeModel for each family: the model's own JSON, AWS's headers, the same as a stream."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from passthrough.sandbox import Sandbox
from tests.sandbox.client import MODEL, call
from tests.sandbox.conftest import Clients

Json = dict[str, Any]
SAID = "hello there"  # 11 characters, 3 tokens
MESSAGES = [{"role": "user", "content": SAID}]
CLAUDE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 500, "messages": MESSAGES}


def _openai_text(chunk: Json) -> str:
    return str(chunk["choices"][0]["delta"].get("content") or "")


# model id → request, where the text is in the answer, where it is in a chunk.
TALKERS: dict[str, tuple[Json, Callable[[Json], str], Callable[[Json], str]]] = {
    MODEL: (CLAUDE, lambda body: body["content"][0]["text"], lambda chunk: chunk.get("delta", {}).get("text", "")),
    "us.anthropic.claude-3-5-haiku-20241022-v1:0": (
        CLAUDE,
        lambda body: body["content"][0]["text"],
        lambda chunk: chunk.get("delta", {}).get("text", ""),
    ),
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc": (
        CLAUDE,
        lambda body: body["content"][0]["text"],
        lambda chunk: chunk.get("delta", {}).get("text", ""),
    ),
    "amazon.nova-lite-v1:0": (
        {"messages": [{"role": "user", "content": [{"text": SAID}]}]},
        lambda body: body["output"]["message"]["content"][0]["text"],
        lambda chunk: chunk.get("contentBlockDelta", {}).get("delta", {}).get("text", ""),
    ),
    "amazon.titan-text-express-v1": (
        {"inputText": SAID},
        lambda body: body["results"][0]["outputText"],
        lambda chunk: chunk["outputText"],
    ),
    "meta.llama3-1-8b-instruct-v1:0": (
        {"prompt": SAID},
        lambda body: body["generation"],
        lambda chunk: chunk["generation"],
    ),
    "mistral.mistral-7b-instruct-v0:2": (
        {"prompt": SAID},
        lambda body: body["outputs"][0]["text"],
        lambda chunk: chunk["outputs"][0]["text"],
    ),
    "mistral.mistral-large-2407-v1:0": (
        {"messages": MESSAGES},
        lambda body: body["choices"][0]["message"]["content"],
        _openai_text,
    ),
    "cohere.command-text-v14": (
        {"prompt": SAID},
        lambda body: body["generations"][0]["text"],
        lambda chunk: chunk.get("text", ""),
    ),
    "cohere.command-r-v1:0": (
        {"message": SAID},
        lambda body: body["text"],
        lambda chunk: chunk.get("text", ""),
    ),
    "ai21.jamba-1-5-large-v1:0": (
        {"messages": MESSAGES},
        lambda body: body["choices"][0]["message"]["content"],
        _openai_text,
    ),
    "openai.gpt-oss-20b-1:0": (
        {"messages": MESSAGES},
        lambda body: body["choices"][0]["message"]["content"],
        _openai_text,
    ),
    "arn:aws:bedrock:us-east-1:123456789012:imported-model/abc": (
        {"messages": MESSAGES},
        lambda body: body["choices"][0]["message"]["content"],
        _openai_text,
    ),
}


async def invoke(client: Any, model: str, body: Json | bytes, **more: Any) -> tuple[Json, Json]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await call(client, "invoke_model", modelId=model, body=raw, **more)
    return json.loads(answer["body"]), answer["ResponseMetadata"]["HTTPHeaders"]


@pytest.mark.parametrize("model", TALKERS)
async def test_a_model_answers_in_its_own_words_and_aws_counts_in_headers(
    model: str, sandbox: Sandbox, clients: Clients
) -> None:
    request, text_of, _ = TALKERS[model]

    body, headers = await invoke(clients(sandbox), model, request)

    text = text_of(body)
    assert SAID in text
    assert headers["content-type"] == "application/json"
    assert headers["x-amzn-bedrock-input-token-count"] == "3"
    assert headers["x-amzn-bedrock-output-token-count"] == str(-(-len(text) // 4))
    assert int(headers["x-amzn-bedrock-invocation-latency"]) > 0
    assert "x-amzn-bedrock-cache-read-input-token-count" not in headers


@pytest.mark.parametrize("model", TALKERS)
async def test_a_model_streams_what_it_answers_and_counts_in_the_last_chunk(
    model: str, sandbox: Sandbox, clients: Clients
) -> None:
    request, text_of, delta_of = TALKERS[model]
    client = clients(sandbox)
    body, headers = await invoke(client, model, request)

    answer = await call(client, "invoke_model_with_response_stream", modelId=model, body=json.dumps(request).encode())

    chunks = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    assert "".join(delta_of(chunk) for chunk in chunks) == text_of(body)
    assert [at for at, chunk in enumerate(chunks) if "amazon-bedrock-invocationMetrics" in chunk] == [len(chunks) - 1]
    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
    assert str(metrics["inputTokenCount"]) == headers["x-amzn-bedrock-input-token-count"]
    assert str(metrics["outputTokenCount"]) == headers["x-amzn-bedrock-output-token-count"]
    assert answer["contentType"] == "application/json"
    assert "x-amzn-bedrock-input-token-count" not in answer["ResponseMetadata"]["HTTPHeaders"]


async def test_ai21s_old_models_cannot_be_streamed(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox)
    body, _ = await invoke(client, "ai21.j2-ultra-v1", {"prompt": SAID})

    with pytest.raises(client.exceptions.ValidationException, match="unsupported for streaming"):
        await call(client, "invoke_model_with_response_stream", modelId="ai21.j2-ultra-v1", body=b'{"prompt": "x"}')

    assert SAID in body["completions"][0]["data"]["text"]


async def test_claudes_usage_is_in_the_body_the_headers_and_both_ends_of_the_stream(
    sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox)
    block = {"type": "text", "text": "c" * 40, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    request = {**CLAUDE, "system": [block]}

    body, headers = await invoke(client, MODEL, request)
    answer = await call(client, "invoke_model_with_response_stream", modelId=MODEL, body=json.dumps(request).encode())

    usage = body["usage"]
    assert (usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]) == (3, 10, 0)
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 10}
    assert headers["x-amzn-bedrock-cache-write-input-token-count"] == "10"
    assert headers["x-amzn-bedrock-cache-read-input-token-count"] == "0"
    chunks = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    opening = chunks[0]["message"]["usage"]
    assert (opening["input_tokens"], opening["cache_read_input_tokens"], opening["output_tokens"]) == (3, 10, 1)
    assert chunks[-2]["usage"] == {"output_tokens": usage["output_tokens"]}
    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
    assert (metrics["cacheReadInputTokenCount"], metrics["cacheWriteInputTokenCount"]) == (10, 0)
    assert body["model"] == "claude-3-5-sonnet-20241022"


@pytest.mark.parametrize(
    ("model", "request_body", "vector_of", "dimensions"),
    [
        ("amazon.titan-embed-text-v1", {"inputText": SAID}, lambda body: body["embedding"], 1536),
        ("amazon.titan-embed-text-v2:0", {"inputText": SAID}, lambda body: body["embeddingsByType"]["float"], 1024),
        ("amazon.titan-embed-text-v2:0", {"inputText": SAID, "dimensions": 256}, lambda body: body["embedding"], 256),
        ("amazon.titan-embed-image-v1", {"inputText": SAID}, lambda body: body["embedding"], 1024),
        ("cohere.embed-english-v3", {"texts": [SAID]}, lambda body: body["embeddings"][0], 1024),
        ("cohere.embed-v4:0", {"texts": [SAID]}, lambda body: body["embeddings"]["float"][0], 1536),
    ],
)
async def test_an_embedding_has_an_input_count_and_no_output_count(
    model: str,
    request_body: Json,
    vector_of: Callable[[Json], list[float]],
    dimensions: int,
    sandbox: Sandbox,
    clients: Clients,
) -> None:
    body, headers = await invoke(clients(sandbox), model, request_body)

    vector = vector_of(body)
    assert len(vector) == dimensions
    assert sum(number * number for number in vector) == pytest.approx(1)
    assert headers["x-amzn-bedrock-input-token-count"] == "3"
    assert "x-amzn-bedrock-output-token-count" not in headers


async def test_equal_texts_have_equal_embeddings_and_others_have_others(sandbox: Sandbox, clients: Clients) -> None:
    request = {"texts": ["a", "b", "a"]}

    body, _ = await invoke(clients(sandbox), "cohere.embed-english-v3", request)

    first, second, third = body["embeddings"]
    assert first == third != second


async def test_a_ranking_model_has_no_token_counts_at_all(sandbox: Sandbox, clients: Clients) -> None:
    request = {"query": "red fox", "documents": ["a blue whale", "the red fox", "a red barn"], "top_n": 2}

    body, headers = await invoke(clients(sandbox), "cohere.rerank-v3-5:0", request)

    assert [result["index"] for result in body["results"]] == [1, 2]
    assert not [name for name in headers if "token-count" in name]


async def test_an_image_model_draws_as_many_pictures_as_asked(sandbox: Sandbox, clients: Clients) -> None:
    request = {"taskType": "TEXT_IMAGE", "imageGenerationConfig": {"numberOfImages": 2}}

    body, _ = await invoke(clients(sandbox), "amazon.nova-canvas-v1:0", request)

    assert len(body["images"]) == 2


async def test_tier_and_latency_are_confirmed_in_headers(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox)
    chosen = {"performanceConfigLatency": "optimized", "serviceTier": "flex"}

    answer = await call(client, "invoke_model", modelId=MODEL, body=json.dumps(CLAUDE).encode(), **chosen)

    assert {name: answer[name] for name in chosen} == chosen


async def test_the_echo_model_gives_back_the_bytes(sandbox: Sandbox, clients: Clients) -> None:
    body = bytes(range(256))

    answer = await call(clients(sandbox), "invoke_model", modelId="sandbox.echo", body=body, contentType="image/png")

    assert (answer["body"], answer["contentType"]) == (body, "image/png")


@pytest.mark.parametrize(
    ("model", "body", "text"),
    [
        (MODEL, b"not json", "Malformed input request, please reformat your input and try again."),
        (MODEL, b"[]", "Malformed input request"),
        (MODEL, b'{"messages": [], "max_tokens": 1}', "anthropic_version: Field required"),
        (MODEL, b'{"anthropic_version": "x", "messages": []}', "max_tokens: Field required"),
        (MODEL, b'{"anthropic_version": "x", "max_tokens": 1, "messages": []}', "at least one message is required"),
        ("amazon.titan-text-lite-v1", b"{}", "required key [inputText] not found"),
        ("amazon.titan-embed-text-v1", b"{}", "required key [inputText] not found"),
        ("amazon.nova-lite-v1:0", b"{}", "required key [messages] not found"),
        ("cohere.embed-english-v3", b"{}", "valid texts must be provided"),
        ("cohere.rerank-v3-5:0", b"{}", "query and documents are required"),
    ],
)
async def test_a_body_that_the_model_refuses_is_a_validation_exception(
    model: str, body: bytes, text: str, sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox)

    with pytest.raises(client.exceptions.ValidationException) as caught:
        await call(client, "invoke_model", modelId=model, body=body)

    assert text in caught.value.response["Error"]["Message"]
