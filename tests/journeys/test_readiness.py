"""Readiness: 503, with the reason, for as long as no call could be served."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.calls import Proxies, ask
from tests.fakes.peer import connect
from tests.fakes.running import command

READINESS = b"GET /health/readiness HTTP/1.1\r\nHost: h\r\n\r\n"
OF_AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hidden-word"}


async def readiness(url: str) -> tuple[int, dict[str, Any]]:
    async with connect(url) as client:
        answer = await ask(client, READINESS)
    return answer.status, msgspec.json.decode(answer.body)


@pytest.mark.parametrize(
    ("environment", "reasons"),
    [({}, ["no AWS credentials"]), (OF_AWS, []), ({"AWS_BEARER_TOKEN_BEDROCK": "hidden-word"}, [])],
    ids=["nothing to sign with", "credentials", "an API key"],
)
async def test_it_needs_something_to_sign_with(
    environment: dict[str, str], reasons: list[str], shared_database: str, tmp_path: Path
) -> None:
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_CONFIG_FILE": "/nowhere"}
    opened = command(tmp_path, DATABASE_URL=shared_database, **nowhere, **environment)
    program = await asyncio.to_thread(opened.__enter__)
    try:
        status, document = await readiness(program.url)
    finally:
        await asyncio.to_thread(opened.__exit__, None, None, None)
    assert (status, document.get("reasons", [])) == (503 if reasons else 200, reasons)


@pytest.fixture
async def database_url() -> str:
    return "postgresql://127.0.0.1:1/none"


async def test_a_worker_that_never_reached_postgresql_is_not_ready(start: Proxies) -> None:
    proxy = await start()
    assert await readiness(proxy.url) == (
        503,
        {"status": "not ready", "reasons": ["PostgreSQL has not been reached yet"]},
    )
