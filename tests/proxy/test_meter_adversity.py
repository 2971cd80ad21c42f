"""What the meter says of answers that are cut, compressed, enormous, refused or garbage."""

import gzip
import json
import tracemalloc
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.eventstream import encode, exception_frame
from passthrough.bedrock.operations import Call, operations
from passthrough.bedrock.usage import Usage
from passthrough.proxy.meter import Meter, meter

OPERATIONS = {operation.name: operation for operation in operations()}
NAMES = ["Converse", "InvokeModel", "ApplyGuardrail", "OpenAIChatCompletions"]
STREAMING = ["ConverseStream", "InvokeModelWithResponseStream", "InvokeAgent", "InvokeFlow"]
JSON = [("Content-Type", "application/json")]
STREAM = [("Content-Type", "application/vnd.amazon.eventstream")]
SSE = [("Content-Type", "text/event-stream")]
BODY = json.dumps({"output": {"text": "x" * 500}, "usage": {"inputTokens": 1, "outputTokens": 2}}).encode()
USAGE = Usage(input_tokens=1, output_tokens=2, source="body")


def call(name: str, model: str | None = None) -> Call:
    return Call(OPERATIONS[name], "/", "", {}, model, model, None)


def fields(headers: list[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def watched(
    name: str, headers: list[tuple[str, str]], *chunks: bytes, model: str | None = None, request: bytes = b""
) -> Meter:
    watching = meter(call(name, model), 200, fields(headers), request)
    for chunk in chunks:
        watching.feed(chunk)
    return watching


def frame(name: str, document: object) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, json.dumps(document, separators=(",", ":")).encode())


def chunk(document: object) -> bytes:
    raw = json.dumps(document, separators=(",", ":")).encode()
    return frame("chunk", {"bytes": b64encode(raw).decode()})


def converse_delta(text: str, padding: str = "abcdefghijkl") -> bytes:
    return frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}, "p": padding})


METADATA = frame("metadata", {"usage": {"inputTokens": 3, "outputTokens": 4}})


@pytest.mark.parametrize("status", [400, 403, 424, 429, 500, 503, 302])
def test_an_error_consumes_nothing(status: int) -> None:
    watching = meter(call("Converse"), status, fields(JSON))
    watching.feed(BODY)
    assert watching.usage() == Usage()


def test_a_converse_stream_that_breaks_off_is_estimated_from_its_text() -> None:
    watching = watched("ConverseStream", STREAM, converse_delta("x" * 30), converse_delta("y" * 10, padding=""))
    assert watching.usage() == Usage(output_tokens=10, source="estimate", complete=False)


def test_a_claude_stream_that_breaks_off_keeps_its_input_and_estimates_its_output() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 50, "output_tokens": 1}}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 40}}
    usage = watched("InvokeModelWithResponseStream", STREAM, chunk(start), chunk(delta), chunk(delta)).usage()
    assert usage == Usage(input_tokens=50, output_tokens=20, source="estimate", complete=False)


def test_a_llama_stream_that_breaks_off_keeps_its_running_count() -> None:
    part = {"generation": "a", "prompt_token_count": 25, "generation_token_count": 17, "stop_reason": None}
    usage = watched("InvokeModelWithResponseStream", STREAM, chunk(part)).usage()
    assert usage == Usage(input_tokens=25, output_tokens=17, source="estimate", complete=False)


def test_a_chat_whose_client_did_not_ask_for_usage_is_estimated() -> None:
    delta = json.dumps({"choices": [{"delta": {"content": "x" * 8}}], "usage": None}).encode()
    compact = delta.replace(b": ", b":")
    usage = watched("OpenAIChatCompletions", SSE, b"data: " + compact + b"\n\n", b"data: [DONE]\n\n").usage()
    assert usage == Usage(output_tokens=2, source="estimate", complete=False)


