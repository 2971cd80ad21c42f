"""Who does not read is waited for, and nothing piles up in between."""

import asyncio
import tracemalloc

from tests.fakes.calls import BODY, CONVERSE, STREAM, Proxies, ask, call, call_head, ended_rows
from tests.fakes.peer import connect, until
from tests.fakes.running import Running
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, answer, answering, chunk, head, stream_head

CHUNKED_FIELD = "Transfer-Encoding: chunked"
MEGABYTE = bytes(1024 * 1024)
# Linux lets a receiver's buffer grow to 6 MiB, or 32 where it is tuned, and a sender's to 4 (tcp_rmem, tcp_wmem)
KERNEL_BYTES = 48 * len(MEGABYTE)


async def test_a_reader_that_stops_stops_the_upstream_and_has_everything_when_it_goes_on(
    proxy: Running, upstream: Upstream
) -> None:
    total = 64
    taken: list[int] = []
    blocked = asyncio.Event()
    piece = chunk(MEGABYTE)

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(head(CHUNKED_FIELD))
        taken.append(await peer.send_until_blocked(piece, total * len(piece)))
        blocked.set()
        for _ in range(total - taken[0] // len(piece)):
            await peer.send(piece)
        await peer.send(LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url, receive_buffer=len(MEGABYTE)) as client:
        tracemalloc.start()
        await client.send(call(STREAM))
        await blocked.wait()
        assert taken[0] < KERNEL_BYTES
        held = tracemalloc.get_traced_memory()[1]
        got = await client.message()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (len(got.body), got.ending) == (total * len(MEGABYTE), "whole")
    # of which 1 MiB are the upstream's own, in this same process
    assert held < 4 * len(MEGABYTE)
    assert peak > held  # the client's copy, which shows that memory was measured
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["response_bytes"]) == ("ok", total * len(MEGABYTE))


async def test_a_slow_reader_does_not_slow_the_others(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(on_client_disconnect="cancel")
    blocked = asyncio.Event()

    async def endless(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        await peer.send_until_blocked(chunk(MEGABYTE), KERNEL_BYTES)
        blocked.set()
        await peer.gone()

    upstream.script = endless
    async with connect(proxy.url, receive_buffer=65536) as slow, connect(proxy.url) as quick:
        await slow.send(call(STREAM))
        await blocked.wait()
        upstream.script = answering(answer(b"quick"))
        for _ in range(10):
            assert (await ask(quick)).body == b"quick"
        slow.reset()


async def test_a_reader_that_takes_nothing_for_too_long_is_cut_and_its_answer_read_to_the_end(
    start: Proxies, upstream: Upstream
) -> None:
    proxy = await start(client_stall_seconds=0.3)

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        for _ in range(40):
            await peer.send(chunk(MEGABYTE))
        await peer.send(LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url, receive_buffer=65536) as client:
        await client.send(call(STREAM))
        await until(lambda: proxy.service.handler.calls)
        (row,) = await ended_rows(proxy)
        assert await client.gone() == "reset"
    assert (row["outcome"], row["status"]) == ("client_gone", 200)
    assert row["response_bytes"] == 40 * len(MEGABYTE)


async def test_one_who_asks_again_and_again_and_reads_nothing_is_not_answered_without_end(
    proxy: Running, upstream: Upstream
) -> None:
    """Each answer fits one read of the upstream, so that none of them alone is ever held back."""
    upstream.script = answering(answer(bytes(100_000)))
    wanted = 500
    async with connect(proxy.url, receive_buffer=65536) as client:
        await client.send_until_blocked(call() * 10, wanted * len(call()))
        waited = len(upstream.requests)
        assert waited < wanted // 2
        for _ in range(waited):
            assert len((await client.message()).body) == 100_000
        client.reset()


async def test_a_slow_upstream_slows_a_body_that_goes_up_as_it_comes(proxy: Running, upstream: Upstream) -> None:
    read_on = asyncio.Event()

    async def script(peer: Incoming) -> None:
        head = await peer.head()
        peer.writer.transport.pause_reading()
        await read_on.wait()
        peer.writer.transport.resume_reading()
        assert len((await peer.body(*head)).body) == 64 * len(MEGABYTE)
        await peer.send(answer(b"done"))
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(
            call_head(CONVERSE, f"Content-Length: {64 * len(MEGABYTE)}", "x-amz-content-sha256: " + "0" * 64)
        )
        taken = await client.send_until_blocked(MEGABYTE, 64 * len(MEGABYTE))
        assert taken < KERNEL_BYTES
        read_on.set()
        for _ in range(64 - taken // len(MEGABYTE)):
            await client.send(MEGABYTE)
        assert (await client.message()).body == b"done"


async def test_a_body_that_stops_coming_is_refused_after_a_while(start: Proxies) -> None:
    proxy = await start(client_stall_seconds=0.2)
    async with connect(proxy.url) as client:
        got = await ask(client, call_head(CONVERSE, f"Content-Length: {len(BODY)}") + BODY[:10])
    assert (got.status, got.value("x-amzn-ErrorType")) == (408, "RequestTimeoutException")
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("refused", 408)
