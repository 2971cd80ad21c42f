"""Connections that are kept, lent, forgotten and refused."""

import asyncio
import contextlib
import socket

import pytest

from passthrough.errors import Unavailable
from passthrough.wire.connection import NoAnswer, SilentUpstream
from passthrough.wire.pool import Limits
from tests.fakes.peer import until
from tests.fakes.upstream import Incoming, Upstream, answer, answering, chunk, stream_head
from tests.wire.collecting import POST, Collected, address, ask, opened_pool


async def test_a_connection_that_answered_well_is_used_again(upstream: Upstream) -> None:
    async with opened_pool() as pool:
        for _ in range(5):
            assert (await ask(pool, upstream.port)).body == b"{}"
    assert upstream.connections == 1
    assert len(upstream.requests) == 5


@pytest.mark.parametrize(
    "last",
    [
        answer(b"{}", "Connection: close"),
        answer(b"{}", "Connection: Close, x"),
        answer(b"{}").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["that is closed", "that is closed among other things", "of HTTP/1.0"],
)
async def test_a_connection_is_not_used_again(upstream: Upstream, last: bytes) -> None:
    upstream.script = answering(last)
    async with opened_pool() as pool:
        assert (await ask(pool, upstream.port)).body == b"{}"
        assert (await ask(pool, upstream.port)).body == b"{}"
    assert upstream.connections == 2


async def test_calls_at_the_same_time_have_connections_of_their_own(upstream: Upstream) -> None:
    async with opened_pool() as pool:
        got = await asyncio.gather(*(ask(pool, upstream.port) for _ in range(20)))
        assert all(each.whole for each in got)
        assert upstream.connections == 20
        await asyncio.gather(*(ask(pool, upstream.port) for _ in range(20)))
    assert upstream.connections == 20


async def test_the_connection_used_last_is_lent_first_so_that_the_others_can_expire(upstream: Upstream) -> None:
    async with opened_pool() as pool:
        first, second = [await pool.acquire(address(upstream.port)) for _ in range(2)]
        for connection in (second, first):
            got = Collected()
            connection.start(got, POST)
            await got.ended()
        assert await pool.acquire(address(upstream.port)) is first


async def test_an_idle_connection_is_closed_when_its_time_is_over(upstream: Upstream) -> None:
    async with opened_pool(limits=Limits(idle_seconds=0.05)) as pool:
        connection = await pool.acquire(address(upstream.port))
        got = Collected()
        connection.start(got, POST)
        await got.ended()
        await until(lambda: not connection.open)
        assert repr(pool) == "<Pool 0 busy, 0 idle>"
        assert (await ask(pool, upstream.port)).whole
    assert upstream.connections == 2


async def test_a_connection_that_the_upstream_closed_meanwhile_is_not_lent(upstream: Upstream) -> None:
    closed = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(b"{}"))
        peer.cut()
        closed.set()

    upstream.script = script
    async with opened_pool() as pool:
        await ask(pool, upstream.port)
        await closed.wait()
        await until(lambda: repr(pool) == "<Pool 0 busy, 0 idle>")
        assert (await ask(pool, upstream.port)).whole


async def test_a_request_on_a_connection_that_dies_under_it_has_no_answer(upstream: Upstream) -> None:
    """What the forwarder may send again: nothing was received."""

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(b"{}"))
        await peer.head()
        peer.reset()

    upstream.script = script
    async with opened_pool() as pool:
        assert (await ask(pool, upstream.port)).whole
        assert isinstance((await ask(pool, upstream.port)).error, NoAnswer)


