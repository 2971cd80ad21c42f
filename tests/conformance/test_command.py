"""The program itself: https from PEM files, credentials from the environment, the end at SIGTERM."""

import asyncio
import json
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from passthrough.policy.credentials import Credentials
from passthrough.sandbox import DEFAULT_BEARER_TOKEN, Received, Sandbox
from tests.conformance.conftest import Clients
from tests.conformance.judge import signature_of
from tests.fakes.certificates import Authority
from tests.fakes.running import MASTER_KEY, PATIENCE_SECONDS, Command, command
from tests.fakes.tap import Message

SESSION = Credentials("ASIAEXAMPLE000000000", "a-secret", "a/session+token=" * 40)
HELLO: list[dict[str, Any]] = [{"role": "user", "content": [{"text": "hi"}]}]


@pytest.fixture(scope="module")
def received() -> list[Received]:
    return []


@pytest.fixture(scope="module")
def aws(received: list[Received]) -> Iterator[str]:
    """The address of a sandbox that knows a session's credentials and an API key."""
    begun, end = threading.Event(), asyncio.Event()
    address, loops = [], []

    async def serve() -> None:
        async with Sandbox(credentials=SESSION, pace_seconds=0, on_request=received.append) as sandbox:
            address.append(sandbox.url)
            loops.append(asyncio.get_running_loop())
            begun.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert begun.wait(PATIENCE_SECONDS)
    yield address[0]
    loops[0].call_soon_threadsafe(end.set)
    thread.join(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def program(
    aws: str, authority: Authority, database_at_head: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Command]:
    certificate, private_key = authority.issue("127.0.0.1")
    with command(
        tmp_path_factory.mktemp("program"),
        *("--tls-cert", str(certificate), "--tls-key", str(private_key)),
        DATABASE_URL=database_at_head,
        AWS_ACCESS_KEY_ID=SESSION.access_key,
        AWS_SECRET_ACCESS_KEY=SESSION.secret_key,
        AWS_SESSION_TOKEN=SESSION.token,
        AWS_BEARER_TOKEN_BEDROCK=DEFAULT_BEARER_TOKEN,
        AWS_ENDPOINT_URL_BEDROCK_RUNTIME=aws,
        AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME=aws,
        AWS_ENDPOINT_URL_BEDROCK=aws,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def key(program: Command, authority: Authority) -> str:
    request = urllib.request.Request(  # noqa: S310  # it is https
        f"{program.url}/key/generate",
        b"{}",
        {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=authority.trusting()) as answer:  # noqa: S310  # it is https
        return str(json.loads(answer.read())["key"])


def test_an_api_key_of_ours_is_sent_where_aws_takes_one(
    program: Command, received: list[Received], authority: Authority, clients: Clients, key: str
) -> None:
    client = clients(
        "bedrock-runtime",
        endpoint_url=f"{program.url}/bedrock",
        verify=str(authority.bundle),
        aws_access_key_id=key,
    )

    assert client.converse(modelId="m", messages=HELLO)["usage"]["totalTokens"]

    assert received[-1].header("authorization") == f"Bearer {DEFAULT_BEARER_TOKEN}"
    assert received[-1].header("x-amz-date") is None
    assert received[-1].header("x-amz-security-token") is None


def test_elsewhere_the_session_signs_with_its_token(
    program: Command, received: list[Received], authority: Authority, clients: Clients, key: str
) -> None:
    client = clients(
        "bedrock-agent-runtime",
        endpoint_url=f"{program.url}/bedrock",
        verify=str(authority.bundle),
        aws_access_key_id=key,
        aws_session_token="the-clients-own",
    )

    assert client.retrieve(knowledgeBaseId="KB12345678", retrievalQuery={"text": "q"})["retrievalResults"]

    last = received[-1]
    message = Message(f"{last.method} {last.target} HTTP/1.1".encode(), list(last.headers), last.body, chunked=False)
    assert "x-amz-security-token" in signature_of(message, SESSION).headers
    assert last.header("x-amz-security-token") == SESSION.token


def test_where_https_is_served_http_is_not(program: Command, authority: Authority) -> None:
    with urllib.request.urlopen(f"{program.url}/health/readiness", context=authority.trusting()) as answer:  # noqa: S310  # it is https
        assert answer.status == 200
    with pytest.raises(OSError, match=r"reset|closed|EOF"):
        urllib.request.urlopen(f"{program.url.replace('https', 'http')}/health/readiness")  # noqa: S310  # it is http


def test_its_log_has_each_call_and_no_secret(
    aws: str, database_at_head: str, tmp_path_factory: pytest.TempPathFactory, clients: Clients
) -> None:
    with command(
        tmp_path_factory.mktemp("logging"),
        DATABASE_URL=database_at_head,
        PASSTHROUGH_LOG_LEVEL="debug",
        AWS_ACCESS_KEY_ID=SESSION.access_key,
        AWS_SECRET_ACCESS_KEY=SESSION.secret_key,
        AWS_SESSION_TOKEN=SESSION.token,
        AWS_ENDPOINT_URL_BEDROCK_RUNTIME=aws,
    ) as program:
        client = clients("bedrock-runtime", endpoint_url=f"{program.url}/bedrock", aws_access_key_id=MASTER_KEY)
        answer = client.converse(modelId="m", messages=HELLO)
        program.tell(signal.SIGTERM)
        assert program.ended() == 0

    assert "stopped" in {line["event"] for line in program.lines}
    (call,) = [line for line in program.lines if line["event"] == "call"]
    assert call["upstream_request_id"] == answer["ResponseMetadata"]["RequestId"]
    log = json.dumps(program.lines)
    assert SESSION.token is not None
    for secret in (MASTER_KEY, SESSION.secret_key, SESSION.token, HELLO[0]["content"][0]["text"] + '"'):
        assert secret not in log


def test_a_master_key_that_can_be_guessed_is_warned_of_and_never_told(
    database_at_head: str, tmp_path: Path, aws: str
) -> None:
    with command(
        tmp_path,
        DATABASE_URL=database_at_head,
        PASSTHROUGH_MASTER_KEY="sk-guess-me",
        AWS_ENDPOINT_URL_BEDROCK_RUNTIME=aws,
    ) as warned:
        (line,) = (line for line in warned.lines if line["event"] == "the master key is weak")
        assert (line["level"], "shorter than 16 characters" in line["cause"]) == ("warning", True)
        assert "guess-me" not in json.dumps(warned.lines)


def test_a_long_master_key_is_not_warned_of(program: Command) -> None:
    assert not [line for line in program.lines if "master key" in line["event"]]
