"""What a call holds is held until the call truly ends, however its client behaves."""

import asyncio
from collections.abc import Callable

import pytest

from tests.fakes.calls import CONVERSE, STREAM, Proxies, ask, call, ended_rows, refusal
from tests.fakes.peer import Peer, connect, until
from tests.fakes.running import Running
from tests.fakes.upstream import (
    LAST_CHUNK,
    Incoming,
    Upstream,
    answer,
    answering,
    chunk,
    stream_head,
    text_frame,
    usage_frame,
)

FRAMES = [text_frame("one"), text_frame("two"), usage_frame(11, 22)]


class Paused:
    """Streams end when `go_on` is set; other calls are answered at once."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, peer: Incoming) -> None:
        while True:
            request = await peer.request()
            if not request.target.endswith("converse-stream"):
                await peer.send(answer(b'{"usage": {"inputTokens": 1, "outputTokens": 2}}'))
                continue
            await peer.send(stream_head() + chunk(FRAMES[0]))
            await self.go_on.wait()
            await peer.send(*(chunk(frame) for frame in FRAMES[1:]), LAST_CHUNK)


async def status(proxy: Running, key: str) -> int:
    async with connect(proxy.url) as client:
        return (await ask(client, call(CONVERSE, key=key))).status


@pytest.mark.parametrize("leave", [Peer.cut, Peer.reset], ids=["by FIN", "by RST"])
async def test_a_client_that_hangs_up_frees_its_place_when_the_answer_was_read_to_its_end(
    proxy: Running, upstream: Upstream, leave: Callable[[Peer], None]
) -> None:
    upstream.script = paused = Paused()
    key = await proxy.key(max_parallel_requests=1)
    async with connect(proxy.url) as client:
        await client.send(call(STREAM, key=key))
        await client.head()
        assert await status(proxy, key) == 429
        leave(client)
        await until(lambda: upstream.requests)
        assert await status(proxy, key) == 429
    paused.go_on.set()
    await proxy.service.handler.drained()
    assert await status(proxy, key) == 200


async def test_a_client_that_hangs_up_frees_its_place_at_once_where_answers_are_dropped(
    start: Proxies, upstream: Upstream
) -> None:
    upstream.script = Paused()
    proxy = await start(on_client_disconnect="cancel")
    key = await proxy.key(max_parallel_requests=1)
    async with connect(proxy.url) as client:
        await client.send(call(STREAM, key=key))
        await client.head()
        client.cut()
    await proxy.service.handler.drained()
    assert await status(proxy, key) == 200


async def test_while_a_call_is_open_a_rate_of_requests_names_its_windows_end_alone(
    proxy: Running, upstream: Upstream
) -> None:
    upstream.script = paused = Paused()
    key = await proxy.key(rpm_limit=1)
    async with connect(proxy.url) as client:
        await client.send(call(STREAM, key=key))
        first, fields = await client.head()
        async with connect(proxy.url) as other:
            refused = await ask(other, call(CONVERSE, key=key))
        wait = refused.value("Retry-After")
        assert 30 < int(wait or 0) <= 61  # of the minute that began with the first call
        assert refused.value("RateLimit") == f'"key-rpm";r=0;t={wait}'
        assert f"try again in {wait} seconds." in refused.body.decode()
        paused.go_on.set()
        await client.body(first, fields)


async def test_a_stream_counts_until_its_last_byte(proxy: Running, upstream: Upstream) -> None:
    upstream.script = paused = Paused()
    key = await proxy.key(max_parallel_requests=1, tpm_limit=1_000_000)
    async with connect(proxy.url) as client:
        await client.send(call(STREAM, key=key))
        first, fields = await client.head()
        async with connect(proxy.url) as other:
            refused = await ask(other, call(CONVERSE, key=key))
        assert refusal(refused) == (429, "ThrottlingException")
        assert refused.value("Retry-After") == "1"
        assert refused.value("x-amz-retry-after") == "1000"
        paused.go_on.set()
        assert (await client.body(first, fields)).ending == "whole"
    assert await status(proxy, key) == 200
    rows = await ended_rows(proxy)
    assert [(row["status"], row["outcome"]) for row in rows] == [(200, "ok"), (429, "refused"), (200, "ok")]


async def test_an_upstream_that_cannot_be_reached_takes_nothing(proxy: Running, upstream: Upstream) -> None:
    key = await proxy.key(rpm_limit=2)
    upstream.stop_listening()
    for _ in range(5):
        assert await status(proxy, key) == 503
    (row,) = (await proxy.administrate("GET", f"/key/info?key={key}"))["allowances"]
    assert (row["used"], row["remaining"]) == (0, 2)


async def test_what_aws_refuses_was_a_request_and_cost_nothing(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(
        answer(b'{"message": "no"}', "x-amzn-ErrorType: ThrottlingException", status="429 Slow")
    )
    key = await proxy.key(rpm_limit=2, tpm_limit=100_000, max_budget=1)
    assert [await status(proxy, key) for _ in range(3)] == [429, 429, 429]
    assert len(upstream.requests) == 2
    await proxy.rows()
    left = {row["field"]: row for row in (await proxy.administrate("GET", f"/key/info?key={key}"))["allowances"]}
    assert left["rpm_limit"]["used"] == 2
    for field in ("tpm_limit", "max_budget"):
        assert left[field]["used"] == left[field]["held"] == left[field]["lost"] == 0


async def test_an_answer_that_never_says_what_it_used_costs_what_it_could_have(
    proxy: Running, upstream: Upstream
) -> None:
    upstream.script = answering(answer(b"{}"))
    key = await proxy.key(max_budget=1)
    assert await status(proxy, key) == 200
    await proxy.rows()
    (left,) = (await proxy.administrate("GET", f"/key/info?key={key}"))["allowances"]
    # claude-3-5-sonnet: 3 and 15 USD per million tokens; 59 bytes, 128 around them, 8,192 of output
    assert left["lost"] == pytest.approx((59 + 128) * 3e-6 + 8192 * 15e-6)
    assert left["used"] == left["held"] == 0
