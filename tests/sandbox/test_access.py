"""Bedrock API keys: taken where AWS takes them."""

import pytest
from aiohttp import ClientSession

from passthrough.sandbox import DEFAULT_BEARER_TOKEN, Sandbox
from tests.sandbox.client import send

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
