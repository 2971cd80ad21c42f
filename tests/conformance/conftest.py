"""One proxy for the whole folder, with a tap before it and one behind it, and the clients that call it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from passthrough.sandbox import Received, Sandbox
from tests.conformance.judge import Exchange
from tests.fakes.certificates import Authority
from tests.fakes.running import Blocking, Running, database, in_thread, running
from tests.fakes.tap import Message, Tap
from tests.fakes.upstream import Upstream

Clients = Callable[..., Any]
ONCE = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "read_timeout": 20}


@dataclass
class Wired(Running):
    """`url` is the address of the tap before the proxy."""

    before: Tap
    behind: Tap


@asynccontextmanager
async def wired(
    database_url: str, data_dir: Path, upstream: Sandbox | Upstream | None = None, **settings: Any
) -> AsyncIterator[Wired]:
    """client → tap → proxy → tap → sandbox, or another upstream."""
    received: list[Received] = []
    async with (
        upstream or Sandbox(pace_seconds=0, on_request=received.append) as aws,
        _tap(aws.url) as behind,
        running(database_url, data_dir, upstream=behind.url, **settings) as proxy,
        _tap(proxy.url) as before,
    ):
        yield Wired(
            url=before.url,
            service=proxy.service,
            settings=proxy.settings,
            database_url=database_url,
            sandbox=aws if isinstance(aws, Sandbox) else None,
            received=received,
            before=before,
            behind=behind,
        )


def _tap(url: str) -> Tap:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    return Tap(address.hostname, address.port)


class Wire:
    """What went over both sides of the proxy since the test began."""

    def __init__(self, proxy: Blocking) -> None:
        assert isinstance(proxy.proxy, Wired)
        self._before, self._behind = proxy.proxy.before, proxy.proxy.behind
        self.proxy = proxy

    def forget(self) -> None:
        self._before.forget()
        self._behind.forget()

    @property
    def exchanges(self) -> list[Exchange]:
        """Calls in both shapes; only where each was made after the other, and forwarded."""
        behind = [pair for pair in self._behind.exchanges if not _of_the_proxy(pair[0])]
        pairs = zip(self._before.exchanges, behind, strict=True)
        return [Exchange(*asked, *forwarded) for asked, forwarded in pairs]

    @property
    def exchange(self) -> Exchange:
        """The one call that was made."""
        (only,) = self.exchanges
        return only

    @property
    def upstream_bytes(self) -> bytes:
        """Every byte that was sent to AWS."""
        return self._behind.raw


def _of_the_proxy(request: Message) -> bool:
    """Is it a look-up of its own (what model an inference profile stands for), behind no client's call?"""
    return request.target.startswith(b"/inference-profiles/") and not request.values("user-agent")


@pytest.fixture(scope="session", autouse=True)
def _no_aws() -> Iterator[None]:
    """A machine without AWS settings: what a client knows, its test has told it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AWS_", "BOTO_", "OPENAI_", "ANTHROPIC_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def database_at_head(postgres: str, _template: str) -> Iterator[str]:
    with database(postgres, _template) as url:
        yield url


@pytest.fixture(scope="session")
def proxy(database_at_head: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Blocking]:
    with in_thread(lambda: wired(database_at_head, tmp_path_factory.mktemp("proxy"))) as serving:
        yield serving


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Issues the certificates of this session's servers."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def secure(database_at_head: str, tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Blocking]:
    """A proxy that serves https."""
    folder, tls = tmp_path_factory.mktemp("secure"), authority.serving("127.0.0.1")
    with in_thread(lambda: running(database_at_head, folder, tls=tls)) as serving:
        yield serving


@pytest.fixture(scope="session")
def key(proxy: Blocking) -> str:
    return proxy.key(key_alias="conformance")


@pytest.fixture
def wire(proxy: Blocking) -> Wire:
    seen = Wire(proxy)
    seen.forget()
    return seen


@pytest.fixture(scope="session")
def session() -> boto3.session.Session:
    """One for all tests: it keeps the service models, which take most of a client's making."""
    return boto3.session.Session()


@pytest.fixture
def clients(session: boto3.session.Session, proxy: Blocking) -> Iterator[Clients]:
    """Makes boto3 clients that do not retry."""
    opened: list[Any] = []

    def client(service: str, /, *, config: dict[str, Any] | None = None, **settings: Any) -> Any:
        given = {"region_name": "us-east-1", "endpoint_url": proxy.bedrock, "aws_secret_access_key": "anything"}
        made = session.client(
            service,
            config=Config(**{**ONCE, **(config or {})}),
            **{**given, **settings},
        )
        opened.append(made)
        return made

    yield client
    for made in opened:
        made.close()


async def blocking(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """Call what blocks from a test that does not."""
    return await asyncio.to_thread(function, *arguments, **named)
