"""An upstream that dies, lies or is silent: the client is told, and never takes a part for the whole."""

import asyncio
import socket
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import EventStreamError
from urllib3.exceptions import ProtocolError

from passthrough.bedrock.eventstream import FrameDecoder
from passthrough.proxy.forward import STALE_SECONDS
from tests.fakes.calls import CONVERSE, MODEL, STREAM, Proxies, ask, call, call_head, ended_rows, refusal
from tests.fakes.peer import connect
from tests.fakes.running import MASTER_KEY, Running
from tests.fakes.upstream import (
    LAST_CHUNK,
    Incoming,
    Script,
    Upstream,
    answer,
    answering,
    chunk,
    head,
    stream_head,
    text_frame,
    usage_frame,
)

FRAME = text_frame("one")
WAYS = {"FIN": Incoming.cut, "RST": Incoming.reset}


def sending(sent: bytes, way: str, *, when: asyncio.Event | None = None) -> Script:
    """Answers every connection's first request with `sent`, and ends the connection `when` it may."""

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(sent)
        if when is not None:
            await when.wait()
        WAYS[way](peer)

    return script


@pytest.mark.parametrize("way", WAYS)
async def test_between_two_frames_the_client_is_told_in_a_frame_and_cut(
    proxy: Running, upstream: Upstream, way: str
) -> None:
    when = asyncio.Event()
    upstream.script = sending(stream_head() + chunk(FRAME), way, when=when)
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        first = await client.head()
        when.set()
        got = await client.body(*first)
        assert got.ending == "fin"
    delta, exception = FrameDecoder().feed(got.body)
    assert delta.payload == b'{"contentBlockIndex":0,"delta":{"text":"one"}}'
    assert exception.headers[":message-type"] == "exception"
    assert exception.headers[":exception-type"] == "internalServerException"
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"], row["response_bytes"]) == ("cut", 200, len(FRAME))


async def test_boto3_raises_for_a_stream_that_was_cut_between_two_frames(proxy: Running, upstream: Upstream) -> None:
    when = asyncio.Event()
    upstream.script = sending(stream_head() + chunk(FRAME), "FIN", when=when)
    events, error = await _converse_stream(proxy, when)
    assert events == [{"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "one"}}}]
    assert isinstance(error, EventStreamError)
    assert error.response["Error"]["Code"] == "internalServerException"


async def test_boto3_raises_for_a_stream_that_was_cut_inside_a_frame(proxy: Running, upstream: Upstream) -> None:
    when = asyncio.Event()
    upstream.script = sending(stream_head() + chunk(FRAME + FRAME[:30]), "FIN", when=when)
    events, error = await _converse_stream(proxy, when)
    assert len(events) == 1
    assert isinstance(error, ProtocolError | BotoConnectionError)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [1, 12, 60, len(FRAME) - 1])
async def test_inside_a_frame_the_client_is_cut_and_nothing_is_put_into_the_frame(
    proxy: Running, upstream: Upstream, way: str, at: int
) -> None:
    when = asyncio.Event()
    upstream.script = sending(stream_head() + chunk(FRAME + FRAME[:at]), way, when=when)
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        first = await client.head()
        when.set()
        got = await client.body(*first)
        assert (got.body, got.ending) == (FRAME + FRAME[:at], "fin")
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("cut", 200)


@pytest.mark.parametrize("way", WAYS)
async def test_inside_an_answer_with_a_length_the_client_has_less_than_it(
    proxy: Running, upstream: Upstream, way: str
) -> None:
    when = asyncio.Event()
    upstream.script = sending(head("Content-Length: 100") + b'{"output":', way, when=when)
    async with connect(proxy.url) as client:
        await client.send(call())
        first = await client.head()
        when.set()
        got = await client.body(*first)
        assert (got.body, got.ending) == (b'{"output":', "fin")
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("cut", 200)


async def test_a_client_that_reads_to_the_end_of_its_connection_is_reset(proxy: Running, upstream: Upstream) -> None:
    """For HTTP/1.0 an orderly end would be the end of the body."""
    when = asyncio.Event()
    upstream.script = sending(stream_head() + chunk(FRAME), "FIN", when=when)
    async with connect(proxy.url) as client:
        await client.send(call(STREAM, version="HTTP/1.0"))
        first = await client.head()
        when.set()
        assert (await client.body(*first)).ending == "reset"
    (row,) = await ended_rows(proxy)
    assert row["outcome"] == "cut"


async def test_garbage_inside_a_stream_is_no_clean_end(proxy: Running, upstream: Upstream) -> None:
    when = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME))
        await when.wait()
        await peer.send(b"not a chunk")
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        first = await client.head()
        when.set()
        assert (await client.body(*first)).ending == "fin"
    (row,) = await ended_rows(proxy)
    assert row["outcome"] == "cut"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_before_an_answer_it_is_a_502(proxy: Running, upstream: Upstream, sent: bytes, way: str) -> None:
    upstream.script = sending(sent, way)
    async with connect(proxy.url) as client:
        assert refusal(await ask(client)) == (502, "BadGatewayException")
        upstream.script = answering(answer(b"well"))
        assert (await ask(client)).body == b"well"  # the client's connection goes on
    first, second = await ended_rows(proxy)
    assert (first["outcome"], first["status"], first["error_type"]) == ("upstream_error", 502, "BadGatewayException")
    assert second["outcome"] == "ok"
    assert len(upstream.requests) == 2  # a call on a connection of its own is not sent twice


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        head("Content-Length: 2", "Content-Length: 3") + b"{}",
        head("Content-Length: 2", "Transfer-Encoding: chunked") + LAST_CHUNK,
        head("Transfer-Encoding: gzip, chunked") + LAST_CHUNK,
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
        head("X: a\r\n folded", "Content-Length: 2") + b"{}",
        head("X: " + "x" * 70_000, "Content-Length: 2") + b"{}",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        stream_head() + chunk(FRAME) + b"zz\r\n",
    ],
    ids=["ssh", "lengths", "length and chunks", "coding", "line feeds", "folded", "huge", "upgrade", "bad chunk"],
)
async def test_what_is_no_answer_is_a_502(proxy: Running, upstream: Upstream, sent: bytes) -> None:
    upstream.script = answering(sent)
    async with connect(proxy.url) as client:
        assert refusal(await ask(client)) == (502, "BadGatewayException")
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("upstream_error", 502)