@pytest.mark.parametrize("name", STREAMING)
def test_a_stream_that_breaks_off_before_anything_came_has_no_usage(name: str) -> None:
    watching = watched(name, STREAM, frame("messageStart", {"role": "assistant"})[:20])
    assert watching.usage() == Usage(complete=False)
    assert not watching.at_boundary


def test_an_exception_inside_a_stream_is_named() -> None:
    watching = watched("ConverseStream", STREAM, converse_delta("abcd"), exception_frame("throttlingException", "no"))
    assert watching.usage() == Usage(output_tokens=1, source="estimate", complete=False)
    assert watching.fault == "throttlingException"
    assert watching.at_boundary


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize(
    "end",
    [converse_delta("abcd")[:-5], b"garbage" * 5],
    ids=["that ends inside a frame", "that becomes something else"],
)
def test_a_stream_is_known_as_cut(name: str, end: bytes) -> None:
    watching = watched(name, STREAM, converse_delta("abcd"), end)
    watching.usage()
    assert (watching.cut, watching.fault) == (True, None)
    whole = watched(name, STREAM, converse_delta("abcd"))
    whole.usage()
    assert not whole.cut


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("name", "event", "fault"),
    [
        (
            "AnthropicMessages",
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Over"}}\n\n',
            "overloaded_error",
        ),
        (
            "OpenAIChatCompletions",
            b'data: {"error": {"message": "x", "type": "server_error", "code": 500}}\n\n',
            "server_error",
        ),
        ("OpenAIChatCompletions", b'data: {"error": {"message": "x", "type": null, "code": 500}}\n\n', "500"),
        ("OpenAIResponses", b'data: {"type":"response.completed","response":{"error":null}}\n\n', None),
        ("OpenAIChatCompletions", b'data: {"error": nonsense\n\n', None),
    ],
)
def test_an_error_inside_server_sent_events_is_named(name: str, event: bytes, fault: str | None, size: int) -> None:
    pieces = [event[at : at + size] for at in range(0, len(event), size)]
    watching = watched(name, SSE, *pieces)
    watching.usage()
    assert (watching.fault, watching.cut) == (fault, False)


@pytest.mark.parametrize(
    "before", [b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', b'data: {"usage":{"total_tokens":1}}\n\n']
)
def test_an_error_is_named_though_it_comes_in_one_read_with_other_events(before: bytes) -> None:
    error = b'data: {"error":{"message":"x","type":"server_error"}}\n\n'
    for pieces in ((before, error), (before + error,), (error + before,)):
        watching = watched("OpenAIChatCompletions", SSE, *pieces)
        watching.usage()
        assert watching.fault == "server_error"


def test_an_agent_that_fails_half_way_has_what_it_used_till_then() -> None:
    output = {"traceId": "t", "metadata": {"usage": {"inputTokens": 5, "outputTokens": 6}}}
    ran = frame("trace", {"trace": {"orchestrationTrace": {"modelInvocationOutput": output}}})
    usage = watched("InvokeAgent", STREAM, ran, exception_frame("dependencyFailedException", "no")).usage()
    assert (usage.input_tokens, usage.output_tokens, usage.complete) == (5, 6, False)


def test_a_body_that_is_cut_before_its_usage_is_whole_has_none() -> None:
    for cut in range(len(BODY)):
        assert watched("Converse", JSON, BODY[:cut]).usage() == Usage(complete=False)


def test_a_body_cut_behind_its_usage_is_counted_and_marked() -> None:
    assert watched("Converse", JSON, BODY[:-1] + b',"metrics":{"lat').usage() == Usage(
        input_tokens=1, output_tokens=2, source="body", complete=False
    )


def boundary(frames: list[bytes]) -> set[int]:
    ends = {0}
    for item in frames:
        ends.add(max(ends) + len(item))
    return ends


def test_at_boundary_is_exact_for_every_byte_of_a_stream() -> None:
    frames = [converse_delta("hello"), METADATA, exception_frame("internalServerException", "no")]
    watching = meter(call("ConverseStream"), 200, fields(STREAM))
    for at, byte in enumerate(b"".join(frames), start=1):
        watching.feed(bytes([byte]))
        assert watching.at_boundary == (at in boundary(frames))


@pytest.mark.parametrize("name", STREAMING)
def test_streams_that_nobody_meters_have_boundaries_too(name: str) -> None:
    watching = watched(name, STREAM, METADATA)
    assert watching.at_boundary
    watching.feed(METADATA[:-1])
    assert not watching.at_boundary


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


CODED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]),
    "deflate": zlib.compress(BODY),
    "Deflate": raw_deflate(BODY),
}


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("size", [1, 10, 10_000])
def test_a_compressed_body_is_counted(coding: str, size: int) -> None:
    data = CODED[coding]
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    watching = watched("Converse", [*JSON, ("Content-Encoding", coding)], *chunks)
    assert watching.usage() == USAGE
    assert watching.at_boundary


