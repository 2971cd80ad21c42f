"""An upstream that ends its answer at every single byte: never a clean end, always one row."""

import pytest

from passthrough.bedrock.eventstream import FrameDecoder
from tests.fakes.calls import STREAM, ask, call, ended_rows, refusal
from tests.fakes.peer import connect
from tests.fakes.running import Running
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, answer, chunk, stream_head, text_frame, usage_frame

FRAMES = [text_frame("one"), usage_frame(1, 2)]
STREAMED = stream_head() + chunk(FRAMES[0]) + chunk(FRAMES[1]) + LAST_CHUNK
STEP = 3  # every byte is tried without a socket in tests/wire; here the steps shift through all states


@pytest.mark.parametrize("way", [Incoming.cut, Incoming.reset], ids=["FIN", "RST"])
async def test_a_stream_that_ends_too_early_never_ends_well(proxy: Running, upstream: Upstream, way: object) -> None:
    cuts = range(0, len(STREAMED), STEP)
    position = 0

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(STREAMED[:position])
        way(peer)  # type: ignore[operator]  # one of the two above

    upstream.script = script
    for position in cuts:  # noqa: B007  # the script reads it
        async with connect(proxy.url) as client:
            got = await ask(client, call(STREAM))
        if got.status == 502:
            assert refusal(got) == (502, "BadGatewayException")
            continue
        assert got.status == 200
        assert got.ending != "whole"
        decoder = FrameDecoder()
        frames = decoder.feed(got.body)
        told = [frame for frame in frames if frame.headers[":message-type"] == "exception"]
        # told in a frame when, and only when, there was room for one between two
        assert len(told) == (1 if decoder.at_boundary else 0)
        assert frames[-1:] == told or not told
    rows = await ended_rows(proxy)
    assert len(rows) == len(cuts)
    assert {row["outcome"] for row in rows} == {"upstream_error", "cut"}


async def test_an_answer_with_a_length_that_ends_too_early_is_never_whole(proxy: Running, upstream: Upstream) -> None:
    sent = answer(b'{"usage":{"inputTokens":1,"outputTokens":1}}')
    position = 0

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(sent[:position])

    upstream.script = script
    for position in range(len(sent)):  # noqa: B007  # the script reads it
        async with connect(proxy.url) as client:
            got = await ask(client)
        if got.status == 502:
            assert refusal(got) == (502, "BadGatewayException")
        else:
            assert got.ending != "whole"
    rows = await ended_rows(proxy)
    assert len(rows) == len(sent)
    assert {row["outcome"] for row in rows} == {"upstream_error", "cut"}
