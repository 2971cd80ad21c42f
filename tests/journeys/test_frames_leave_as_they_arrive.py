"""A frame that the upstream has sent is with the client before the upstream sends the next one."""

import asyncio

from tests.fakes.calls import STREAM, call, ended_rows
from tests.fakes.peer import connect
from tests.fakes.running import Running
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, chunk, stream_head, text_frame, usage_frame


async def test_each_frame_is_there_before_the_next_one_is_sent(proxy: Running, upstream: Upstream) -> None:
    step = asyncio.Event()
    frames = [text_frame(str(number)) for number in range(20)] + [usage_frame(7, 20)]

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        for frame in frames:
            await step.wait()
            step.clear()
            await peer.send(chunk(frame))
        await step.wait()
        await peer.send(LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        first, _ = await client.head()  # the head does not wait for a first frame
        assert first == b"HTTP/1.1 200 OK"
        chunks = client.chunks()
        for frame in frames:
            step.set()
            assert await anext(chunks) == frame
        step.set()
        assert [rest async for rest in chunks] == []
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["stream"], row["input_tokens"], row["output_tokens"]) == ("ok", True, 7, 20)
    assert row["response_bytes"] == sum(map(len, frames))


async def test_a_frame_in_pieces_leaves_in_pieces(proxy: Running, upstream: Upstream) -> None:
    """Nothing is held back until a frame is whole: whoever reads sees what there is."""
    step = asyncio.Event()
    frame = text_frame("x" * 500)

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head(), chunk(frame[:100]))
        await step.wait()
        await peer.send(chunk(frame[100:]), LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        await client.head()
        chunks = client.chunks()
        assert await anext(chunks) == frame[:100]
        step.set()
        assert b"".join([rest async for rest in chunks]) == frame[100:]


async def test_a_part_of_an_upstreams_chunk_is_passed_on_before_the_chunk_is_whole(
    proxy: Running, upstream: Upstream
) -> None:
    step = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head(), b"a\r\nhello")
        await step.wait()
        await peer.send(b"world\r\n" + LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        await client.head()
        chunks = client.chunks()
        assert await anext(chunks) == b"hello"
        step.set()
        assert b"".join([rest async for rest in chunks]) == b"world"
