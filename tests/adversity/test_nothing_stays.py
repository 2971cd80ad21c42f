"""A call that has ended leaves nothing in the process, however it ended: no task, no future, no cycle of objects.

The worker lets the garbage collector rest; what only the collector would free would pile up.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.fakes.calls import CONVERSE, STREAM, ask, call, call_head
from tests.fakes.peer import connect, until
from tests.fakes.running import Running
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, answer, answering, chunk, stream_head, text_frame

OURS = ("passthrough.", "aiohttp.", "_asyncio", "httptools.")
CALLS = 30
FRAME = text_frame("one")
Ending = Callable[[Running, Upstream], Awaitable[None]]


async def _well(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(answer(b"{}"))
    async with connect(proxy.url) as client:
        assert (await ask(client)).status == 200


async def _streamed(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(stream_head("Connection: close") + chunk(FRAME) + LAST_CHUNK)
    async with connect(proxy.url) as client:
        assert (await ask(client, call(STREAM))).ending == "whole"


async def _refused(proxy: Running, upstream: Upstream) -> None:  # noqa: ARG001  # as the others
    async with connect(proxy.url) as client:
        assert (await ask(client, call(key="sk-nobody"))).status == 401


async def _cut(proxy: Running, upstream: Upstream) -> None:
    head_is_there = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME))
        await head_is_there.wait()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        first = await client.head()
        head_is_there.set()
        assert (await client.body(*first)).ending == "fin"


async def _without_answer(proxy: Running, upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()

    upstream.script = script
    async with connect(proxy.url) as client:
        assert (await ask(client)).status == 502


async def _left(proxy: Running, upstream: Upstream) -> None:
    left = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head("Connection: close") + chunk(FRAME))
        await left.wait()
        await peer.send(LAST_CHUNK)

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        await client.head()
        client.reset()
    left.set()
    await proxy.service.handler.drained()


async def _left_inside_its_body(proxy: Running, upstream: Upstream) -> None:  # noqa: ARG001  # as the others
    async with connect(proxy.url) as client:
        await client.send(call_head(CONVERSE, "Content-Length: 100") + b"half")
        await until(lambda: proxy.service.handler.calls)
        client.reset()
    await proxy.service.handler.drained()


ENDINGS: dict[str, Ending] = {
    "well": _well,
    "with a stream": _streamed,
    "refused": _refused,
    "cut": _cut,
    "without an answer": _without_answer,
    "left": _left,
    "left inside its body": _left_inside_its_body,
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_of_a_call_that_ended_nothing_stays(proxy: Running, upstream: Upstream, name: str) -> None:
    for _ in range(3):
        await ENDINGS[name](proxy, upstream)
    before = await _objects()
    gc.disable()
    try:
        for _ in range(CALLS):
            await ENDINGS[name](proxy, upstream)
        after = await _objects(collect=False)
    finally:
        gc.enable()
    grown = {kind: after[kind] - before[kind] for kind in after if after[kind] - before[kind] >= CALLS // 2}
    assert grown == {}


async def _objects(*, collect: bool = True) -> Counter[str]:
    """How many there are of each type of ours and of what we build on, once the loop has come to rest."""
    for _ in range(20):
        await asyncio.sleep(0)
    if collect:
        gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    return Counter(name for kind in kinds if (name := f"{kind.__module__}.{kind.__qualname__}").startswith(OURS))
