"""A sandbox for each test, and real boto3 clients that call it."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import boto3
import pytest
from aiohttp import ClientSession, DummyCookieJar

from passthrough.sandbox import Received, Sandbox
from tests.sandbox.client import make_client

Clients = Callable[..., Any]


@pytest.fixture
def journal() -> list[Received]:
    """Every request that the sandbox of this test received."""
    return []


@pytest.fixture
async def sandbox(journal: list[Received]) -> AsyncIterator[Sandbox]:
    async with Sandbox(pace_seconds=0, on_request=journal.append) as opened:
        yield opened


@pytest.fixture(scope="session")
def session() -> boto3.session.Session:
    """One for all tests: it keeps the service models, which take most of a client's making."""
    return boto3.session.Session()


@pytest.fixture
def clients(session: boto3.session.Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Makes boto3 clients (`make_client` without its session) that do not retry."""
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    opened: list[Any] = []

    def client(*arguments: Any, **settings: Any) -> Any:
        opened.append(make_client(session, *arguments, **settings))
        return opened[-1]

    yield client
    for made in opened:
        made.close()


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    """For requests that no SDK would make."""
    async with ClientSession(cookie_jar=DummyCookieJar(), auto_decompress=False) as opened:
        yield opened
