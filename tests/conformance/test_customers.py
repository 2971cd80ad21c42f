"""A customer's block and model list act on the calls made on their behalf, through the running proxy."""

import asyncio
from pathlib import Path

from aiohttp import ClientSession

from tests.fakes.running import Running, running

MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
BODY = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


async def status(proxy: Running, key: str, customer: str) -> int:
    headers = {"x-api-key": key, "x-litellm-customer-id": customer}
    async with (
        ClientSession() as session,
        session.post(f"{proxy.bedrock}/model/{MODEL}/converse", json=BODY, headers=headers) as response,
    ):
        await response.read()
        return response.status


async def comes_to(expected: int, proxy: Running, key: str, customer: str) -> None:
    """Wait until a change has reached the worker: that takes milliseconds, and no longer than this."""
    async with asyncio.timeout(30):
        while await status(proxy, key, customer) != expected:
            pass


async def test_a_customers_block_and_models_hold_for_calls_on_their_behalf(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        key = await proxy.key()
        await proxy.administrate("POST", "/customer/new", {"user_id": "bad", "blocked": True})
        await proxy.administrate("POST", "/customer/new", {"user_id": "narrow", "models": ["amazon.*"]})
        await proxy.administrate("POST", "/customer/new", {"user_id": "free"})
        await comes_to(401, proxy, key, "bad")
        await comes_to(403, proxy, key, "narrow")
        assert await status(proxy, key, "free") == 200
        await proxy.administrate("POST", "/customer/unblock", {"user_ids": ["bad"]})
        await comes_to(200, proxy, key, "bad")
