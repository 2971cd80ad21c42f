"""Two replicas of two workers before one upstream that counts, and a hundred clients: the world of limits."""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

from passthrough.policy.keys import digest
from passthrough.sandbox import DEFAULT_CREDENTIALS
from tests.fakes.running import MASTER_KEY, Command, command, select

MODEL = "amazon.nova-micro-v1:0"
RATES = Decimal("0.035"), Decimal("0.14")  # USD per million tokens in and out
BODY = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"maxTokens": 200}}


@dataclass
class Upstream:
    """Answers after a moment, and counts what AWS would count: calls, calls at one time, cost."""

    pace_seconds: float = 0.02
    least_seconds: float = 0.0
    url: str = ""
    calls: int = 0
    open: int = 0
    peak: int = 0
    spent: Decimal = Decimal(0)

    async def converse(self, request: web.Request) -> web.Response:
        await request.read()
        self.calls += 1
        self.open += 1
        self.peak = max(self.peak, self.open)
        tokens = random.randrange(1, 50), random.randrange(1, 150)  # noqa: S311  # load
        self.spent += sum((count * rate for count, rate in zip(tokens, RATES, strict=True)), Decimal(0)).scaleb(-6)
        try:
            await asyncio.sleep(self.least_seconds + random.uniform(0, 2 * self.pace_seconds))  # noqa: S311  # load
        finally:
            self.open -= 1
        usage = {"inputTokens": tokens[0], "outputTokens": tokens[1], "totalTokens": sum(tokens)}
        return web.json_response({"output": {"message": {"role": "assistant", "content": []}}, "usage": usage})


@asynccontextmanager
async def counting(pace_seconds: float = 0.02) -> AsyncIterator[Upstream]:
    upstream = Upstream(pace_seconds)
    application = web.Application()
    application.router.add_post("/model/{model}/converse", upstream.converse)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    upstream.url = "http://{}:{}".format(*runner.addresses[0])
    try:
        yield upstream
    finally:
        await runner.cleanup()


@contextmanager
def replica(data_dir: Path, database_url: str, upstream: str, workers: int = 2) -> Iterator[Command]:
    """Serve as a replica does, with a data directory of its own."""
    environment = {
        "DATABASE_URL": database_url,
        "AWS_ACCESS_KEY_ID": DEFAULT_CREDENTIALS.access_key,
        "AWS_SECRET_ACCESS_KEY": DEFAULT_CREDENTIALS.secret_key,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": upstream,
        "PASSTHROUGH_LOG_LEVEL": "info",
    }
    with command(data_dir, "--workers", str(workers), **environment) as running:
        yield running


def workers_of(running: Command) -> list[int]:
    """Process ids of a replica's workers."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text(encoding="ascii")
    return [int(pid) for pid in children.split()]


def kill(*pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Clients:
    """A crowd that calls through all replicas. `answers` counts statuses, 0 for a connection that was cut."""

    urls: list[str]
    answers: Counter[int] = field(default_factory=Counter)

    async def key(self, **fields: Any) -> str:
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        async with (
            ClientSession() as session,
            session.post(f"{self.urls[0]}/key/generate", json=fields, headers=headers) as answer,
        ):
            return str((await answer.json())["key"])

    async def call(self, key: str, *, crowd: int, calls: int, ends: frozenset[int] = frozenset()) -> None:
        """Let a crowd of clients make so many calls each; one that is answered with a status of `ends` stops."""
        body = json.dumps(BODY).encode()
        async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(30)) as session:

            async def client() -> None:
                for _ in range(calls):
                    if await self._one(session, key, body) in ends:
                        return

            await asyncio.gather(*(client() for _ in range(crowd)))

    async def _one(self, session: ClientSession, key: str, body: bytes) -> int:
        url = random.choice(self.urls)  # noqa: S311  # load
        status = 0
        with suppress(ClientError, OSError):
            async with session.post(
                f"{url}/bedrock/model/{MODEL}/converse", data=body, headers={"x-api-key": key}
            ) as answer:
                await answer.read()
                status = answer.status
        self.answers[status] += 1
        if status != 200:
            await asyncio.sleep(0.01)
        return status


async def account(database_url: str, key: str, kind: int) -> dict[str, Any]:
    """The row of one allowance of a key."""
    (row,) = await select(
        database_url,
        f"SELECT * FROM allowances WHERE name = '{digest(key)}' AND kind = {kind}",  # noqa: S608  # our own
    )
    return row


async def settled(database_url: str, key: str, calls: int) -> tuple[Decimal, Decimal]:
    """Wait until the ledger has so many calls of a key; its sum of costs, and the spend counter."""
    statement = (
        f"SELECT count(*) AS calls, sum(cost) AS cost FROM ledger WHERE key_id = '{digest(key)}' AND status = 200"  # noqa: S608  # our own
    )
    async with asyncio.timeout(20):
        while True:
            (row,) = await select(database_url, statement)
            if row["calls"] >= calls:
                break
            await asyncio.sleep(0.1)
    (spend,) = await select(database_url, f"SELECT spend FROM spend WHERE subject = '{digest(key)}'")  # noqa: S608  # our own
    return row["cost"], spend["spend"]
