"""Every place in which a virtual key may stand, and that it stays on this side of the proxy."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, InvalidEndpointConfigurationError, NoCredentialsError

from passthrough.sandbox import Received
from tests.conformance.conftest import Clients, Wire, wired
from tests.conformance.judge import signature_of, untouched
from tests.fakes.certificates import Authority
from tests.fakes.running import MASTER_KEY, Blocking, in_thread, select
from tests.fakes.speak import ask

MODEL = "anthropic.claude-3-5-haiku-20241022-v1:0"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": [{"text": "hi"}]}]
CALLS = {
    "converse": ("POST /bedrock/model/m/converse", b'{"messages": [{"role": "user", "content": [{"text": "hi"}]}]}'),
    "stream": ("POST /bedrock/model/m/converse-stream", b'{"messages":[{"role":"user","content":[{"text":"hi"}]}]}'),
    "agents": ("POST /bedrock/knowledgebases/KB12345678/retrieve", b'{"retrievalQuery": {"text": "q"}}'),
    "openai": (
        "POST /bedrock/openai/v1/chat/completions",
        b'{"model": "openai.gpt-oss-20b-1:0", "messages": [{"role": "user", "content": "hi"}]}',
    ),
    "no body": ("GET /bedrock/async-invoke?maxResults=1", None),
}
SIGV4 = "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
PLACES = {
    "of our own": "x-company-key: {key}",
    "litellm_user_api_key": "litellm_user_api_key: {key}",
    "litellm_user_api_key, as bearer": "litellm_user_api_key: Bearer {key}",
    "x-litellm-api-key": "x-litellm-api-key: {key}",
    "x-litellm-api-key, as bearer": "X-LiteLLM-API-Key: Bearer {key}",
    "x-api-key": "X-Api-Key: {key}",
    "x-api-key, as bearer": "x-api-key: bearer {key}",
    "api-key": "api-key: {key}",
    "bearer": "Authorization: Bearer {key}",
    "bearer in lower case": "authorization: bearer  {key}",
    "basic, the key itself": "Authorization: Basic {key}",
    "basic, as password": "Authorization: Basic {as_password}",
    "basic, as user": "Authorization: Basic {as_user}",
    "access key id": "Authorization: AWS4-HMAC-SHA256 Credential={key}/20261121/us-east-1/bedrock/aws4_request, "
    + SIGV4,
    "access key id, as bearer": (
        "Authorization: AWS4-HMAC-SHA256 Credential=Bearer {key}/20261121/us-east-1/bedrock/aws4_request," + SIGV4
    ),
}


IN_ORDER = ("of our own", "litellm_user_api_key", "x-litellm-api-key", "x-api-key", "api-key", "bearer")


def written(place: str, key: str) -> str:
    return PLACES[place].format(
        key=key,
        as_password=b64encode(f"someone:{key}".encode()).decode(),
        as_user=b64encode(f"{key}:".encode()).decode(),
    )


@pytest.fixture(scope="module")
def proxy(database_at_head: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Blocking]:
    folder = tmp_path_factory.mktemp("proxy")
    with in_thread(lambda: wired(database_at_head, folder, key_header="X-Company-Key")) as serving:
        yield serving


@pytest.fixture(scope="module")
def key(proxy: Blocking) -> str:
    return proxy.key(key_alias="places")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("place", PLACES)
def test_a_key_opens_the_proxy_from_each_place_and_goes_no_further(
    place: str, call: str, proxy: Blocking, wire: Wire, key: str
) -> None:
    line, body = CALLS[call]

    answer = ask(proxy.url, line, "Content-Type: application/json", written(place, key), body=body)

    assert answer.status == 200
    untouched(wire.exchange, ours={"x-company-key"})
    signature_of(wire.exchange.forwarded)
    assert key.encode() not in wire.upstream_bytes
    assert b64encode(key.encode()).rstrip(b"=")[:-1] not in wire.upstream_bytes
    assert proxy.rows()[-1]["key_alias"] == "places"


def test_a_key_in_every_place_at_once_goes_no_further(proxy: Blocking, wire: Wire, key: str) -> None:
    line, body = CALLS["converse"]
    strange = (f"X-Other: {key}", f"Referer: https://x/?k={key}", f"X-Amz-Other: a{key}b", f"Cookie: k={key}")

    answer = ask(proxy.url, line, *(written(place, key) for place in IN_ORDER), *strange, body=body)

    assert answer.status == 200
    assert len(wire.exchanges) == 1
    assert key.encode() not in wire.upstream_bytes
    signature_of(wire.exchange.forwarded)


@pytest.mark.parametrize("place", range(len(IN_ORDER) - 1))
def test_the_first_place_counts(place: int, proxy: Blocking, key: str) -> None:
    line, body = CALLS["converse"]
    first, *later = IN_ORDER[place:]

    right = ask(proxy.url, line, *(written(each, "sk-of-nobody") for each in later), written(first, key), body=body)
    wrong = ask(proxy.url, line, *(written(each, key) for each in later), written(first, "sk-of-nobody"), body=body)

    assert (right.status, wrong.status) == (200, 401)


def test_the_master_key_opens_it_too_and_goes_no_further(proxy: Blocking, wire: Wire) -> None:
    line, body = CALLS["converse"]

    assert ask(proxy.url, line, written("bearer", MASTER_KEY), body=body).status == 200
    assert MASTER_KEY.encode() not in wire.upstream_bytes


@pytest.mark.parametrize(
    "field",
    [
        "X-Nothing: 1",
        "Authorization: Bearer sk-of-nobody",
        "Authorization: Bearer",
        "Authorization: AWS4-HMAC-SHA256 Credential=AKID, Signature=0",
        "Authorization: Negotiate abc",
        "x-api-key: é\x01",
    ],
)
def test_without_a_key_nothing_is_asked_of_aws(field: str, proxy: Blocking, wire: Wire) -> None:
    line, body = CALLS["converse"]

    answer = ask(proxy.url, line, field, body=body)

    assert answer.status in ({400, 401} if "\x01" in field else {401})
    assert wire.upstream_bytes == b""


# -- boto3's ways


@pytest.mark.parametrize("service", ["bedrock-runtime", "bedrock-agent-runtime"])
@pytest.mark.parametrize("prefix", ["", "Bearer "])
def test_boto3_gives_it_as_the_access_key_id(prefix: str, service: str, clients: Clients, wire: Wire, key: str) -> None:
    call(clients(service, aws_access_key_id=prefix + key))

    untouched(wire.exchange)
    assert key.encode() not in wire.upstream_bytes


@pytest.mark.parametrize("service", ["bedrock-runtime", "bedrock-agent-runtime"])
def test_boto3_gives_it_in_a_header_added_after_signing(service: str, clients: Clients, wire: Wire, key: str) -> None:
    client = clients(service, aws_access_key_id="dummy", aws_session_token="dummy")
    client.meta.events.register(
        "before-send.*.*", lambda request, **_: request.headers.update({"litellm_user_api_key": key})
    )

    call(client)

    untouched(wire.exchange)
    assert key.encode() not in wire.upstream_bytes
    assert wire.exchange.forwarded.values("x-amz-security-token") == []


def test_boto3_gives_it_as_a_bedrock_api_key_over_https(
    clients: Clients, secure: Blocking, authority: Authority, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", key)

    call(
        clients(
            "bedrock-runtime",
            endpoint_url=secure.bedrock,
            verify=str(authority.bundle),
            aws_secret_access_key=None,
        )
    )

    forwarded_without(key, secure.received[-1])


def test_boto3_refuses_to_send_a_bedrock_api_key_over_http(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", key)
    client = clients("bedrock-runtime", aws_secret_access_key=None)

    with pytest.raises(InvalidEndpointConfigurationError, match="HTTPS"):
        call(client)


def test_boto3_sends_a_bedrock_api_key_to_agents_when_it_is_told_to(
    clients: Clients, secure: Blocking, authority: Authority, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", key)
    agents = {"endpoint_url": secure.bedrock, "verify": str(authority.bundle), "aws_secret_access_key": None}

    call(clients("bedrock-agent-runtime", config={"signature_version": "bearer"}, **agents))
    with pytest.raises(NoCredentialsError):
        call(clients("bedrock-agent-runtime", **agents))

    forwarded_without(key, secure.received[-1])


def call(client: Any) -> None:
    if client.meta.service_model.service_name == "bedrock-runtime":
        client.converse(modelId=MODEL, messages=HELLO)
    else:
        client.retrieve(knowledgeBaseId="KB12345678", retrievalQuery={"text": "q"})


def forwarded_without(key: str, received: Received) -> None:
    assert (received.header("authorization") or "").startswith("AWS4-HMAC-SHA256 ")
    assert all(key.encode() not in value for _, value in received.headers)
    assert key not in received.target


# -- what a client of boto3 is told


def test_boto3_reads_why_a_key_is_refused(proxy: Blocking, clients: Clients) -> None:
    blocked, narrow = proxy.key(blocked=True), proxy.key(models=["amazon.nova-*"])
    expired = proxy.key(duration="1h", key_alias="expired")
    proxy.run(select(proxy.proxy.database_url, "UPDATE keys SET expires = now() WHERE key_alias = 'expired'"))

    assert refusal(clients, "sk-of-nobody") == (401, "UnrecognizedClientException")
    assert refusal(clients, blocked) == (401, "UnrecognizedClientException")
    assert refusal(clients, expired) == (401, "UnrecognizedClientException")
    assert refusal(clients, narrow) == (403, "AccessDeniedException")


def refusal(clients: Clients, key: str) -> tuple[int, str]:
    client = clients("bedrock-runtime", aws_access_key_id=key)
    with pytest.raises(ClientError) as refused:
        call(client)
    answer: dict[str, Any] = refused.value.response
    assert answer["Error"]["Message"]
    assert answer["ResponseMetadata"]["RequestId"]
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]
