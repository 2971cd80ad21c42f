"""Request targets as they are found in the wild: what AWS receives is what was sent, to the byte.

Sent by the byte over a socket, because every HTTP library has an opinion on how a path should look.
"""

import pytest

from tests.conformance.conftest import Wire
from tests.conformance.judge import signature_of, untouched
from tests.fakes.running import Blocking
from tests.fakes.speak import ask

MODEL_IDS = (
    "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "us.anthropic.claude-3-5-haiku-20241022-v1:0",
    "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-lite-v1:0.8k/abcdefghijkl",
    "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1",
    "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1",
    "arn:aws:sagemaker:us-east-1:123456789012:endpoint/my-endpoint",
)
ENCODINGS = {
    "as AWS's SDKs": {":": "%3A", "/": "%2F"},
    "as Anthropic's SDKs": {":": ":", "/": "%2F"},
    "literally": {":": ":", "/": "/"},
    "in lower case": {":": "%3a", "/": "%2f"},
    "the other way round": {":": "%3A", "/": "/"},
}
VERBS = ("converse", "converse-stream", "invoke", "invoke-with-response-stream", "count-tokens")


def encoded(identifier: str, encoding: str) -> str:
    return "".join(ENCODINGS[encoding].get(letter, letter) for letter in identifier)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("model", MODEL_IDS)
def test_a_model_id_goes_up_in_the_encoding_in_which_it_came(
    model: str, encoding: str, proxy: Blocking, wire: Wire, key: str
) -> None:
    for verb in VERBS:
        wire.forget()
        target = f"/bedrock/model/{encoded(model, encoding)}/{verb}"
        ask(proxy.url, f"POST {target}", f"Authorization: Bearer {key}", body=b'{"a": 1}')
        untouched(wire.exchange)
        signature_of(wire.exchange.forwarded)
    *_, row = proxy.rows()
    assert row["model"] == model
    assert row["operation"] == "CountTokens"


PATHS = (
    "GET /async-invoke/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aasync-invoke%2Fabc",
    "GET /async-invoke/arn:aws:bedrock:us-east-1:123456789012:async-invoke/abc",
    "POST /guardrail/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aguardrail%2Fabcd/version/1/apply",
    "POST /guardrail/arn:aws:bedrock:us-east-1:1:guardrail/abcd/version/DRAFT/apply",
    "POST /agents/AGENT12345/agentAliases/TSTALIASID/sessions/s%20%C3%A9%25/text",
    "POST /agents/s-1",
    "POST /agents/s-1/",
    "PUT /sessions/",
    "POST /sessions/",
    "GET /sessions/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Asession%2Fx/",
    "GET /sessions/abc/",
    "PATCH /sessions/abc",
    "POST /sessions/abc/invocationSteps/",
    "POST /sessions/abc/invocationSteps/step-1",
    "DELETE /tags/arn:aws:bedrock:us-east-1:1:session/x?tagKeys=b&tagKeys=a",
    "POST /rerank",
    "POST /retrieveAndGenerateStream",
    "POST /optimize-prompt",
    "GET /foundation-models?byProvider=anthropic&byOutputModality=TEXT",
    "GET /inference-profiles?type=SYSTEM_DEFINED",
    "GET /inference-profiles/us.anthropic.claude-3-5-haiku-20241022-v1%3A0",
    "POST /openai/v1/chat/completions",
    "POST /anthropic/v1/messages?beta=true",
    "POST /model/m/an-operation-of-next-year",
    "POST /model/m/converse/",
    "POST /model/~*'()!,=+@$&-._/invoke",
    "POST /model/%7E%2A%27%28%29%21%2C%3D%2B%40%24%26%2D%2E%5F/invoke",
    "POST /model/%61nthropic.claude/invoke",
    "POST /model/a%20b%C3%A9/invoke",
    "POST /knowledgebases/KB//retrieve",
    "POST //model/m/converse",
)


