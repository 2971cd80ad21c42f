"""Credentials over a socket: signatures, session tokens, and Bedrock API keys where AWS takes them."""

import pytest
from aiohttp import ClientSession

from passthrough.policy.credentials import Credentials
from passthrough.sandbox import DEFAULT_BEARER_TOKEN, DEFAULT_CREDENTIALS, Sandbox
from tests.sandbox.client import HELLO, MODEL, call, send, sign
from tests.sandbox.conftest import Clients

TEMPORARY = Credentials("ASIATEMPORARY", "temporary-secret", "a-session-token")
BODY = b'{"messages": [{"role": "user", "content": [{"text": "hi"}]}]}'


def bearer(token: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]


async def test_an_api_key_opens_the_runtime_and_the_control_plane(sandbox: Sandbox, http: ClientSession) -> None:
    runtime, _ = await send(http, "POST", f"{sandbox.url}/model/m/converse", bearer(DEFAULT_BEARER_TOKEN), BODY)
    control, _ = await send(http, "GET", f"{sandbox.url}/foundation-models", bearer(DEFAULT_BEARER_TOKEN))

    assert (runtime.status, control.status) == (200, 200)


async def test_agents_take_no_api_key(sandbox: Sandbox, http: ClientSession) -> None:
    url = f"{sandbox.url}/knowledgebases/KB12345678/retrieve"

    response, body = await send(http, "POST", url, bearer(DEFAULT_BEARER_TOKEN), b'{"retrievalQuery": {"text": "q"}}')

    assert response.status == 403
    assert b'"Message"' in body


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("sk-virtual-key", b"Invalid API Key format: Must start with pre-defined prefix"),
        ("ABSKwrong", b"Authentication failed: Please make sure your API Key is valid."),
        ("bedrock-api-key-wrong", b"Authentication failed: Please make sure your API Key is valid."),
    ],
)
async def test_a_wrong_api_key_is_refused(token: str, text: bytes, sandbox: Sandbox, http: ClientSession) -> None:
    response, body = await send(http, "POST", f"{sandbox.url}/model/m/converse", bearer(token), BODY)

    assert response.status == 403
    assert body == b'{"Message":"%s"}' % text


async def test_a_sandbox_without_an_api_key_takes_none(http: ClientSession) -> None:
    async with Sandbox(bearer_token=None) as sandbox:
        url = f"{sandbox.url}/model/m/converse"
        response, _ = await send(http, "POST", url, bearer(DEFAULT_BEARER_TOKEN), BODY)

    assert response.status == 403


async def test_a_boto3_client_with_wrong_credentials_gets_awss_error(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox, credentials=Credentials(DEFAULT_CREDENTIALS.access_key, "wrong"))

    with pytest.raises(client.exceptions.ClientError) as caught:
        await call(client, "converse", modelId=MODEL, messages=HELLO)

    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


async def test_temporary_credentials_work_until_they_expire(clients: Clients) -> None:
    async with Sandbox(credentials=[TEMPORARY], pace_seconds=0) as sandbox:
        client = clients(sandbox, credentials=TEMPORARY)
        await call(client, "converse", modelId=MODEL, messages=HELLO)
        sandbox.expire(TEMPORARY.access_key)

        with pytest.raises(client.exceptions.ClientError, match="ExpiredTokenException"):
            await call(client, "converse", modelId=MODEL, messages=HELLO)


async def test_the_raw_bytes_on_the_wire_are_what_is_verified(sandbox: Sandbox, http: ClientSession) -> None:
    for path in ("/model/a%3A0/converse", "/model/a:0/converse", "/model/arn:aws:x:::y/z/converse"):
        url = f"{sandbox.url}{path}"
        response, answer = await send(http, "POST", url, sign("POST", url, body=BODY), BODY)

        assert response.status == 200, answer
