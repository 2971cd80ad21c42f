"""What a body does not say plainly, or AWS adds to it, is bounded too; and what is only written oddly costs no more."""

import json

import pytest

from passthrough.proxy.route import route
from tests.policy.estimating import CLAUDE, ESTIMATES, NOVA, bound, calling, entry_for

# as Go's and .NET's encoders write "a < b's": that hides nothing
ESCAPED = b'{"messages":[{"content":[{"text":"a \\u003c b\\u0027s, \\\\u0061"}]}],"tools":[{"name":"x"}],%b}'


@pytest.mark.parametrize(
    ("model", "operation", "maximum"),
    [
        (NOVA, "converse", b'"inferenceConfig":{"maxTokens":7}'),
        (CLAUDE, "invoke", b'"max_tokens":7'),
        ("openai.gpt-oss-20b-1:0", "invoke", b'"max_tokens":7'),
    ],
)
def test_what_encoders_escape_makes_no_call_dearer(model: str, operation: str, maximum: bytes) -> None:
    body = ESCAPED % maximum
    assert bound(model, body, operation).tokens == len(body) + 128 + 1024 + 7


@pytest.mark.parametrize(
    ("model", "operation", "schema"),
    [
        (CLAUDE, "invoke", "input_schema"),
        (CLAUDE, "converse", "json"),
        ("openai.gpt-oss-20b-1:0", "invoke", "parameters"),
    ],
)
def test_what_a_schema_says_of_numbers_and_texts_is_no_maximum_of_output(
    model: str, operation: str, schema: str
) -> None:
    # zod writes the largest safe integer for every `z.int()`: Claude Code's tools are full of it
    limits = {"maximum": 9007199254740991, "maxLength": 100_000, "maxItems": 5000, "max_tokens": {"type": "integer"}}
    body = {"max_tokens": 7, "inferenceConfig": {"maxTokens": 7}, "tools": [{schema: {"properties": {"a": limits}}}]}
    assert bound(model, body, operation).tokens == len(json.dumps(body)) + 128 + 1024 + 7


@pytest.mark.parametrize(
    "body",
    [
        b'{"inferenceConfig":{"maxTokens":1},"a":{"s3Loc\\u0061tion":{}}}',
        b'{"inferenceConfig":{"maxTokens":1},"a":{"\\\\\\u0063achePoint":{}}}',
        b'{"inferenceConfig":{"max\\u0054okens":9000}}',
        '{"inferenceConfig":{"maxTokens":1}}'.encode("utf-16-le"),
        b'\xef\xbb\xbf{"inferenceConfig":{"maxTokens":1}}',
        b"\x1f\x8b\x08 a compressed body",
        b"no json",
    ],
)
def test_what_does_not_say_plainly_what_it_asks_for_may_ask_for_all(body: bytes) -> None:
    hidden = ESTIMATES.bound(calling(NOVA), entry_for(NOVA), body, len(body), money=True)
    assert hidden == ESTIMATES.bound(calling(NOVA), entry_for(NOVA), None, len(body), money=True)


def test_a_hidden_number_of_answers_may_be_the_largest() -> None:
    body = b'{"max_tokens":5,"\\u006e":100}'
    assert bound("openai.gpt-oss-20b-1:0", body, "invoke").tokens >= 128 * 131_072


def test_text_that_aws_fetches_counts_by_the_whole_window() -> None:
    grounded = {"inferenceConfig": {"maxTokens": 1}, "toolConfig": {"tools": [{"systemTool": {"name": "x"}}]}}
    assert bound(NOVA, grounded).tokens == 300_000 + 1
    body = b'{"model":"openai.gpt-oss-20b-1:0","input":"go on","previous_response_id":"r","max_output_tokens":1}'
    responses = route("POST", "/bedrock/openai/v1/responses")
    entry = entry_for("openai.gpt-oss-20b-1:0")
    assert ESTIMATES.bound(responses, entry, body, len(body), money=True).tokens == 128_000 + 1


@pytest.mark.parametrize(
    "path", ["/bedrock-agent-runtime/retrieveAndGenerate", "/bedrock-agent-runtime/agents/a/s", "/bedrock/async-invoke"]
)
def test_of_what_aws_runs_as_often_as_it_likes_no_bound_is_known(path: str) -> None:
    body = b'{"input":{"text":"hi"}}'
    assert ESTIMATES.bound(route("POST", path), entry_for(NOVA), body, len(body), money=True).money is None


@pytest.mark.parametrize(
    ("model", "operation", "block"),
    [
        (NOVA, "converse", {"toolResult": {"content": [{"json": {"image": "x" * 90_000, "bytes": 1}}]}}),
        (NOVA, "converse", {"toolResult": {"content": [{"json": [{"image": {"bytes": "x" * 90_000}}]}]}}),
        (NOVA, "converse", {"toolUse": {"input": {"image": {"bytes": "x" * 90_000}}}}),
        (CLAUDE, "invoke", {"type": "tool_use", "input": {"type": "image", "data": "x" * 90_000, "base64": 1}}),
        (CLAUDE, "invoke", {"type": "image", "source": {"type": "base64", "data": "A"}, "title": "x" * 90_000}),
        ("openai.gpt-oss-20b-1:0", "invoke", {"arguments": {"image": {"url": "x" * 90_000}}, "image_url": 1}),
    ],
)
def test_a_text_within_what_looks_like_a_picture_counts_as_text(model: str, operation: str, block: object) -> None:
    body = {"max_tokens": 1, "inferenceConfig": {"maxTokens": 1}, "messages": [{"content": [block]}]}
    assert bound(model, body, operation).tokens > 90_000


def test_a_film_that_is_named_by_its_address_counts_by_the_whole_window() -> None:
    film = {"type": "video_url", "video_url": {"url": "https://example.com/film.mp4"}}
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": [film]}]}
    assert bound(NOVA, body, "invoke").tokens == 300_000 + 1


def test_a_document_that_is_named_by_its_address_counts_by_the_whole_window() -> None:
    document = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": [document]}]}
    assert bound("anthropic.claude-haiku-4-5-20251001-v1:0", body, "invoke").tokens == 200_000 + 1


def test_the_pictures_of_a_conversation_that_is_called_input_count_by_the_piece() -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 90_000}
    body = {"model": "openai.gpt-5.6-sol", "max_output_tokens": 1, "input": [{"role": "user", "content": [picture]}]}
    raw = json.dumps(body).encode()
    entry = entry_for("openai.gpt-5.6-sol")
    tokens = ESTIMATES.bound(route("POST", "/bedrock/openai/v1/responses"), entry, raw, len(raw), money=False).tokens
    assert tokens < 20_000


def test_a_schema_of_an_answer_is_text_whatever_its_members_are_called() -> None:
    schema = {"type": "object", "properties": {"document": {"type": "object"}, "file_path": {"type": "string"}}}
    asked = {"max_tokens": 1, "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
    assert bound(CLAUDE, asked, "invoke").tokens == len(json.dumps(asked)) + 128 + 1


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("amazon.titan-embed-image-v1", {"inputText": "a cat", "inputImage": "A" * 400_000}),
        ("cohere.embed-v4:0", {"images": ["data:image/png;base64," + "A" * 400_000]}),
    ],
)
def test_a_picture_to_embed_counts_by_the_piece(model: str, body: object) -> None:
    assert bound(model, body, "invoke").tokens < 20_000