@pytest.mark.parametrize("line", PATHS)
def test_a_path_goes_up_as_it_came(line: str, proxy: Blocking, wire: Wire, key: str) -> None:
    method, _, target = line.partition(" ")

    answer = ask(proxy.url, f"{method} /bedrock{target}", f"Authorization: Bearer {key}")

    if target.startswith("//"):  # no service has it
        assert answer.status == 404
        assert wire.upstream_bytes == b""
        return
    untouched(wire.exchange)
    signature_of(wire.exchange.forwarded)


@pytest.mark.parametrize("service", ["bedrock-runtime", "bedrock-agent-runtime"])
def test_a_prefix_may_name_the_service(service: str, proxy: Blocking, wire: Wire, key: str) -> None:
    target = {"bedrock-runtime": "/model/a%3A0/converse", "bedrock-agent-runtime": "/knowledgebases/K/retrieve"}
    ask(proxy.url, f"POST /{service}{target[service]}", f"Authorization: Bearer {key}", body=b"{}")

    untouched(wire.exchange, prefix=f"/{service}")
    assert proxy.rows()[-1]["service"] == service


AS_THEY_ARE = (
    "statusEquals=Completed&maxResults=2&nextToken=a%20b%2B%2F%3D",
    "nextToken=a%2Fb%2Bc%3D%3A&maxResults=5",
    "z=1&a=2&a=1",
    "submitTimeAfter=2023-11-14T22%3A13%3A20Z",
    "a=&b=",
    "a=%E2%82%AC~-._",
)


@pytest.mark.parametrize("query", AS_THEY_ARE)
def test_a_query_of_an_sdk_goes_up_as_it_came(query: str, proxy: Blocking, wire: Wire, key: str) -> None:
    ask(proxy.url, f"GET /bedrock/async-invoke?{query}", f"Authorization: Bearer {key}")

    untouched(wire.exchange)
    signature_of(wire.exchange.forwarded)


REWRITTEN = {
    "nextToken=a+b": "nextToken=a%2Bb",
    "x=1:2/3": "x=1%3A2%2F3",
    "flag": "flag=",
    "a=b=c": "a=b%3Dc",
    "a=%c3%a9": "a=%C3%A9",
    "b=1&&a=2&": "b=1&a=2",
    "a=%": "a=%25",
    "": "",
    "X-Amz-Signature=abc&maxResults=1&X-Amz-Credential=nobody": "maxResults=1",
}


@pytest.mark.parametrize("query", REWRITTEN)
def test_another_query_goes_up_in_the_spelling_that_aws_can_verify(
    query: str, proxy: Blocking, wire: Wire, key: str
) -> None:
    ask(proxy.url, f"GET /bedrock/async-invoke?{query}", f"Authorization: Bearer {key}")

    expected = f"/async-invoke?{REWRITTEN[query]}" if REWRITTEN[query] else "/async-invoke"
    assert wire.exchange.forwarded.target.decode() == expected
    signature_of(wire.exchange.forwarded)


REFUSED = (
    "/model/../agents/x",
    "/model/%2e%2e/converse",
    "/model/a%2F..%2Fb/converse",
    "/model/a/./converse",
    "/model/a%5Cb/converse",
    "/model/a%00b/converse",
    "/model/a%0D%0Ab/converse",
    "/model/a%253A0/converse",
    "/model/a%zz/converse",
    "/model/%ff/converse",
    "/model/é/converse",
    "/model/m/converse?q=é",
)


@pytest.mark.parametrize("path", REFUSED)
def test_a_path_that_can_be_read_in_two_ways_goes_nowhere(path: str, proxy: Blocking, wire: Wire, key: str) -> None:
    answer = ask(proxy.url, f"POST /bedrock{path}", f"Authorization: Bearer {key}", body=b"{}")

    assert answer.status == 400
    assert answer.value("x-amzn-ErrorType") == "ValidationException"
    assert wire.upstream_bytes == b""


def test_a_target_in_absolute_form_is_no_path(proxy: Blocking, wire: Wire, key: str) -> None:
    answer = ask(proxy.url, "POST http://aws/bedrock/model/m/converse", f"Authorization: Bearer {key}", body=b"{}")

    assert answer.status in {400, 404}
    assert wire.upstream_bytes == b""
