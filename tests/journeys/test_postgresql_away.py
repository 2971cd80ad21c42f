"""PostgreSQL is away: keys that are known are served, others are asked to wait, and nothing needs a restart."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.calls import Proxies, ask, call, refusal
from tests.fakes.cutting import Cutting, cutting
from tests.fakes.peer import connect, until


@pytest.fixture
async def wire(shared_database: str) -> AsyncIterator[Cutting]:
    async with cutting(shared_database) as opened:
        yield opened


@pytest.fixture
async def database_url(database_url: str, wire: Cutting) -> str:  # noqa: ARG001  # its ledger is emptied
    """The database at the end of a wire that can be cut."""
    return wire.url


async def test_a_known_key_is_served_and_an_unknown_one_is_told_to_wait(start: Proxies, wire: Cutting) -> None:
    proxy = await start()
    known, unknown = await proxy.key(), await proxy.key()
    async with connect(proxy.url) as client:
        assert (await ask(client, call(key=known))).status == 200
        await wire.cut()
        for _ in range(3):
            assert (await ask(client, call(key=known))).status == 200
            for key in (unknown, "sk-that-nobody-has"):
                answer = await ask(client, call(key=key))
                assert refusal(answer) == (503, "ServiceUnavailableException")
                assert answer.value("Retry-After") == "2"
                assert b"127.0.0.1" not in answer.body


async def test_it_comes_back_without_a_restart_and_has_every_call(start: Proxies, wire: Cutting) -> None:
    proxy = await start()
    known, unknown = await proxy.key(), await proxy.key()
    async with connect(proxy.url) as client:
        await ask(client, call(key=known))
        await wire.cut()
        for _ in range(5):
            await ask(client, call(key=known))
        assert refusal(await ask(client, call(key=unknown)))[0] == 503
        await wire.mend()
        statuses = [503]
        while statuses[-1] == 503:
            statuses.append((await ask(client, call(key=unknown))).status)
        assert statuses[-1] == 200
        assert refusal(await ask(client, call(key="sk-that-nobody-has")))[0] == 401
    found = [row["status"] for row in await proxy.rows()]
    assert found == [200] * 6 + statuses + [401]


async def test_one_that_hangs_holds_up_nobody_whose_key_is_known(start: Proxies, wire: Cutting) -> None:
    proxy = await start()
    known, unknown = await proxy.key(), await proxy.key()
    async with connect(proxy.url) as client, connect(proxy.url) as other:
        await ask(client, call(key=known))
        wire.hang()
        await other.send(call(key=unknown))
        await until(lambda: proxy.service.handler.calls)
        for _ in range(10):
            assert (await ask(client, call(key=known))).status == 200
        assert len(proxy.service.handler.calls) == 1
        assert refusal(await other.message()) == (503, "ServiceUnavailableException")


async def test_a_client_that_leaves_while_its_key_is_looked_up_ends_its_call(start: Proxies, wire: Cutting) -> None:
    proxy = await start()
    unknown = await proxy.key()
    async with connect(proxy.url) as client:
        wire.hang()
        await client.send(call(key=unknown))
        await until(lambda: proxy.service.handler.calls)
        client.reset()
        await until(lambda: not proxy.service.handler.calls)
    await wire.cut()
    await wire.mend()
    (row,) = await proxy.rows()
    assert (row["outcome"], row["status"], row["key_id"]) == ("client_gone", 499, None)


async def test_metrics_tell_whether_calls_get_into_the_database(start: Proxies, wire: Cutting) -> None:
    proxy = await start()
    async with connect(proxy.url) as client:

        async def stalled() -> bytes:
            answer = await ask(client, call("/metrics", method="GET", body=b""))
            name = b"passthrough_ledger_stalled_workers "
            return next(line.removeprefix(name) for line in answer.body.splitlines() if line.startswith(name))

        await ask(client)
        await proxy.rows()
        assert await stalled() == b"0.0"
        await wire.cut()
        await ask(client)
        await until(lambda: proxy.service.ledger.state().database_problem)
        assert await stalled() == b"1.0"
        await wire.mend()
        await until(lambda: not proxy.service.ledger.state().database_problem)
        assert await stalled() == b"0.0"
