"""Every answer shape, with the counts worked out by hand; any chunking, any coding, any garbage."""

import json
from base64 import b64encode
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.eventstream import encode
from passthrough.bedrock.operations import Call, operations
from passthrough.bedrock.usage import Usage
from passthrough.proxy.meter import Meter, meter

OPERATIONS = {operation.name: operation for operation in operations()}
JSON = [("Content-Type", "application/json")]
STREAM = [("content-type", "application/vnd.amazon.eventstream")]
SSE = [("Content-Type", "text/event-stream; charset=utf-8")]


def call(name: str, model: str | None = None) -> Call:
    return Call(OPERATIONS[name], "/", "", {}, model, model, None)


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


CHUNKINGS = [whole, byte_by_byte]


def fields(headers: list[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def watched(
    subject: Call, headers: list[tuple[str, str]], chunks: list[bytes], status: int = 200, request: bytes = b""
) -> Meter:
    watching = meter(subject, status, fields(headers), request)
    for chunk in chunks:
        watching.feed(chunk)
    return watching


def frame(name: str, document: object) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, json.dumps(document, separators=(",", ":")).encode())


def chunk(document: object) -> bytes:
    raw = json.dumps(document, separators=(",", ":")).encode()
    return frame("chunk", {"bytes": b64encode(raw).decode(), "p": "abcdefgh"})


def sse(*documents: object) -> bytes:
    return b"".join(b"event: x\ndata: " + json.dumps(document).encode() + b"\n\n" for document in documents)


CACHED = {
    "inputTokens": 2,
    "outputTokens": 5,
    "totalTokens": 1329,
    "cacheReadInputTokens": 0,
    "cacheWriteInputTokens": 1322,
    "cacheDetails": [{"ttl": "5m", "inputTokens": 1000}, {"ttl": "1h", "inputTokens": 322}],
    "serverToolUsage": {},
}
CACHED_USAGE = Usage(
    input_tokens=2,
    output_tokens=5,
    cache_read_tokens=0,
    cache_write_tokens=1322,
    cache_write_1h_tokens=322,
    source="body",
)
CLAUDE = {
    "input_tokens": 4,
    "output_tokens": 31,
    "cache_creation_input_tokens": 18131,
    "cache_read_input_tokens": 7,
    "cache_creation": {"ephemeral_5m_input_tokens": 18000, "ephemeral_1h_input_tokens": 131},
}
CLAUDE_USAGE = Usage(
    input_tokens=4,
    output_tokens=31,
    cache_read_tokens=7,
    cache_write_tokens=18131,
    cache_write_1h_tokens=131,
    source="body",
)

BODIES: dict[str, tuple[Call, list[tuple[str, str]], Any, Usage]] = {
    "converse": (
        call("Converse"),
        JSON,
        {"output": {"message": {"content": [{"text": 'a "usage": {"inputTokens": 99}'}]}}, "usage": CACHED},
        CACHED_USAGE,
    ),
    "converse through a prompt router, optimised, flex": (
        call("Converse"),
        JSON,
        {
            "usage": {"inputTokens": 10, "outputTokens": 20, "totalTokens": 30},
            "trace": {"promptRouter": {"invokedModelId": "arn:aws:bedrock:us-east-1::foundation-model/meta.x"}},
            "performanceConfig": {"latency": "optimized"},
            "serviceTier": {"type": "flex"},
        },
        Usage(
            input_tokens=10,
            output_tokens=20,
            source="body",
            model="arn:aws:bedrock:us-east-1::foundation-model/meta.x",
            tier="flex",
            latency="optimized",
        ),
    ),
    "invoke, headers have all": (
        call("InvokeModel", "meta.llama3-8b-instruct-v1:0"),
        [*JSON, ("X-Amzn-Bedrock-Input-Token-Count", "25"), ("X-Amzn-Bedrock-Output-Token-Count", "7")],
        {"generation": "x", "prompt_token_count": 99, "generation_token_count": 99},
        Usage(input_tokens=25, output_tokens=7, source="headers"),
    ),
    "invoke, headers of a cache write, the split in the body": (
        call("InvokeModel", "anthropic.claude"),
        [
            *JSON,
            ("X-Amzn-Bedrock-Input-Token-Count", "4"),
            ("X-Amzn-Bedrock-Output-Token-Count", "31"),
            ("X-Amzn-Bedrock-Cache-Read-Input-Token-Count", "7"),
            ("X-Amzn-Bedrock-Cache-Write-Input-Token-Count", "18131"),
            ("X-Amzn-Bedrock-Service-Tier", "priority"),
        ],
        {"type": "message", "model": "claude-3-5-haiku-20241022", "usage": CLAUDE},
        Usage(
            input_tokens=4,
            output_tokens=31,
            cache_read_tokens=7,
            cache_write_tokens=18131,
            cache_write_1h_tokens=131,
            source="headers",
            tier="priority",
        ),
    ),
    "invoke, Anthropic's body": (call("InvokeModel"), JSON, {"model": "claude-x", "usage": CLAUDE}, CLAUDE_USAGE),
    "invoke, Nova's body": (
        call("InvokeModel"),
        JSON,
        {"usage": {"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokenCount": 5, "cacheWriteInputTokenCount": 6}},
        Usage(input_tokens=3, output_tokens=4, cache_read_tokens=5, cache_write_tokens=6, source="body"),
    ),
    "invoke, Titan's body": (
        call("InvokeModel"),
        JSON,
        {"inputTextTokenCount": 8, "results": [{"tokenCount": 3, "outputText": "a"}, {"tokenCount": 4}]},
        Usage(input_tokens=8, output_tokens=7, source="body"),
    ),
    "invoke, Llama's body": (
        call("InvokeModel"),
        JSON,
        {"generation": "x", "prompt_token_count": 9, "generation_token_count": 2},
        Usage(input_tokens=9, output_tokens=2, source="body"),
    ),
    "invoke, an imported model's body": (
        call("InvokeModel", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/x"),
        JSON,
        {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 12, "total_tokens": 23}},
        Usage(input_tokens=11, output_tokens=12, source="body"),
    ),
    "invoke, Mistral and Cohere without headers": (
        call("InvokeModel", "mistral.mistral-7b-instruct-v0:2"),
        JSON,
        {"outputs": [{"text": "x", "stop_reason": "stop"}]},
        Usage(),
    ),
    "embeddings, header": (
        call("InvokeModel", "cohere.embed-english-v3"),
        [*JSON, ("X-Amzn-Bedrock-Input-Token-Count", "6")],
        {"embeddings": [[0.1, 0.2]]},
        Usage(input_tokens=6, source="headers"),
    ),
    "embeddings, Titan's body": (
        call("InvokeModel", "amazon.titan-embed-text-v2:0"),
        JSON,
        {"embedding": [0.1] * 20, "inputTextTokenCount": 6},
        Usage(input_tokens=6, source="body"),
    ),
    "count tokens": (call("CountTokens"), JSON, {"inputTokens": 15}, Usage()),
    "apply guardrail": (
        call("ApplyGuardrail"),
        JSON,
        {"usage": {"topicPolicyUnits": 1, "contentPolicyUnits": 2, "wordPolicyUnits": 0}, "action": "NONE"},
        Usage(units={"topicPolicyUnits": 1.0, "contentPolicyUnits": 2.0, "wordPolicyUnits": 0.0}, source="body"),
    ),
    "guardrail checks": (
        call("InvokeGuardrailChecks"),
        JSON,
        {"usage": {"contentFilter": {"textUnits": 3}, "promptAttack": {"textUnits": 4}}, "results": {}},
        Usage(units={"contentFilter": 3.0, "promptAttack": 4.0}, source="body"),
    ),
    "chat completion": (
        call("OpenAIChatCompletions"),
        JSON,
        {
            "model": "openai.gpt-oss-120b-1:0",
            "service_tier": "default",
            "usage": {
                "prompt_tokens": 2000,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 1500, "cache_write_tokens": 100},
            },
        },
        Usage(
            input_tokens=400,
            output_tokens=50,
            cache_read_tokens=1500,
            cache_write_tokens=100,
            source="body",
            model="openai.gpt-oss-120b-1:0",
            tier="default",
        ),
    ),
    "responses": (
        call("OpenAIResponses"),
        JSON,
        {
            "object": "response",
            "model": "openai.gpt-5.5",
            "usage": {
                "input_tokens": 12033,
                "input_tokens_details": {"cached_tokens": 11904},
                "output_tokens": 44,
                "output_tokens_details": {"reasoning_tokens": 40},
            },
        },
        Usage(input_tokens=129, output_tokens=44, cache_read_tokens=11904, source="body", model="openai.gpt-5.5"),
    ),
    "messages": (
        call("AnthropicMessages"),
        JSON,
        {"model": "anthropic.claude-opus-4-8", "usage": {**CLAUDE, "service_tier": "standard"}},
        Usage(
            input_tokens=4,
            output_tokens=31,
            cache_read_tokens=7,
            cache_write_tokens=18131,
            cache_write_1h_tokens=131,
            source="body",
            model="anthropic.claude-opus-4-8",
            tier="default",
        ),
    ),
    "retrieve and generate": (call("RetrieveAndGenerate"), JSON, {"output": {"text": "x"}}, Usage()),
}


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("shape", BODIES)
def test_a_body_is_counted(shape: str, chunking: Callable[[bytes], list[bytes]]) -> None:
    subject, headers, document, usage = BODIES[shape]
    watching = watched(subject, headers, chunking(json.dumps(document).encode()))
    assert watching.usage() == usage
    assert watching.at_boundary
    assert not watching.gave_up


