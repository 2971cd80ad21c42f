"""The embedded PostgreSQL is killed under traffic: it comes back by itself, and every call is on record."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from passthrough.sandbox import DEFAULT_CREDENTIALS, Sandbox
from passthrough.storage.embedded import attached
from tests.fakes.calls import ask, call
from tests.fakes.peer import connect, until
from tests.fakes.running import MASTER_KEY, PATIENCE_SECONDS, Command, command

CLIENTS = 4
AGAIN = "the embedded PostgreSQL runs again"
LIMITS = {"max_budget": 1000, "rpm_limit": 1_000_000}


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not below pytest's folder, which is closed to the server's user.
    with tempfile.TemporaryDirectory(prefix="passthrough-") as folder:
        yield Path(folder)


def kill_postgres(data_dir: Path) -> None:
    os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)


def told(program: Command, event: str) -> list[dict[str, Any]]:
    return [line for line in program.lines if line["event"] == event]


async def limited_key(url: str) -> str | None:
    async with connect(url) as client:
        answer = await ask(client, call("/key/generate", key=MASTER_KEY, body=json.dumps(LIMITS).encode()))
        return str(json.loads(answer.body)["key"]) if answer.status == 200 else None


async def called(url: str, key: str) -> tuple[int, str]:
    """Status and id of one call."""
    async with connect(url) as client:
        answer = await ask(client, call(key=key))
        call_id = answer.value("x-passthrough-call-id")
        assert call_id is not None
        return answer.status, call_id


async def recorded(data_dir: Path) -> list[str]:
    with attached(data_dir) as url:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("SELECT call_id::text FROM ledger WHERE operation <> ''")
        await connection.close()
    return [row["call_id"] for row in rows]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_keys_with_limits_are_served_again_and_no_call_is_lost(data_dir: Path, workers: str) -> None:
    calls: list[tuple[int, str]] = []
    async with Sandbox(pace_seconds=0) as sandbox, asyncio.timeout(4 * PATIENCE_SECONDS):
        with command(
            data_dir,
            *("--workers", workers),
            DATABASE_URL=None,
            AWS_ACCESS_KEY_ID=DEFAULT_CREDENTIALS.access_key,
            AWS_SECRET_ACCESS_KEY=DEFAULT_CREDENTIALS.secret_key,
            AWS_ENDPOINT_URL_BEDROCK_RUNTIME=sandbox.url,
        ) as program:
            key = await limited_key(program.url)
            assert key is not None

            async def client() -> None:
                while not told(program, AGAIN):
                    calls.append(await called(program.url, key))

            async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(client())
                await until(lambda: len(calls) >= CLIENTS)
                kill_postgres(data_dir)
            while (unknown := await limited_key(program.url)) is None:
                pass
            for each in (key, unknown):  # each worker comes back in its own time
                while (await called(program.url, each))[0] != 200:
                    pass
            program.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(program.ended) == 0
    assert len(told(program, "the embedded PostgreSQL died and is started again")) == 1
    assert {status for status, _ in calls} <= {200, 503}
    rows = await recorded(data_dir)
    # Of keys that could not be looked up so many are refused that not each has a row.
    assert {call_id for status, call_id in calls if status == 200} <= set(rows)
    assert len(rows) == len(set(rows))
