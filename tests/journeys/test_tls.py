"""Served over https: the same calls, the same ends."""

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.fakes.calls import STREAM, Proxies, ask, call, ended_rows
from tests.fakes.certificates import Authority
from tests.fakes.peer import connect, until
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, answer, answering, chunk, stream_head, text_frame

FRAME = text_frame("one")
MEGABYTE = bytes(1024 * 1024)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls(authority: Authority) -> ssl.SSLContext:
    return authority.serving("127.0.0.1")


async def test_a_call_and_a_stream(
    start: Proxies, upstream: Upstream, authority: Authority, tls: ssl.SSLContext
) -> None:
    proxy = await start(tls=tls)
    upstream.script = answering(answer(b"{}"), stream_head() + chunk(FRAME) * 2 + LAST_CHUNK)
    async with connect(proxy.url, tls=authority.trusting()) as client:
        assert (await ask(client)).body == b"{}"
        got = await ask(client, call(STREAM))
        assert (got.body, got.ending) == (FRAME * 2, "whole")


async def test_a_stream_that_is_cut_is_told_so(
    start: Proxies, upstream: Upstream, authority: Authority, tls: ssl.SSLContext
) -> None:
    proxy = await start(tls=tls)
    when = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME))
        await when.wait()

    upstream.script = script
    async with connect(proxy.url, tls=authority.trusting()) as client:
        await client.send(call(STREAM))
        first = await client.head()
        when.set()
        got = await client.body(*first)
        assert got.ending == "fin"
        assert b"internalServerException" in got.body
    (row,) = await ended_rows(proxy)
    assert row["outcome"] == "cut"


async def test_a_client_that_does_not_read_stops_the_upstream(
    start: Proxies, upstream: Upstream, authority: Authority, tls: ssl.SSLContext
) -> None:
    proxy = await start(tls=tls)
    blocked = asyncio.Event()
    total = 64
    piece = chunk(MEGABYTE)

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        taken = await peer.send_until_blocked(piece, total * len(piece))
        assert taken < 48 * len(piece)  # what kernels hold at most
        blocked.set()
        for _ in range(total - taken // len(piece)):
            await peer.send(piece)
        await peer.send(LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url, tls=authority.trusting(), receive_buffer=len(MEGABYTE)) as client:
        await client.send(call(STREAM))
        await blocked.wait()
        got = await client.message()
        assert (len(got.body), got.ending) == (total * len(MEGABYTE), "whole")


@pytest.mark.parametrize("mode", ["drain", "cancel"])
async def test_a_client_that_leaves(
    start: Proxies, upstream: Upstream, authority: Authority, tls: ssl.SSLContext, mode: str
) -> None:
    proxy = await start(tls=tls, on_client_disconnect=mode)
    gone = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME))
        if mode == "drain":
            await gone.wait()
            await peer.send(chunk(FRAME) + LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url, tls=authority.trusting()) as client:
        await client.send(call(STREAM))
        await client.head()
        client.reset()
        if mode == "drain":
            await until(lambda: proxy.service.handler.forward._drains_left < proxy.settings.disconnect_drains)
        gone.set()
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("client_gone", 200)
    assert row["response_bytes"] == len(FRAME) * (2 if mode == "drain" else 1)


async def test_what_is_no_tls_and_what_gives_up_hold_up_nobody(
    start: Proxies, authority: Authority, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    proxy = await start(tls=tls)
    async with connect(proxy.url) as plain, connect(proxy.url) as silent:
        await plain.send(call())
        assert b"HTTP" not in (await plain.rest())[0]
        with pytest.raises(ssl.SSLError):
            async with connect(proxy.url, tls=Authority(tmp_path, "stranger").trusting()):
                pass
        silent.cut()
        async with connect(proxy.url, tls=authority.trusting()) as client:
            assert (await ask(client)).status == 200
