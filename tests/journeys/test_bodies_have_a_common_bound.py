"""What a worker holds of the bodies of all its calls together is bounded, and given back however a call ends."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientSession

from passthrough.proxy.receive import UNCOUNTED_BYTES
from tests.fakes.calls import CONVERSE, STREAM, Proxies, ask, call, call_head, refusal
from tests.fakes.peer import Peer, connect, until
from tests.fakes.running import Running
from tests.fakes.upstream import Incoming, Upstream, answer, answering, chunk, stream_head, text_frame

KB = 1024
ROOM = 600 * KB
HALF = bytes(400 * KB)  # of which there is room for one
SETTINGS = {"max_body_bytes": 500 * KB, "buffered_bodies_bytes": ROOM}


class Waiting:
    """An upstream that answers once it is told to."""

    def __init__(self) -> None:
        self.received = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, peer: Incoming) -> None:
        await peer.request()
        self.received.set()
        await self.go_on.wait()
        await peer.send(answer(b"{}"))


def held(proxy: Running) -> int:
    return proxy.service.handler.receive.buffered


async def nothing_held(proxy: Running) -> None:
    await proxy.service.handler.drained()
    assert held(proxy) == 0
    assert not proxy.service.handler.receive.held


async def test_a_body_beyond_the_bound_is_refused_before_it_is_read_and_served_once_there_is_room(
    start: Proxies, upstream: Upstream
) -> None:
    proxy = await start(**SETTINGS)
    upstream.script = waiting = Waiting()
    async with connect(proxy.url) as first, connect(proxy.url) as second, connect(proxy.url) as small:
        await first.send(call(body=HALF))
        await until(waiting.received.is_set)
        assert held(proxy) == len(HALF)

        await second.send(call_head(CONVERSE, f"Content-Length: {len(HALF)}"))  # and not a byte of it
        refused = await second.message()
        assert refusal(refused) == (503, "ServiceUnavailableException")
        assert int(refused.value("Retry-After") or 0) > 0
        assert held(proxy) == len(HALF)

        waiting.go_on.set()
        assert (await ask(small, call())).status == 200
        assert (await first.message()).status == 200
    await nothing_held(proxy)
    async with connect(proxy.url) as client:
        assert (await ask(client, call(body=HALF))).status == 200
    await nothing_held(proxy)


async def test_a_body_of_unknown_length_is_refused_where_the_room_ends(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(**SETTINGS)
    upstream.script = waiting = Waiting()
    async with connect(proxy.url) as first, connect(proxy.url) as second:
        await first.send(call(body=HALF))
        await until(waiting.received.is_set)
        await second.send(call_head(CONVERSE, "Transfer-Encoding: chunked"), chunk(bytes(100 * KB)))
        await until(lambda: held(proxy) == 500 * KB)
        await second.send(chunk(bytes(150 * KB)))
        assert refusal(await second.message()) == (503, "ServiceUnavailableException")
        waiting.go_on.set()
        await first.message()
    await nothing_held(proxy)


async def test_what_came_with_its_head_counts_unless_it_is_short(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(**SETTINGS)
    for size, counted in ((UNCOUNTED_BYTES, False), (UNCOUNTED_BYTES + 1, True)):
        upstream.script = waiting = Waiting()
        async with connect(proxy.url) as client:
            await client.send(call(body=bytes(size)))
            await until(waiting.received.is_set)
            assert held(proxy) == counted * size
            waiting.go_on.set()
            assert (await client.message()).status == 200
        await nothing_held(proxy)


async def refused_for_its_model(proxy: Running, client: Peer) -> None:
    key = await proxy.key(models=["amazon.*"])
    body = b'{"model": "anthropic.claude-x", "pad": "' + b"x" * len(HALF) + b'"}'
    assert (await ask(client, call("/bedrock/openai/v1/chat/completions", body=body, key=key))).status == 403


async def too_large_in_the_end(proxy: Running, client: Peer) -> None:
    await client.send(call_head(CONVERSE, "Transfer-Encoding: chunked"), chunk(HALF))
    await until(lambda: held(proxy) == len(HALF))
    await client.send(chunk(HALF))
    assert (await client.message()).status == 413


async def left_inside_its_body(proxy: Running, client: Peer) -> None:
    await client.send(call_head(CONVERSE, f"Content-Length: {len(HALF)}"), HALF[: 100 * KB])
    await until(lambda: held(proxy) == 100 * KB)
    client.reset()


async def malformed_inside(proxy: Running, client: Peer) -> None:
    await client.send(call_head(CONVERSE, "Transfer-Encoding: chunked"), chunk(bytes(100 * KB)))
    await until(lambda: held(proxy) == 100 * KB)
    await client.send(b"no length\r\n")
    assert (await client.message()).status == 400


async def stalled_inside(proxy: Running, client: Peer) -> None:  # noqa: ARG001  # one of several
    await client.send(call_head(CONVERSE, f"Content-Length: {len(HALF)}"), HALF[: 100 * KB])
    assert (await client.message()).status == 408


async def answered_twice_on_one_connection(proxy: Running, client: Peer) -> None:  # noqa: ARG001  # one of several
    for _ in range(2):
        assert (await ask(client, call(body=HALF))).status == 200


@pytest.mark.parametrize(
    "end",
    [
        refused_for_its_model,
        too_large_in_the_end,
        left_inside_its_body,
        malformed_inside,
        stalled_inside,
        answered_twice_on_one_connection,
    ],
)
async def test_what_was_held_is_given_back_however_the_call_ends(
    start: Proxies, end: Callable[[Running, Peer], Awaitable[None]]
) -> None:
    proxy = await start(**SETTINGS, client_stall_seconds=0.3)
    async with connect(proxy.url) as client:
        await end(proxy, client)
        await nothing_held(proxy)


async def cut_by_the_upstream(peer: Incoming) -> None:
    await peer.request()


async def test_what_was_held_is_given_back_when_the_upstream_fails(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(**SETTINGS)
    upstream.script = cut_by_the_upstream
    async with connect(proxy.url) as client:
        assert (await ask(client, call(body=HALF))).status == 502
        await nothing_held(proxy)


@pytest.mark.parametrize("on_disconnect", ["cancel", "drain"])
async def test_what_was_held_is_given_back_when_the_client_has_left_an_answer(
    start: Proxies, upstream: Upstream, on_disconnect: str
) -> None:
    proxy = await start(**SETTINGS, on_client_disconnect=on_disconnect)
    go_on = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(text_frame("one")))
        await go_on.wait()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM, body=HALF))
        await client.head()
        assert held(proxy) == len(HALF)
        client.reset()
        if on_disconnect == "drain":
            assert held(proxy) == len(HALF)  # as long as its answer is read
        go_on.set()
        await nothing_held(proxy)


async def test_a_body_that_goes_up_as_it_comes_is_not_held_and_the_metric_tells_what_is(
    start: Proxies, upstream: Upstream
) -> None:
    proxy = await start(**SETTINGS)

    async def shown() -> bool:
        async with ClientSession() as session, session.get(f"{proxy.url}/metrics") as response:
            return f"passthrough_buffered_body_bytes {float(held(proxy))}" in await response.text()

    upstream.script = answering(answer(b"{}", "Connection: close"))
    async with connect(proxy.url) as client:
        head = call_head(CONVERSE, f"Content-Length: {len(HALF)}", "x-amz-content-sha256: " + "0" * 64)
        await client.send(head)
        await until(lambda: upstream.connections)
        assert held(proxy) == 0
        await client.send(HALF)
        assert (await client.message()).status == 200
    upstream.script = waiting = Waiting()
    async with connect(proxy.url) as client:
        await client.send(call(body=HALF))
        await until(waiting.received.is_set)
        assert held(proxy) == len(HALF)
        assert await shown()
        waiting.go_on.set()
        await client.message()
    await nothing_held(proxy)
    assert await shown()


async def test_a_body_that_turns_malformed_when_nobody_reads_it_any_more_is_no_error_of_ours(
    start: Proxies, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = await start(**SETTINGS)
    async with connect(proxy.url) as stranger, connect(proxy.url) as other:
        await stranger.send(call_head(CONVERSE, "Transfer-Encoding: chunked", key="sk-nobody-has-this-one-0123"))
        assert (await stranger.message()).status == 401
        await stranger.send(chunk(b"{}"), b"no length\r\n")
        await until(lambda: not proxy.service.handler.calls)
        assert (await ask(other)).status == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
