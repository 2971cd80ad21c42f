"""What becomes of a call whose client hangs up: read to the end for its figures, or dropped at once."""

import asyncio
from collections.abc import Callable

import pytest

from tests.fakes.calls import BODY, CONVERSE, STREAM, Proxies, ask, call, call_head, ended_rows
from tests.fakes.peer import Peer, connect, until
from tests.fakes.running import Running
from tests.fakes.upstream import (
    LAST_CHUNK,
    Incoming,
    Script,
    Upstream,
    answer,
    answering,
    chunk,
    stream_head,
    text_frame,
    usage_frame,
)

FRAMES = [text_frame("one"), text_frame("two"), usage_frame(11, 22)]
WAYS = {"by FIN": Peer.cut, "by RST": Peer.reset}
leaves = pytest.mark.parametrize("leave", WAYS.values(), ids=WAYS.keys())


class Scripted:
    """A stream in three frames, the first of which is sent at once, and the others when `go_on` is set."""

    def __init__(self, *fields: str) -> None:
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()
        self._head = stream_head(*fields)

    async def __call__(self, peer: Incoming) -> None:
        await peer.request()
        await peer.send(self._head + chunk(FRAMES[0]))
        async with asyncio.TaskGroup() as group:
            going_on = group.create_task(self._go_on(peer))
            await peer.gone()
            self.ended.set()
            going_on.cancel()

    async def _go_on(self, peer: Incoming) -> None:
        await self.go_on.wait()
        await peer.send(*(chunk(frame) for frame in FRAMES[1:]), LAST_CHUNK)


def watching(ended: asyncio.Event, before: bytes) -> Script:
    """Sends `before`, and then waits for the connection's end."""

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(before)
        await peer.gone()
        ended.set()

    return script


@leaves
async def test_inside_a_stream_the_rest_is_read_for_its_figures(
    proxy: Running, upstream: Upstream, leave: Callable[[Peer], None]
) -> None:
    upstream.script = script = Scripted()
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        await client.head()
        assert await anext(client.chunks()) == FRAMES[0]
        leave(client)
    await _draining(proxy)
    script.go_on.set()
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("client_gone", 200)
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (11, 22, "stream")
    assert row["response_bytes"] == sum(map(len, FRAMES))


@leaves
async def test_before_the_answer_it_is_waited_for_and_read(
    proxy: Running, upstream: Upstream, leave: Callable[[Peer], None]
) -> None:
    left = asyncio.Event()
    received = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        received.set()
        await left.wait()
        await peer.send(answer(b'{"usage":{"inputTokens":3,"outputTokens":4,"totalTokens":7}}'))
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call())
        await received.wait()
        leave(client)
    await _draining(proxy)
    left.set()
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"], row["input_tokens"], row["output_tokens"]) == ("client_gone", 200, 3, 4)


async def test_an_upstream_connection_that_was_read_to_the_end_is_used_again(
    proxy: Running, upstream: Upstream
) -> None:
    await _left_alone(proxy, upstream, script := Scripted())
    await _draining(proxy)
    script.go_on.set()
    await ended_rows(proxy)
    assert not script.ended.is_set()
    assert repr(proxy.service.handler.forward._pool) == "<Pool 0 busy, 1 idle>"


@leaves
@pytest.mark.parametrize(
    "before", [b"", stream_head(), stream_head() + chunk(FRAMES[0])], ids=["no answer", "a head", "a frame"]
)
async def test_with_cancel_the_upstream_is_dropped_at_once(
    start: Proxies, upstream: Upstream, leave: Callable[[Peer], None], before: bytes
) -> None:
    proxy = await start(on_client_disconnect="cancel")
    ended = asyncio.Event()
    upstream.script = watching(ended, before)
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        if before:
            await client.head()
        else:
            await until(lambda: upstream.requests)
        leave(client)
        async with asyncio.timeout(20):  # at once: not after the minute of a drain
            await ended.wait()
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("client_gone", 200 if before else 499)


async def test_reading_to_the_end_takes_no_longer_than_it_may(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(disconnect_drain_seconds=0.2)
    ended = asyncio.Event()
    upstream.script = watching(ended, stream_head() + chunk(FRAMES[0]))
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        await client.head()
        client.reset()
        async with asyncio.timeout(20):
            await ended.wait()
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("client_gone", 200)


async def test_no_more_are_read_to_the_end_than_may_be_at_a_time(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(disconnect_drains=2)
    scripts = [Scripted("Connection: close") for _ in range(4)]
    for number, script in enumerate(scripts):
        await _left_alone(proxy, upstream, script)
        if number < 2:
            await _draining(proxy, number + 1)
        else:
            async with asyncio.timeout(20):
                await script.ended.wait()
    assert [script.ended.is_set() for script in scripts[:2]] == [False, False]
    for script in scripts[:2]:
        script.go_on.set()
    rows = await ended_rows(proxy)
    assert [row["outcome"] for row in rows] == ["client_gone"] * 4
    assert [row["usage_source"] for row in rows] == ["stream", "stream", "estimate", "estimate"]

    # what was read to the end makes room for others
    await _left_alone(proxy, upstream, last := Scripted())
    await _draining(proxy)
    last.go_on.set()
    assert (await ended_rows(proxy))[-1]["output_tokens"] == 22


async def _left_alone(proxy: Running, upstream: Upstream, script: Scripted) -> None:
    """Begin a stream of the script, and leave."""
    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        await client.head()
        client.reset()


async def test_one_who_was_slow_and_left_does_not_hold_the_upstream(proxy: Running, upstream: Upstream) -> None:
    blocked = asyncio.Event()
    total = 40
    piece = chunk(bytes(1024 * 1024))

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        taken = await peer.send_until_blocked(piece, total * len(piece))
        blocked.set()
        for _ in range(total - taken // len(piece)):
            await peer.send(piece)
        await peer.send(LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url, receive_buffer=65536) as client:
        await client.send(call(STREAM))
        await blocked.wait()
        client.reset()
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["response_bytes"]) == ("client_gone", total * 1024 * 1024)


@pytest.mark.parametrize("hashed", [False, True], ids=["that is collected", "that goes up as it comes"])
async def test_inside_its_own_body_the_call_ends(proxy: Running, upstream: Upstream, hashed: bool) -> None:  # noqa: FBT001  # a parameter of a test
    fields = ["x-amz-content-sha256: " + "0" * 64] if hashed else []
    ended = asyncio.Event()

    async def script(peer: Incoming) -> None:
        try:
            await peer.request()
        finally:
            ended.set()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call_head(CONVERSE, "Content-Length: 1000", *fields), BODY)
        await until(lambda: proxy.service.handler.calls)
        if hashed:
            await until(lambda: upstream.connections)
        client.reset()
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("client_gone", 499)
    if hashed:
        async with asyncio.timeout(20):
            await ended.wait()
    else:
        assert not upstream.connections


async def test_while_it_is_looked_up_nobody_is_held_up(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(answer(b"{}"))
    for _ in range(20):
        async with connect(proxy.url) as client:
            await client.send(call(key="sk-unknown-0123456789"))
            client.reset()
    async with connect(proxy.url) as client:
        assert (await ask(client)).status == 200


async def _draining(proxy: Running, count: int = 1) -> None:
    """Wait until that many answers are read for clients that have gone; only the forwarder knows."""
    forward = proxy.service.handler.forward
    await until(lambda: forward._drains_left == proxy.settings.disconnect_drains - count)
