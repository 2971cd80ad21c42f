"""LiteLLM's page on its Bedrock pass-through, done with passthrough: only the address is another.

The program is started as that page starts LiteLLM, with the variables that it names.
https://docs.litellm.ai/docs/pass_through/bedrock
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from passthrough.sandbox import DEFAULT_CREDENTIALS, Received
from tests.fakes.running import PATIENCE_SECONDS, Blocking, Command, command

MASTER_KEY = "sk-1234"


@pytest.fixture(scope="module")
def upstream(proxy: Blocking) -> Blocking:
    """Whose sandbox stands in for AWS."""
    return proxy


@pytest.fixture(scope="module")
def litellm(upstream: Blocking, database_at_head: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    assert upstream.proxy.sandbox is not None
    aws = upstream.proxy.sandbox.url
    with command(
        tmp_path_factory.mktemp("litellm"),
        PASSTHROUGH_MASTER_KEY=None,
        AWS_REGION=None,
        DATABASE_URL=database_at_head,
        LITELLM_MASTER_KEY=MASTER_KEY,
        AWS_ACCESS_KEY_ID=DEFAULT_CREDENTIALS.access_key,
        AWS_SECRET_ACCESS_KEY=DEFAULT_CREDENTIALS.secret_key,
        AWS_REGION_NAME="us-west-2",
        AWS_ENDPOINT_URL_BEDROCK_RUNTIME=aws,
        AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME=aws,
    ) as running:
        yield running


@pytest.fixture
def received(upstream: Blocking) -> list[Received]:
    """What reaches AWS in this test."""
    upstream.received.clear()
    return upstream.received


def post(litellm: Command, path: str, key: str, document: object) -> Any:
    """What curl does on that page; curl itself is in `test_commands`."""
    request = urllib.request.Request(  # noqa: S310  # it is http
        litellm.url + path,
        json.dumps(document).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310  # as above
        return json.loads(answer.read())


def refusal(litellm: Command, path: str, key: str, document: object) -> str:
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(litellm, path, key, document)
    with refused.value as answer:
        return str(json.loads(answer.read())["__type"])


HELLO = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}


def region_of(received: list[Received]) -> str:
    authorization = received[-1].header("authorization")
    assert authorization is not None
    return authorization.split("/")[2]


def test_the_walk_through_with_a_virtual_key(litellm: Command, received: list[Received]) -> None:
    generated = post(litellm, "/key/generate", MASTER_KEY, {})

    answer = post(litellm, "/bedrock/model/cohere.command-r-v1:0/converse", generated["key"], HELLO)

    assert generated["key"].startswith("sk-")
    assert answer["output"]["message"]["role"] == "assistant"
    assert received[-1].target == "/model/cohere.command-r-v1:0/converse"
    assert region_of(received) == "us-west-2"


def test_a_key_that_was_blocked_or_deleted_is_of_no_use_at_once(litellm: Command) -> None:
    key = post(litellm, "/key/generate", MASTER_KEY, {"key_alias": "short-lived"})["key"]
    path = "/bedrock/model/cohere.command-r-v1:0/converse"
    assert post(litellm, path, key, HELLO)

    post(litellm, "/key/block", MASTER_KEY, {"key": key})
    assert refusal(litellm, path, key, HELLO) == "UnrecognizedClientException"
    post(litellm, "/key/delete", MASTER_KEY, {"keys": [key]})
    assert refusal(litellm, path, key, HELLO) == "UnrecognizedClientException"


def test_example_1_converse(litellm: Command, received: list[Received]) -> None:
    answer = post(litellm, "/bedrock/model/cohere.command-r-v1:0/converse", MASTER_KEY, HELLO)

    assert answer["usage"]["totalTokens"] > 0
    assert json.loads(received[-1].body) == HELLO


def test_example_2_apply_guardrail(litellm: Command, received: list[Received]) -> None:
    document = {"content": [{"text": {"text": "Hello world"}}], "source": "INPUT"}

    answer = post(litellm, "/bedrock/guardrail/gr1abcdefghi/version/DRAFT/apply", MASTER_KEY, document)

    assert answer["action"] == "NONE"
    assert received[-1].target == "/guardrail/gr1abcdefghi/version/DRAFT/apply"


def test_example_3_query_a_knowledge_base(litellm: Command, received: list[Received]) -> None:
    document = {
        "retrievalConfiguration": {"vectorSearchConfiguration": {"numberOfResults": 3}},
        "retrievalQuery": {"text": "a question"},
    }

    answer = post(litellm, "/bedrock/knowledgebases/KB12345678/retrieve", MASTER_KEY, document)

    assert answer["retrievalResults"]
    assert json.loads(received[-1].body) == document


def test_agents_through_boto3_with_an_injected_header(litellm: Command, received: list[Received]) -> None:
    key = post(litellm, "/key/generate", MASTER_KEY, {})["key"]
    client = boto3.client(
        service_name="bedrock-agent-runtime",
        region_name="eu-west-1",
        endpoint_url=f"{litellm.url}/bedrock",
        aws_access_key_id="my-fake-key-id",
        aws_secret_access_key="my-fake-access-key",
    )

    def inject(request: Any, **_: Any) -> None:
        request.headers.update({"litellm_user_api_key": key})

    client.meta.events.register("before-send.*.*", inject)

    answer = client.invoke_agent(
        agentId="L1RT58GYRW", agentAliasId="MFPSBCXYTW", sessionId="12345", inputText="Who do you know?"
    )
    completion = "".join(event["chunk"]["bytes"].decode() for event in answer["completion"])
    client.close()

    assert "Who do you know?" in completion
    assert received[-1].target == "/agents/L1RT58GYRW/agentAliases/MFPSBCXYTW/sessions/12345/text"
    assert received[-1].header("litellm_user_api_key") is None
    assert region_of(received) == "eu-west-1"  # as the client was made for
