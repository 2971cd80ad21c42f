"""Finding the operation from the raw path, and judging what it was sent."""

import pytest
from aiohttp import ClientSession

from passthrough.sandbox import DEFAULT_BEARER_TOKEN, Sandbox
from passthrough.sandbox.catalogue import find
from tests.sandbox.client import send, sign

ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
ARN_QUOTED = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc"


@pytest.mark.parametrize(
    ("method", "path", "name", "labels"),
    [
        ("POST", "/model/a%3A0/converse", "Converse", {"modelId": "a:0"}),
        ("POST", "/model/a:0/converse", "Converse", {"modelId": "a:0"}),
        ("POST", f"/model/{ARN_QUOTED}/invoke", "InvokeModel", {"modelId": ARN}),
        ("POST", f"/model/{ARN}/invoke", "InvokeModel", {"modelId": ARN}),
        ("POST", "/model/a%252Fb/converse", "Converse", {"modelId": "a%2Fb"}),
        ("PUT", "/sessions/", "CreateSession", {}),
        ("POST", "/sessions/", "ListSessions", {}),
        ("GET", "/sessions/s/", "GetSession", {"sessionIdentifier": "s"}),
        ("PATCH", "/sessions/s", "EndSession", {"sessionIdentifier": "s"}),
        ("POST", "/agents/s", "InvokeInlineAgent", {"sessionId": "s"}),
        ("GET", f"/tags/{ARN}", "ListTagsForResource", {"resourceArn": ARN}),
        ("GET", f"/inference-profiles/{ARN}", "GetInferenceProfile", {"inferenceProfileIdentifier": ARN}),
        ("GET", "/flows/f/executions", "ListFlowExecutions", {"flowIdentifier": "f"}),
        ("POST", "/openai/v1/chat/completions", "ChatCompletions", {}),
        ("POST", "/anthropic/v1/messages", "Messages", {}),
    ],
)
def test_a_path_is_found(method: str, path: str, name: str, labels: dict[str, str]) -> None:
    found = find(method, path)

    assert found is not None
    assert (found[0].name, found[1]) == (name, labels)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/model/a/converse"),
        ("POST", "/model/a/converse/"),
        ("POST", "/model//converse"),
        ("POST", "/agents/s/"),
        ("POST", "/inference-profiles"),
        ("POST", "/bedrock/model/a/converse"),
        ("POST", "//model/a/converse"),
        ("GET", "/"),
        ("GET", ""),
        ("OPTIONS", "*"),
    ],
)
def test_a_path_that_nothing_has_is_not_found(method: str, path: str) -> None:
    assert find(method, path) is None


@pytest.mark.parametrize("path", ["/nothing", "/model/a/", "/a%0Ab", "//x", "/%2e%2e/x", "/model/%zz/other"])
async def test_an_unknown_path_gets_corals_odd_404_before_anybody_looks_at_its_signature(
    path: str, sandbox: Sandbox, http: ClientSession
) -> None:
    response, body = await send(http, "POST", sandbox.url + path, [])

    assert response.status == 404
    assert body == b'{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}'
    assert response.headers["x-amzn-RequestId"]


BEARER = [("Authorization", f"Bearer {DEFAULT_BEARER_TOKEN}")]


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"{", "SerializationException", "not valid JSON"),
        (b"\xff", "SerializationException", "not valid JSON"),
        (b"[]", "SerializationException", "must be a JSON object"),
        (b'{"system": ' + b"[" * 5000 + b"]" * 5000 + b"}", "SerializationException", "nested too deeply"),
        (b'{"messages": {}}', "SerializationException", "'messages' must be a JSON list"),
        (b'{"inferenceConfig": {"maxTokens": true}}', "SerializationException", "must be a JSON integer"),
        (
            b'{"inferenceConfig": {"maxTokens": 0}}',
            "ValidationException",
            (
                "1 validation error detected: Value at 'inferenceConfig.maxTokens' failed to satisfy constraint: "
                "Member must have value greater than or equal to 1"
            ),
        ),
        (
            b'{"messages": [{"content": [], "role": "x"}, {"role": "user"}]}',
            "ValidationException",
            (
                "2 validation errors detected: Value 'x' at 'messages.1.member.role' failed to satisfy constraint: "
                "Member must satisfy enum value set: [user, assistant, system]; Value at 'messages.2.member.content' "
                "failed to satisfy constraint: Member must not be null"
            ),
        ),
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused_with_what_is_wrong(
    body: bytes, code: str, text: str, sandbox: Sandbox, http: ClientSession
) -> None:
    response, answer = await send(http, "POST", f"{sandbox.url}/model/m/converse", BEARER, body)

    assert response.status == 400
    assert response.headers["x-amzn-ErrorType"].startswith(f"{code}:http://internal.amazon.com/coral/")
    assert text.encode() in answer


@pytest.mark.parametrize(
    ("method", "path", "missing"),
    [
        ("GET", "/agents/a/agentAliases/b/memories?memoryType=SESSION_SUMMARY", "memoryId"),
        ("DELETE", "/tags/arn", "tagKeys"),
        ("GET", "/flows/f/aliases/a/executions/e/events", "eventType"),
        ("POST", "/knowledgebases/k/retrieve", "retrievalQuery"),
    ],
)
async def test_a_missing_member_is_named_wherever_it_belongs(
    method: str, path: str, missing: str, sandbox: Sandbox, http: ClientSession
) -> None:
    url = sandbox.url + path

    response, body = await send(http, method, url, sign(method, url))

    assert response.status == 400
    assert f"Value at '{missing}' failed to satisfy constraint: Member must not be null".encode() in body


async def test_the_bidirectional_stream_is_refused(sandbox: Sandbox, http: ClientSession) -> None:
    url = f"{sandbox.url}/model/amazon.nova-sonic-v1:0/invoke-with-bidirectional-stream"

    response, body = await send(http, "POST", url, BEARER)

    assert response.status == 400
    assert b"HTTP/2" in body
