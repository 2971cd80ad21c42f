"""Limits hold over two replicas of two workers under a hundred clients, whatever dies in between."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from tests.fakes.running import select
from tests.journeys.allowances_world import (
    Clients,
    Upstream,
    account,
    counting,
    kill,
    replica,
    settled,
    workers_of,
)

CROWD = 100
FINAL = frozenset({400, 429})
KEY_CONCURRENCY = 2
KEY_MONEY = 3


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


async def two_replicas(stack: ExitStack, tmp_path: Path, database_url: str, upstream: Upstream) -> Clients:
    def start() -> list[str]:
        return [
            stack.enter_context(replica(tmp_path / name, database_url, upstream.url)).url for name in ("one", "other")
        ]

    return Clients(await asyncio.to_thread(start))


async def test_a_crowd_gets_exactly_what_the_limits_allow(stack: ExitStack, tmp_path: Path, database_url: str) -> None:
    async with counting() as upstream:
        clients = await two_replicas(stack, tmp_path, database_url, upstream)

        requests = await clients.key(rpm_limit=333)
        await clients.call(requests, crowd=CROWD, calls=6)
        assert clients.answers == {200: 333, 429: 6 * CROWD - 333}
        assert upstream.calls == 333

        clients.answers.clear()
        upstream.peak = 0
        parallel = await clients.key(max_parallel_requests=17)
        await clients.call(parallel, crowd=CROWD, calls=5)
        assert upstream.peak <= 17
        assert set(clients.answers) == {200, 429}
        # nothing is held any more, so that all of it can be had at once
        clients.answers.clear()
        upstream.peak, upstream.least_seconds = 0, 0.5  # none is over before the last has come
        await clients.call(parallel, crowd=17, calls=1)
        upstream.least_seconds = 0.0
        assert clients.answers == {200: 17}
        assert upstream.peak == 17

        clients.answers.clear()
        upstream.spent = Decimal(0)
        budget = Decimal("0.004")
        money = await clients.key(max_budget=float(budget), budget_duration="1d", tpm_limit=10**7)
        await clients.call(money, crowd=CROWD, calls=30, ends=FINAL)
        assert upstream.spent <= budget
        # what is left is less than the bound of one call, so nobody was refused too early
        assert budget - upstream.spent < Decimal("0.000036")
        assert await settled(database_url, money, clients.answers[200]) == (upstream.spent, upstream.spent)
        row = await account(database_url, money, KEY_MONEY)
        assert (row["used"], row["lost"]) == (upstream.spent.scaleb(12), 0)


async def test_kill_9_of_workers_and_a_replica_overspends_nothing_and_keeps_nothing(
    stack: ExitStack, tmp_path: Path, database_url: str
) -> None:
    async with counting(pace_seconds=0.05) as upstream:
        clients = await two_replicas(stack, tmp_path, database_url, upstream)
        budget = Decimal("0.03")
        key = await clients.key(max_budget=float(budget), budget_duration="30d", rpm_limit=100_000)
        other = stack.enter_context(replica(tmp_path / "third", database_url, upstream.url))
        clients.urls.append(other.url)

        async def disturb() -> None:
            for _ in range(3):
                await asyncio.sleep(0.7)
                kill(workers_of(other)[0])
            await asyncio.sleep(0.5)
            kill(other.process.pid, *workers_of(other))
            clients.urls.remove(other.url)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(clients.call(key, crowd=CROWD, calls=60, ends=FINAL))
            tasks.create_task(disturb())
        assert clients.answers[0] > 0, "nobody was disturbed"
        assert upstream.spent <= budget

        # a successor on the same data directory buries what the replica left, and all of it can be spent
        successor = await asyncio.to_thread(
            stack.enter_context, replica(tmp_path / "third", database_url, upstream.url, workers=1)
        )
        clients.urls.append(successor.url)
        async with asyncio.timeout(20):
            while not await _only_the_living(database_url, tmp_path):  # noqa: ASYNC110  # other processes
                await asyncio.sleep(0.1)
        await clients.call(key, crowd=20, calls=400, ends=FINAL)
        assert upstream.spent <= budget
        cost, spend = await settled(database_url, key, clients.answers[200])
        assert cost == spend <= upstream.spent
        row = await account(database_url, key, KEY_MONEY)
        assert row["used"] == cost.scaleb(12)
        # what is neither spent nor lost with a call that was cut is less than the bound of one call
        assert 0 <= budget.scaleb(12) - row["used"] - row["lost"] < 36_000_000
        assert (upstream.spent - cost).scaleb(12) <= row["lost"]


async def test_a_worker_that_stands_still_for_a_moment_makes_nobody_be_refused(
    stack: ExitStack, tmp_path: Path, database_url: str
) -> None:
    async with counting() as upstream:
        still, other = [
            await asyncio.to_thread(
                stack.enter_context, replica(tmp_path / name, database_url, upstream.url, workers=1)
            )
            for name in ("still", "other")
        ]
        clients = Clients([still.url])
        key = await clients.key(max_parallel_requests=4)
        await clients.call(key, crowd=1, calls=1)
        assert (await account(database_url, key, KEY_CONCURRENCY))["held"] > 0, "it has leased nothing that others need"
        clients.urls = [other.url]
        upstream.peak, upstream.least_seconds = 0, 1.5  # none is over before the worker goes on
        os.kill(still.process.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(1.0, os.kill, still.process.pid, signal.SIGCONT)
        await clients.call(key, crowd=4, calls=1)
        assert clients.answers == {200: 5}
        assert upstream.peak == 4


async def _only_the_living(database_url: str, tmp_path: Path) -> bool:
    (row,) = await select(database_url, "SELECT count(*) AS holders FROM allowance_holders")
    books = len(list(tmp_path.glob("*/leases/*.leases")))
    return row["holders"] == books == 5  # two, two and the successor
