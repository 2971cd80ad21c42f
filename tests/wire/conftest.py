"""Wire tests run on both event loops: uvloop serves, asyncio's own says whether a promise is uvloop's or ours."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.fakes.upstream import Upstream


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001  # the hook's interface
    item: pytest.Item,  # noqa: ARG001  # the hook's interface
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as opened:
        yield opened