def test_a_compressed_stream_is_counted_and_takes_no_frame_of_ours() -> None:
    watching = watched("ConverseStream", [*STREAM, ("content-encoding", "gzip")], gzip.compress(METADATA))
    assert watching.usage() == Usage(input_tokens=3, output_tokens=4, source="stream")
    assert not watching.at_boundary


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br"])
def test_an_unknown_coding_is_given_up_on(coding: str) -> None:
    watching = watched("Converse", [*JSON, ("Content-Encoding", coding)], BODY)
    assert watching.usage() == Usage(complete=False)
    assert watching.gave_up


def test_what_is_not_compressed_as_it_says_is_given_up_on() -> None:
    watching = watched("Converse", [*JSON, ("Content-Encoding", "gzip")], BODY, BODY)
    assert not watching.usage().reported
    assert watching.gave_up


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_usage_anywhere_in_twenty_megabytes_is_found_in_bounded_memory(place: str) -> None:
    usage = b'"usage":{"inputTokens":1,"outputTokens":2}'
    text = rb'"output":"' + rb"a \"usage\":{\"inputTokens\":9} and more text, " * 400_000 + b'"'
    body = b"{" + (usage + b"," + text if place == "first" else text + b"," + usage) + b"}"
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    watching = meter(call("Converse"), 200, fields(JSON))
    tracemalloc.start()
    for piece in pieces:
        watching.feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert watching.usage() == USAGE
    assert peak < 512 * 1024


def test_a_stream_of_any_length_is_watched_in_bounded_memory() -> None:
    delta = converse_delta("some words of an answer")
    watching = meter(call("ConverseStream"), 200, fields(STREAM))
    tracemalloc.start()
    for _ in range(50_000):
        watching.feed(delta)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 64 * 1024


def test_a_line_without_an_end_is_not_held() -> None:
    watching = meter(call("OpenAIChatCompletions"), 200, fields(SSE))
    for _ in range(40):
        watching.feed(b"data: " + bytes(65536))
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    watching.feed(b"\ndata: " + json.dumps({"usage": usage}).encode() + b"\n\n")
    assert watching.usage() == Usage(input_tokens=1, output_tokens=2, source="stream")
    assert watching.gave_up  # it may have missed something