METRICS = "amazon-bedrock-invocationMetrics"
CLAUDE_STREAM = [
    chunk({"type": "message_start", "message": {"model": "claude-x", "usage": {**CLAUDE, "output_tokens": 1}}}),
    chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 40}}),
    chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}}),
    chunk({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 31}}),
]
TRACE = {
    "sessionId": "s",
    "trace": {
        "orchestrationTrace": {
            "modelInvocationInput": {"traceId": "t-0", "foundationModel": "anthropic.claude-3-haiku-20240307-v1:0"}
        }
    },
}


def model_ran(trace_id: str, inputs: int, outputs: int, kind: str = "orchestrationTrace") -> dict[str, Any]:
    usage = {"inputTokens": inputs, "outputTokens": outputs}
    raw = {"content": json.dumps({"usage": {"input_tokens": inputs, "output_tokens": outputs}})}
    output = {"traceId": trace_id, "metadata": {"usage": usage}, "rawResponse": raw}
    return {"trace": {kind: {"modelInvocationOutput": output}}}


STREAMS: dict[str, tuple[Call, list[tuple[str, str]], bytes, Usage]] = {
    "converse stream": (
        call("ConverseStream"),
        STREAM,
        frame("messageStart", {"role": "assistant"})
        + frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hello"}, "p": "abc"})
        + frame("messageStop", {"stopReason": "end_turn"})
        + frame("metadata", {"usage": CACHED, "serviceTier": {"type": "priority"}, "p": "abcdef"}),
        Usage(
            input_tokens=2,
            output_tokens=5,
            cache_read_tokens=0,
            cache_write_tokens=1322,
            cache_write_1h_tokens=322,
            source="stream",
            tier="priority",
        ),
    ),
    "Claude, metrics at the end": (
        call("InvokeModelWithResponseStream"),
        STREAM,
        b"".join(CLAUDE_STREAM)
        + chunk(
            {
                "type": "message_stop",
                METRICS: {
                    "inputTokenCount": 5,
                    "outputTokenCount": 33,
                    "cacheReadInputTokenCount": 7,
                    "cacheWriteInputTokenCount": 18131,
                },
            }
        ),
        Usage(
            input_tokens=5,
            output_tokens=33,
            cache_read_tokens=7,
            cache_write_tokens=18131,
            cache_write_1h_tokens=131,
            source="stream",
        ),
    ),
    "Claude, no metrics: the last delta counts, not the sum": (
        call("InvokeModelWithResponseStream"),
        STREAM,
        b"".join(CLAUDE_STREAM),
        Usage(
            input_tokens=4,
            output_tokens=31,
            cache_read_tokens=7,
            cache_write_tokens=18131,
            cache_write_1h_tokens=131,
            source="stream",
        ),
    ),
    "Nova": (
        call("InvokeModelWithResponseStream"),
        [*STREAM, ("X-Amzn-Bedrock-Service-Tier", "flex")],
        chunk({"messageStart": {"role": "assistant"}})
        + chunk({"contentBlockDelta": {"delta": {"text": "hi"}, "contentBlockIndex": 0}})
        + chunk(
            {
                "metadata": {"usage": {"inputTokens": 3, "outputTokens": 4}, "metrics": {}},
                METRICS: {"inputTokenCount": 3, "outputTokenCount": 4},
            }
        ),
        Usage(input_tokens=3, output_tokens=4, source="stream", tier="flex"),
    ),
    "Titan, several chunks: the last metrics win": (
        call("InvokeModelWithResponseStream"),
        STREAM,
        chunk(
            {
                "outputText": "a",
                "totalOutputTextTokenCount": None,
                METRICS: {"inputTokenCount": 9, "outputTokenCount": 1},
            }
        )
        + chunk(
            {"outputText": "b", "totalOutputTextTokenCount": 2, METRICS: {"inputTokenCount": 9, "outputTokenCount": 2}}
        ),
        Usage(input_tokens=9, output_tokens=2, source="stream"),
    ),
    "Llama, Mistral, Cohere: metrics in the last chunk": (
        call("InvokeModelWithResponseStream"),
        STREAM,
        chunk({"generation": "a", "prompt_token_count": 25, "generation_token_count": 1})
        + chunk({"generation": "", "stop_reason": "stop", METRICS: {"inputTokenCount": 25, "outputTokenCount": 2}}),
        Usage(input_tokens=25, output_tokens=2, source="stream"),
    ),
    "OpenAI-shaped chunks": (
        call("InvokeModelWithResponseStream"),
        STREAM,
        chunk({"choices": [{"delta": {"content": "a"}}]})
        + chunk({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}}),
        Usage(input_tokens=5, output_tokens=6, source="stream"),
    ),
    "blocked by a guardrail: floats and no metrics": (
        call("InvokeModelWithResponseStream"),
        STREAM,
        chunk(
            {
                "outputText": "Sorry.",
                "index": 0,
                "totalOutputTextTokenCount": 4.0,
                "inputTextTokenCount": 6.0,
                "completionReason": "FINISH",
                "amazon-bedrock-guardrailAction": "INTERVENED",
            }
        ),
        Usage(input_tokens=6, output_tokens=4, source="stream"),
    ),
    "agent: a sum by model": (
        call("InvokeAgent"),
        STREAM,
        frame("trace", TRACE)
        + frame("trace", model_ran("t-0", 862, 161))
        + frame("chunk", {"bytes": "aGk="})
        + frame(
            "trace",
            {
                "trace": {
                    "postProcessingTrace": {
                        "modelInvocationInput": {"traceId": "t-1", "foundationModel": "amazon.nova-lite-v1:0"}
                    }
                }
            },
        )
        + frame("trace", model_ran("t-1", 10, 20, "postProcessingTrace"))
        + frame(
            "trace",
            {
                "trace": {
                    "orchestrationTrace": {
                        "observation": {
                            "finalResponse": {
                                "text": "x",
                                "metadata": {"usage": {"inputTokens": 872, "outputTokens": 181}},
                            }
                        }
                    }
                }
            },
        ),
        Usage(
            input_tokens=872,
            output_tokens=181,
            source="stream",
            by_model=(
                Usage(
                    input_tokens=862,
                    output_tokens=161,
                    source="stream",
                    model="anthropic.claude-3-haiku-20240307-v1:0",
                ),
                Usage(input_tokens=10, output_tokens=20, source="stream", model="amazon.nova-lite-v1:0"),
            ),
            complete=False,  # another event could follow
        ),
    ),
    "inline agent: one model, twice": (
        call("InvokeInlineAgent"),
        STREAM,
        frame("trace", TRACE) + frame("trace", model_ran("t-0", 100, 10)) + frame("trace", model_ran("t-0", 1, 2)),
        Usage(
            input_tokens=101,
            output_tokens=12,
            source="stream",
            model="anthropic.claude-3-haiku-20240307-v1:0",
            by_model=(
                Usage(
                    input_tokens=101,
                    output_tokens=12,
                    source="stream",
                    model="anthropic.claude-3-haiku-20240307-v1:0",
                ),
            ),
            complete=False,
        ),
    ),
    "agent without traces": (call("InvokeAgent"), STREAM, frame("chunk", {"bytes": "aGk="}), Usage(complete=False)),
    "flow": (call("InvokeFlow"), STREAM, frame("flowOutputEvent", {"content": {"document": "x"}}), Usage()),
    "chat, usage in the last chunk": (
        call("OpenAIChatCompletions"),
        SSE,
        sse({"choices": [{"delta": {"content": 'the "usage":{'}}], "usage": None})
        + sse(
            {
                "model": "openai.gpt-oss-20b-1:0",
                "choices": [],
                "usage": {
                    "prompt_tokens": 30,
                    "completion_tokens": 9,
                    "prompt_tokens_details": {"cached_tokens": 20},
                },
            }
        )
        + b"data: [DONE]\n\n",
        Usage(input_tokens=10, output_tokens=9, cache_read_tokens=20, source="stream", model="openai.gpt-oss-20b-1:0"),
    ),
    "responses, completed": (
        call("OpenAIResponses"),
        SSE,
        sse(
            {"type": "response.created", "response": {"model": "openai.gpt-5.5", "usage": None}},
            {"type": "response.output_text.delta", "delta": "hello"},
            {"type": "response.output_text.done", "text": "hello"},
            {
                "type": "response.completed",
                "response": {
                    "model": "openai.gpt-5.5",
                    "service_tier": "priority",
                    "usage": {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2},
                },
            },
        ),
        Usage(
            input_tokens=7,
            output_tokens=2,
            cache_read_tokens=0,
            source="stream",
            model="openai.gpt-5.5",
            tier="priority",
        ),
    ),
    "messages": (
        call("AnthropicMessages"),
        SSE,
        sse(
            {
                "type": "message_start",
                "message": {"model": "anthropic.claude-x", "usage": {**CLAUDE, "output_tokens": 1}},
            },
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 31}},
            {"type": "message_stop"},
        ),
        Usage(
            input_tokens=4,
            output_tokens=31,
            cache_read_tokens=7,
            cache_write_tokens=18131,
            cache_write_1h_tokens=131,
            source="stream",
            model="anthropic.claude-x",
        ),
    ),
}


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("shape", STREAMS)
def test_a_stream_is_counted(shape: str, chunking: Callable[[bytes], list[bytes]]) -> None:
    subject, headers, body, usage = STREAMS[shape]
    watching = watched(subject, headers, chunking(body))
    assert watching.usage() == usage
    assert watching.at_boundary
    assert not watching.gave_up


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_any_chunking_counts_the_same(shape: str, data: st.DataObject) -> None:
    subject, headers, body, usage = STREAMS[shape]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=10)) | {0, len(body)})
    assert watched(subject, headers, [body[start:end] for start, end in pairwise(cuts)]).usage() == usage