async def test_what_comes_behind_an_answer_is_nobodys(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(answer(b"mine") + answer(b"smuggled"))
    async with connect(proxy.url) as client, connect(proxy.url) as other:
        assert (await ask(client)).body == b"mine"
        upstream.script = answering(answer(b"good"))
        assert (await ask(other)).body == b"good"
        assert (await ask(client)).body == b"good"


async def test_an_upstream_that_cannot_be_reached_is_a_503(start: Proxies, upstream: Upstream) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        proxy = await start(runtime_endpoint=f"http://127.0.0.1:{bound.getsockname()[1]}")
        async with connect(proxy.url) as client:
            got = await ask(client)
    assert refusal(got) == (503, "ServiceUnavailableException")
    assert b"127.0.0.1" not in got.body
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("refused", 503)
    assert not upstream.requests


async def test_an_upstream_that_is_silent_is_a_408(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(answer_seconds=0.3)
    ended: list[str] = []

    async def script(peer: Incoming) -> None:
        await peer.request()
        ended.append(await peer.gone())

    upstream.script = script
    async with connect(proxy.url) as client:
        assert refusal(await ask(client)) == (408, "ModelTimeoutException")
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("upstream_error", 408)
    assert ended


async def test_an_upstream_that_falls_silent_inside_a_stream_is_no_clean_end(
    start: Proxies, upstream: Upstream
) -> None:
    proxy = await start(answer_seconds=0.6)

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME))
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        got = await ask(client, call(STREAM))
    assert got.ending == "fin"
    assert b"internalServerException" in got.body
    (row,) = await ended_rows(proxy)
    assert row["outcome"] == "cut"


async def test_a_stale_connection_is_tried_again_once(proxy: Running, upstream: Upstream) -> None:
    """Whatever the upstream did with it, the client sees an answer: nothing of one had been received."""

    async def once(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(b"first"))
        await peer.request()
        peer.reset()

    upstream.script = once
    async with connect(proxy.url) as client:
        assert (await ask(client)).body == b"first"
        upstream.script = answering(answer(b"again"))
        assert (await ask(client)).body == b"again"
    assert len(upstream.requests) == 3
    assert upstream.requests[1].body == upstream.requests[2].body
    assert [row["outcome"] for row in await ended_rows(proxy)] == ["ok", "ok"]


