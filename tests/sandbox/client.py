"""Real clients of the sandbox: boto3 in a thread, and requests written by hand and signed by awscrt."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import boto3
from aiohttp import ClientResponse, ClientSession
from awscrt import auth, http
from botocore.config import Config
from yarl import URL

from passthrough.policy.credentials import Credentials
from passthrough.sandbox import DEFAULT_CREDENTIALS, Sandbox

MODEL = "anthropic.claude-3-5-sonnet-20241022-v2:0"
HELLO = [{"role": "user", "content": [{"text": "hello there"}]}]  # 11 characters: 3 tokens
Signed = list[tuple[str, str]]


def make_client(
    session: boto3.session.Session,
    sandbox: Sandbox,
    service: str = "bedrock-runtime",
    *,
    credentials: Credentials = DEFAULT_CREDENTIALS,
    region: str = "us-east-1",
    **config: Any,
) -> Any:
    return session.client(
        service,
        region_name=region,
        endpoint_url=sandbox.url,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        aws_session_token=credentials.token,
        config=Config(**{"retries": {"total_max_attempts": 1, "mode": "standard"}, "read_timeout": 10, **config}),
    )


def ask_for(client: Any, fault: str) -> None:
    """Has a boto3 client send the header that asks for a fault with each request, and sign it."""

    def add(request: Any, **_: Any) -> None:
        request.headers["x-sandbox-fault"] = fault

    client.meta.events.register("before-sign", add)


async def call(client: Any, method: str, /, **arguments: Any) -> Any:
    """Calls a method of a boto3 client, reads the answer's stream or body to its end."""
    return await asyncio.to_thread(_call, client, method, arguments)


def _call(client: Any, method: str, arguments: dict[str, Any]) -> Any:
    answer = getattr(client, method)(**arguments)
    for name, value in answer.items():
        if hasattr(value, "read"):
            answer[name] = value.read()
        elif hasattr(value, "close"):
            with closing(value):  # an exception in the stream leaves the connection open otherwise
                answer[name] = list(value)
    return answer


def sign(
    method: str,
    url: str,
    *,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    credentials: Credentials = DEFAULT_CREDENTIALS,
    region: str = "us-east-1",
    service: str = "bedrock",
    at: float | None = None,
    declares_hash: bool = False,
) -> Signed:
    """The headers of a request, signed by awscrt: neither by botocore nor by us."""
    host, _, target = url.partition("://")[2].partition("/")
    request = http.HttpRequest(method, f"/{target}", http.HttpHeaders([("host", host), *headers]))
    stamp = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    auth.aws_sign_request(
        request,
        auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4,
            signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=auth.AwsCredentialsProvider.new_static(
                credentials.access_key, credentials.secret_key, credentials.token
            ),
            region=region,
            service=service,
            date=stamp,
            use_double_uri_encode=True,
            should_normalize_uri_path=True,
            signed_body_value=hashlib.sha256(body).hexdigest(),
            signed_body_header_type=(
                auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256
                if declares_hash
                else auth.AwsSignedBodyHeaderType.NONE
            ),
        ),
    ).result(5)
    return list(request.headers)


async def send(
    session: ClientSession, method: str, url: str, headers: Signed, body: bytes = b""
) -> tuple[ClientResponse, bytes]:
    """Sends exactly these bytes and reads the answer whole."""
    async with session.request(
        method, URL(url, encoded=True), headers=headers, data=body, skip_auto_headers=("Content-Type", "Accept")
    ) as response:
        return response, await response.read()
