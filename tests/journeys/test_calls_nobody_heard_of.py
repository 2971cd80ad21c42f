"""A call that went up and of which nobody heard again may have been served and billed: its budget bears its bound."""

import asyncio
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from passthrough.policy.allowances import PICODOLLARS, Kind
from passthrough.policy.keys import digest
from tests.fakes.calls import STREAM, Proxies, ask, call, ended_rows
from tests.fakes.peer import connect, until
from tests.fakes.running import Running
from tests.fakes.upstream import Incoming, Script, Upstream, chunk, stream_head, text_frame, usage_frame

BODY = b'{"messages":[{"role":"user","content":[{"text":"hello"}]}],"inferenceConfig":{"maxTokens":1000}}'
BOUND = (len(BODY) + 128) * Decimal(3) + 1000 * Decimal(15)  # millionths of a dollar, at 3 and 15 USD a million


async def closes(peer: Incoming) -> None:
    await peer.request()


async def says_nothing(peer: Incoming) -> None:
    await peer.request()
    await peer.gone()


async def garbles(peer: Incoming) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n")
    await peer.gone()


async def refuses(peer: Incoming) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}")
    await peer.gone()


async def charged_to(proxy: Running, key: str) -> tuple[Decimal, Decimal]:
    """What is used and what is lost of the key's budget, in millionths of a dollar, once all calls have ended."""
    await ended_rows(proxy)
    connection = await asyncpg.connect(proxy.database_url)
    try:
        row = await connection.fetchrow(
            "SELECT used, lost FROM allowances WHERE name = $1 AND kind = $2", digest(key), Kind.MONEY
        )
    finally:
        await connection.close()
    return row["used"].scaleb(6 - PICODOLLARS), row["lost"].scaleb(6 - PICODOLLARS)


@pytest.mark.parametrize(
    ("script", "status", "charged"),
    [(closes, 502, BOUND), (says_nothing, 408, BOUND), (garbles, 502, BOUND), (refuses, 429, Decimal(0))],
    ids=["no answer", "no answer in time", "no readable answer", "refused by AWS"],
)
async def test_only_what_aws_refuses_is_free(
    start: Proxies, upstream: Upstream, script: Script, status: int, charged: Decimal
) -> None:
    proxy = await start(answer_seconds=0.3)
    upstream.script = script
    key = await proxy.key(max_budget=1)
    async with connect(proxy.url) as client:
        assert (await ask(client, call(body=BODY, key=key))).status == status
    assert await charged_to(proxy, key) == (0, charged)


async def test_a_client_that_leaves_before_the_answer_does_not_have_it_for_nothing(
    start: Proxies, upstream: Upstream
) -> None:
    proxy = await start(on_client_disconnect="cancel")
    upstream.script = says_nothing
    key = await proxy.key(max_budget=1)
    async with connect(proxy.url) as client:
        await client.send(call(body=BODY, key=key))
        await until(lambda: upstream.requests)
        client.reset()
    assert await charged_to(proxy, key) == (0, BOUND)


def streaming(*frames: bytes) -> Script:
    """Sends these frames of a stream that never ends."""

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head(), *map(chunk, frames))
        await peer.gone()

    return script


async def leave_after(frames: bytes, proxy: Running, key: str) -> None:
    """Begin a stream, read these frames of it, and hang up."""
    async with connect(proxy.url) as client:
        await client.send(call(STREAM, body=BODY, key=key))
        await client.head()
        chunks = client.chunks()
        while frames:
            frames = frames.removeprefix(await anext(chunks))
        client.reset()
    await proxy.service.handler.drained()


@pytest.mark.parametrize(
    "settings",
    [{"on_client_disconnect": "cancel"}, {"disconnect_drains": 0}, {"disconnect_drain_seconds": 0.1}],
    ids=["which ends it", "with no room for its rest", "whose rest takes too long"],
)
async def test_a_client_that_leaves_a_stream_pays_for_all_that_it_may_have_cost(
    start: Proxies, upstream: Upstream, settings: dict[str, Any]
) -> None:
    """AWS bills what it generates, whether anybody reads it: else one would have long answers for their first words."""
    proxy = await start(**settings)
    upstream.script = streaming(text_frame("one"))
    key = await proxy.key(max_budget=1, tpm_limit=len(BODY) + 128 + 1000 + 500)
    await leave_after(text_frame("one"), proxy, key)
    assert await charged_to(proxy, key) == (0, BOUND)
    (row,) = await proxy.rows()
    assert (row["usage_source"], row["outcome"]) == ("estimate", "client_gone")
    assert row["cost"] < BOUND / 1_000_000
    async with connect(proxy.url) as client:  # of its tokens, too
        assert (await ask(client, call(body=BODY, key=key))).status == 429


async def test_a_client_that_leaves_when_the_figures_were_there_pays_these(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(on_client_disconnect="cancel")
    upstream.script = streaming(text_frame("one"), usage_frame(100, 10))
    key = await proxy.key(max_budget=1)
    await leave_after(text_frame("one") + usage_frame(100, 10), proxy, key)
    assert await charged_to(proxy, key) == (100 * 3 + 10 * 15, 0)


async def test_what_never_went_up_is_given_back(start: Proxies) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    proxy = await start(runtime_endpoint=f"http://127.0.0.1:{port}")
    key = await proxy.key(max_budget=1)
    async with connect(proxy.url) as client:
        assert (await ask(client, call(body=BODY, key=key))).status == 503
    assert await charged_to(proxy, key) == (0, 0)