async def test_a_stale_connection_is_not_tried_a_third_time(proxy: Running, upstream: Upstream) -> None:
    async def once(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(b"first"))
        await peer.request()

    upstream.script = once
    async with connect(proxy.url) as client:
        await ask(client)
        upstream.script = sending(b"", "FIN")
        assert refusal(await ask(client)) == (502, "BadGatewayException")
    assert len(upstream.requests) == 3


async def test_a_stale_connection_that_began_an_answer_is_not_tried_again(proxy: Running, upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(b"first"))
        await peer.request()
        await peer.send(b"H")

    upstream.script = script
    async with connect(proxy.url) as client:
        await ask(client)
        assert refusal(await ask(client)) == (502, "BadGatewayException")
    assert len(upstream.requests) == 2


async def test_a_connection_that_ends_after_a_while_of_work_is_not_tried_again(
    proxy: Running, upstream: Upstream
) -> None:
    """AWS may have served the call, and bills it: a second one would be billed as well."""

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(b"first"))
        await peer.request()
        await asyncio.sleep(STALE_SECONDS * 1.1)
        peer.reset()

    upstream.script = script
    async with connect(proxy.url) as client:
        await ask(client)
        assert refusal(await ask(client)) == (502, "BadGatewayException")
    assert len(upstream.requests) == 2
    assert [row["outcome"] for row in await ended_rows(proxy)] == ["ok", "upstream_error"]


async def test_a_body_that_went_up_as_it_came_is_not_sent_again(proxy: Running, upstream: Upstream) -> None:
    """It is gone: only what was kept can be repeated."""

    cut = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(b"first"))
        await peer.head()
        peer.reset()
        cut.set()

    upstream.script = script
    async with connect(proxy.url) as client:
        await ask(client)
        await client.send(call_head(CONVERSE, "Content-Length: 8", "x-amz-content-sha256: " + "0" * 64), b"half")
        await cut.wait()
        await client.send(b"half")
        assert refusal(await client.message()) == (502, "BadGatewayException")
    assert upstream.connections == 1


async def test_an_answer_before_the_body_is_whole_reaches_the_client(proxy: Running, upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.head()
        await peer.send(answer(b'{"message":"no"}', status="413 Too Large"))
        await peer.gone()

    upstream.script = script
    async with connect(proxy.url) as client:
        await client.send(call_head(CONVERSE, "Content-Length: 9000", "x-amz-content-sha256: " + "0" * 64), b"half")
        got = await client.message()
        assert (got.status, got.body) == (413, b'{"message":"no"}')
        client.reset()
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"]) == ("client_error", 413)


async def test_an_upstream_that_closes_after_each_answer_loses_nobody_a_call(
    proxy: Running, upstream: Upstream
) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME) + chunk(usage_frame(1, 1)) + LAST_CHUNK)

    upstream.script = script
    async with connect(proxy.url) as client:
        for _ in range(30):
            got = await ask(client, call(STREAM))
            assert got.ending == "whole"
    assert [row["outcome"] for row in await ended_rows(proxy)] == ["ok"] * 30


async def _converse_stream(proxy: Running, when: asyncio.Event) -> tuple[list[Any], Exception | None]:
    """The events that boto3 hands out, and what it raises behind them."""
    loop = asyncio.get_running_loop()

    def converse() -> tuple[list[Any], Exception | None]:
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=proxy.bedrock,
            aws_access_key_id=MASTER_KEY,
            aws_secret_access_key="anything",
            config=Config(retries={"total_max_attempts": 1}),
        )
        events: list[Any] = []
        try:
            answered = client.converse_stream(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "hi"}]}])
            with closing(answered["stream"]) as stream:
                for event in stream:
                    events.append(event)  # what came before the error counts
                    loop.call_soon_threadsafe(when.set)
        except Exception as error:  # noqa: BLE001  # which one it is, is the question
            return events, error
        finally:
            client.close()
        return events, None

    return await asyncio.to_thread(converse)