@pytest.mark.parametrize(
    ("name", "model", "request_body", "units"),
    [
        ("Rerank", None, {"queries": [{}, {}], "sources": [{}] * 101}, {"searches": 4.0}),
        ("InvokeModel", "cohere.rerank-v3-5:0", {"query": "q", "documents": ["d"] * 100}, {"searches": 1.0}),
        ("InvokeModel", "amazon.rerank-v1:0", {"query": "q", "documents": ["d"] * 201}, {"searches": 3.0}),
        ("InvokeModel", "stability.stable-image-core-v1:1", {"prompt": "a"}, {"images": 1.0}),
        (
            "InvokeModel",
            "amazon.nova-canvas-v1:0",
            {"imageGenerationConfig": {"numberOfImages": 3, "width": 1280, "height": 720, "quality": "premium"}},
            {"images_2048_premium": 3.0},
        ),
        (
            "InvokeModel",
            "amazon.titan-image-generator-v2:0",
            {"taskType": "TEXT_IMAGE"},
            {"images_1024_standard": 1.0},
        ),
    ],
)
def test_what_is_priced_by_the_request_is_counted_from_the_request(
    name: str, model: str | None, request_body: object, units: dict[str, float]
) -> None:
    watching = watched(name, JSON, b'{"results":[]}', model=model, request=json.dumps(request_body).encode())
    assert watching.usage() == Usage(units=units, source="body")
    assert watched(name, JSON, b'{"results":[]}', model=model).usage().units in ({}, {"images": 1.0})


TYPES = ["application/json", "application/vnd.amazon.eventstream", "text/event-stream", "", "text/html"]
CODINGS = ["identity", "gzip", "deflate", "br"]
numbers = st.sampled_from(["0", "12", "-1", "1e9", "99999999999999", "x", "", "\N{ARABIC-INDIC DIGIT ONE}"])


@given(
    st.sampled_from(sorted(OPERATIONS)),
    st.sampled_from(TYPES),
    st.sampled_from(CODINGS),
    numbers,
    st.lists(st.binary(max_size=60), max_size=4),
)
def test_garbage_never_raises(name: str, content_type: str, coding: str, number: str, chunks: list[bytes]) -> None:
    headers = [
        ("Content-Type", content_type),
        ("Content-Encoding", coding),
        ("X-Amzn-Bedrock-Input-Token-Count", number),
        ("X-Amzn-Bedrock-Service-Tier", number),
    ]
    watching = watched(name, headers, *chunks, model="x", request=b"".join(chunks))
    usage = watching.usage()
    assert usage.input_tokens in (None, 0, 12)
    assert usage.output_tokens is None or usage.source == "estimate"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "usage",
                    "inputTokens",
                    "prompt_tokens",
                    "input_tokens",
                    "cacheDetails",
                    "cache_creation",
                    "ttl",
                    "message",
                    "metadata",
                    "response",
                    "trace",
                    "promptRouter",
                    "invokedModelId",
                    "results",
                    "tokenCount",
                    "serviceTier",
                    "performanceConfig",
                    "inputTextTokenCount",
                    "modelInvocationOutput",
                    "modelInvocationInput",
                    "traceId",
                    "foundationModel",
                    "amazon-bedrock-invocationMetrics",
                    "inputTokenCount",
                    "input_tokens_details",
                    "type",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(NAMES + STREAMING), json_values)
def test_known_names_with_unexpected_values_never_raise_nor_count_wrong_things(name: str, document: object) -> None:
    for content, body in (
        (JSON, json.dumps(document).encode()),
        (STREAM, chunk(document) + frame("metadata", document) + frame("trace", document)),
        (SSE, b'data: {"usage":{},' + json.dumps(document).encode()[1:] + b"\n\n"),
    ):
        watching = watched(name, content, body)
        usage = watching.usage()
        for count in (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens):
            assert count is None or 0 <= count < 2**33


@pytest.mark.parametrize("depth", [500, 5_000, 100_000])
@pytest.mark.parametrize("opening", [b'{"message":', b'{"usage":', b"[", b'{"trace":{"promptRouter":'])
def test_deep_nesting_never_raises(depth: int, opening: bytes) -> None:
    for name, headers in (("Converse", JSON), ("OpenAIChatCompletions", JSON)):
        assert not watched(name, headers, opening * depth).usage().reported
    watching = watched(
        "ConverseStream", STREAM, encode({":event-type": "metadata", ":message-type": "event"}, opening * depth)
    )
    assert not watching.usage().reported
