"""A call that went up and of which nobody heard again may have been served and billed: its budget bears its bound."""

import asyncio
from decimal import Decimal

import asyncpg
import pytest

from passthrough.policy.allowances import PICODOLLARS
from passthrough.policy.keys import digest
from tests.fakes.calls import Proxies, ask, call, ended_rows
from tests.fakes.peer import connect, until
from tests.fakes.running import Running
from tests.fakes.upstream import Incoming, Script, Upstream

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
        row = await connection.fetchrow("SELECT used, lost FROM allowances WHERE name = $1", digest(key))
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
