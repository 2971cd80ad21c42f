"""What a call costs, as a shape: how often something happens, not how long it takes."""

import asyncio
import gc
import re
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

import pytest
from aiohttp.web import UrlDispatcher

from tests.fakes.calls import STREAM, ask, call
from tests.fakes.peer import Peer, connect
from tests.fakes.running import MASTER_KEY, Running
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, chunk, stream_head, text_frame, usage_frame

CALLS = 20
FRAMES = 200


async def key_queries(client: Peer) -> int:
    shown = await ask(client, b"GET /metrics HTTP/1.1\r\nHost: proxy\r\n\r\n")
    found = re.search(rb"^passthrough_key_queries_total (\S+)", shown.body, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


async def test_a_known_key_costs_no_query_and_a_kept_connection_no_new_one(proxy: Running, upstream: Upstream) -> None:
    key = await proxy.key()
    async with connect(proxy.url) as client:
        before = -1
        while before != (before := await key_queries(client)) or not before:
            # until the word of the key's creation is through, which may come after its first use
            assert (await ask(client, call(key=key))).status == 200
        for _ in range(CALLS):
            assert (await ask(client, call(key=key))).status == 200
        assert await key_queries(client) == before
    assert before > 0
    assert upstream.connections == 1


async def test_a_frame_makes_no_task(proxy: Running, upstream: Upstream) -> None:
    frame = text_frame("word")

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        for _ in range(FRAMES):
            await peer.send(chunk(frame))
        await peer.send(chunk(usage_frame(1, FRAMES)), LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        await client.head()
        made = _counting_tasks(asyncio.get_running_loop())
        body = b"".join([piece async for piece in client.chunks()])
        asyncio.get_running_loop().set_task_factory(None)
    assert body.count(frame) == FRAMES
    assert len(made) < FRAMES / 10, made  # the ledger's own few, which come by the clock


def _counting_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    made: list[str] = []

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], context: Context | None = None
    ) -> asyncio.Task[Any]:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, context=context)

    loop.set_task_factory(factory)  # type: ignore[arg-type]  # typeshed's protocol is wider than what is called
    return made


async def test_a_call_is_served_without_asking_the_router(proxy: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> None:
        raise AssertionError("the router was asked")

    monkeypatch.setattr(UrlDispatcher, "resolve", resolve)
    async with connect(proxy.url) as client:
        assert (await ask(client)).status == 200
        admin = f"GET /key/list HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {MASTER_KEY}\r\n\r\n"
        assert (await ask(client, admin.encode())).status == 500  # it has a route, and so asks


async def test_a_call_leaves_no_cycles_to_the_garbage_collector(proxy: Running) -> None:
    """Why a worker may let the collector run so rarely (`serving`)."""
    async with connect(proxy.url) as client:
        assert (await ask(client)).status == 200
        request = call()
        gc.collect()
        gc.disable()
        try:
            for _ in range(CALLS):
                await ask(client, request)
            left = gc.collect()
        finally:
            gc.enable()
    assert left < CALLS, f"{left} objects after {CALLS} calls"
