"""The admin API on a real socket and a real database, and an administrator who speaks to it."""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient
from yarl import URL

from passthrough.admin.app import add_admin_routes
from passthrough.policy.keys import digest
from passthrough.proxy.authenticate import Authenticate
from passthrough.storage.database import Database
from passthrough.storage.keys import KeyDirectory, key_directory

MASTER = "sk-the-master-key-of-these-tests"


class Administrator:
    """Calls with the master key. An answer that is not a success is an AssertionError, unless asked for."""

    def __init__(self, client: TestClient[web.Request, web.Application]) -> None:
        self.client = client

    async def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        status: int = 200,
        key: str | None = MASTER,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Any:
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        json = {"json": body} if body is not None else {}
        data = {"data": raw} if raw is not None else {}
        async with self.client.request(method, URL(target, encoded=True), headers=sent, **json, **data) as answer:
            await answer.read()
            assert answer.status == status, await answer.text()
            if status >= 400:
                await assert_error(answer)
            return await answer.json()

    async def post(self, target: str, body: Any = None, **options: Any) -> Any:
        return await self.call("POST", target, {} if body is None else body, **options)

    async def get(self, target: str, **options: Any) -> Any:
        return await self.call("GET", target, **options)

    async def generate(self, **fields: Any) -> Any:
        return await self.post("/key/generate", fields)


async def assert_error(answer: ClientResponse) -> None:
    error = (await answer.json())["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == str(answer.status)
    assert error["message"].endswith("."), error["message"]


@pytest.fixture
async def directory(database: Database) -> AsyncIterator[KeyDirectory]:
    async with key_directory(database) as opened:
        await opened.listening()
        yield opened


@pytest.fixture
async def admin(database: Database, directory: KeyDirectory, aiohttp_client: AiohttpClient) -> Administrator:
    app = web.Application()
    authenticate = Authenticate(directory, master_digest=digest(MASTER))
    add_admin_routes(app, database=database, authenticate=authenticate, clock=time.time, obeyed=directory.caught_up)
    return Administrator(await aiohttp_client(app))
