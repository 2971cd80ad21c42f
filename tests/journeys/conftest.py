"""A scripted upstream, and the real proxy in front of it, on the event loop that serves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.fakes.calls import Proxies, proxy_of
from tests.fakes.running import Running, database, select
from tests.fakes.upstream import Upstream


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001  # the hook's interface
    item: pytest.Item,  # noqa: ARG001  # the hook's interface
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def shared_database(postgres: str, _template: str) -> Iterator[str]:
    with database(postgres, _template) as url:
        yield url


@pytest.fixture
async def database_url(shared_database: str) -> str:
    """One database for all of these tests, with an empty ledger: a new one would cost more than most of them."""
    await select(shared_database, "DELETE FROM ledger_calls")
    return shared_database


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as opened:
        yield opened


@pytest.fixture
async def start(upstream: Upstream, database_url: str, tmp_path: Path) -> AsyncIterator[Proxies]:
    """Starts the proxy with settings of the test's own."""
    async with AsyncExitStack() as stack:

        async def started(**settings: Any) -> Running:
            return await stack.enter_async_context(proxy_of(upstream, database_url, tmp_path, **settings))

        yield started


@pytest.fixture
async def proxy(start: Proxies) -> Running:
    return await start()
