"""Calls as bytes, and a proxy whose upstream is scripted."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tests.fakes.peer import Message, Peer
from tests.fakes.running import MASTER_KEY, Running, running
from tests.fakes.upstream import Upstream

MODEL = "anthropic.claude-3-5-sonnet-20241022-v2:0"
CONVERSE = f"/bedrock/model/{MODEL}/converse"
STREAM = f"/bedrock/model/{MODEL}/converse-stream"
BODY = b'{"messages":[{"role":"user","content":[{"text":"hello"}]}]}'


class Proxies(Protocol):
    """Starts a proxy whose upstream is the test's `upstream`, with these settings."""

    async def __call__(self, **settings: Any) -> Running: ...


def call(
    target: str = CONVERSE,
    *fields: str,
    method: str = "POST",
    body: bytes = BODY,
    key: str = MASTER_KEY,
    version: str = "HTTP/1.1",
) -> bytes:
    """A whole request with Content-Length."""
    return call_head(target, f"Content-Length: {len(body)}", *fields, method=method, key=key, version=version) + body


def call_head(
    target: str = CONVERSE, *fields: str, method: str = "POST", key: str = MASTER_KEY, version: str = "HTTP/1.1"
) -> bytes:
    """A request up to its body; the key in its usual place, unless it is empty."""
    lines = [f"{method} {target} {version}", "Host: proxy", "Content-Type: application/json"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "".join(f"{line}\r\n" for line in (*lines, *fields)).encode("latin-1") + b"\r\n"


async def ask(client: Peer, request: bytes = b"", *, bodiless: bool = False) -> Message:
    """Send a request, an ordinary one if none is given, and read its answer."""
    await client.send(request or call())
    return await client.message(bodiless=bodiless)


def refusal(message: Message) -> tuple[int, str]:
    """Status and code of an answer in AWS's shape; fails where it is none, or where its places disagree."""
    document: Mapping[str, Any] = msgspec.json.decode(message.body)
    code = message.value("x-amzn-ErrorType")
    assert code is not None
    assert document["__type"] == code
    assert document["error"]["code"] == str(message.status)
    assert document["message"] == document["error"]["message"]
    assert document["message"].endswith(".")
    assert message.value("x-amzn-RequestId")
    assert message.values("x-passthrough-call-id") == message.values("x-amzn-RequestId")
    assert message.values("Server") == ["passthrough"]
    assert message.value("Content-Type") == "application/json"
    return message.status, code


async def ended_rows(proxy: Running) -> list[dict[str, Any]]:
    """The ledger once no call is open any more."""
    await proxy.service.handler.drained()
    return await proxy.rows()


@asynccontextmanager
async def proxy_of(upstream: Upstream, database_url: str, data_dir: Path, **settings: Any) -> AsyncIterator[Running]:
    async with running(database_url, data_dir, upstream=upstream.url, **settings) as proxy:
        yield proxy