async def test_a_silent_upstream_is_given_up(upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        assert await peer.gone()

    upstream.script = script
    async with opened_pool(limits=Limits(answer_seconds=0.1)) as pool:
        got = await ask(pool, upstream.port)
        assert isinstance(got.error, SilentUpstream)


async def test_an_upstream_that_falls_silent_inside_its_answer_is_given_up(upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head(), chunk(b"one"))
        assert await peer.gone()

    upstream.script = script
    async with opened_pool(limits=Limits(answer_seconds=0.6)) as pool:
        got = await ask(pool, upstream.port)
    assert isinstance(got.error, SilentUpstream)
    assert got.body == b"one"


async def test_an_upstream_that_is_slow_but_not_silent_is_waited_for(upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        for _ in range(10):
            await asyncio.sleep(0.06)
            await peer.send(chunk(b"."))
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    upstream.script = script
    async with opened_pool(limits=Limits(answer_seconds=0.4)) as pool:
        assert (await ask(pool, upstream.port)).body == b"." * 10


async def test_silence_that_we_asked_for_is_not_held_against_the_upstream(upstream: Upstream) -> None:
    rest = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head(), chunk(b"one"))
        await rest.wait()
        await peer.send(chunk(b"two"), b"0\r\n\r\n")
        await peer.gone()

    class Pausing(Collected):
        def flush(self) -> None:
            super().flush()
            if self.body == b"one":
                connection.pause_reading()

    upstream.script = script
    async with opened_pool(limits=Limits(answer_seconds=0.6)) as pool:
        connection = await pool.acquire(address(upstream.port))
        got = Pausing()
        connection.start(got, POST)
        await asyncio.sleep(1.2)  # longer than any silence that is allowed: no event says that nothing happened
        assert got.error is None
        connection.resume_reading()
        rest.set()
        assert (await got.ended()).body == b"onetwo"


async def test_a_refused_connection_is_a_503() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with opened_pool() as pool:
            with pytest.raises(Unavailable) as caught:
                await pool.acquire(address(bound.getsockname()[1]))
    assert caught.value.status == 503
    assert "127.0.0.1" in caught.value.cause
    assert "127.0.0.1" not in caught.value.message


async def test_a_name_that_does_not_resolve_is_a_503() -> None:
    async with opened_pool() as pool:
        with pytest.raises(Unavailable):
            await pool.acquire(address(443, host="nowhere.invalid"))


async def test_connecting_takes_no_longer_than_it_may() -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(2):  # fill what the kernel accepts for it
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003  # the standard library's signature
            filler.connect_ex(deaf.getsockname())
        async with opened_pool(limits=Limits(connect_seconds=0.2)) as pool:
            with pytest.raises(Unavailable) as caught:
                async with asyncio.timeout(30):
                    await pool.acquire(address(deaf.getsockname()[1]))
    assert "TimeoutError" in caught.value.cause


async def test_connections_to_one_address_are_bounded(upstream: Upstream) -> None:
    async with opened_pool(limits=Limits(connections_per_address=2)) as pool:
        lent = [await pool.acquire(address(upstream.port)) for _ in range(2)]
        with pytest.raises(Unavailable):
            await pool.acquire(address(upstream.port))
        got = Collected()
        lent[0].start(got, POST)
        await got.ended()
        assert await pool.acquire(address(upstream.port)) is lent[0]


async def test_one_who_stops_waiting_for_a_connection_leaves_nothing_behind(upstream: Upstream) -> None:
    async with opened_pool(limits=Limits(connections_per_address=1)) as pool:
        waiting = asyncio.create_task(pool.acquire(address(upstream.port)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (await ask(pool, upstream.port)).whole


async def test_a_thousand_idle_connections_end_without_holding_up_the_loop(upstream: Upstream) -> None:
    async with opened_pool() as pool:
        connections = [await pool.acquire(address(upstream.port)) for _ in range(1000)]
        got = [Collected() for _ in connections]
        for each, connection in zip(got, connections, strict=True):
            connection.start(each, POST)
        await asyncio.gather(*(each.ended() for each in got))
        assert repr(pool) == "<Pool 0 busy, 1000 idle>"
    await until(lambda: repr(pool) == "<Pool 0 busy, 0 idle>")
