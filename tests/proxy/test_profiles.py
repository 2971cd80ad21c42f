"""An application inference profile is resolved off the path, once, and its answer is used for price and lists."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import ClientSession

from passthrough.sandbox import Received
from tests.fakes.running import running

PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
SONNET = "anthropic.claude-3-5-sonnet-20241022-v2:0"  # what the sandbox says that every profile stands for
BODY = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


async def converse(base: str, key: str, model: str = PROFILE) -> int:
    async with (
        ClientSession() as session,
        session.post(f"{base}/model/{model}/converse", json=BODY, headers={"x-api-key": key}) as response,
    ):
        await response.read()
        return response.status


def look_ups(received: list[Received]) -> int:
    return sum(request.target.startswith("/inference-profiles/") for request in received)


async def test_a_key_with_a_model_list_is_judged_by_the_profiles_model(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        allowed = await proxy.key(models=["anthropic.claude-3-5-*"])
        other = await proxy.key(models=["amazon.*"])
        by_arn = await proxy.key(models=["arn:aws:bedrock:*:application-inference-profile/a1*"])
        assert await converse(proxy.bedrock, allowed) == 200
        assert await converse(proxy.bedrock, other) == 403
        assert await converse(proxy.bedrock, by_arn) == 200
        assert look_ups(proxy.received) == 1


async def test_a_call_that_need_not_wait_is_priced_by_what_was_found_since(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        key = await proxy.key()
        async with asyncio.timeout(10):
            while not any(row["billed_model"] == SONNET for row in await proxy.rows()):
                assert await converse(proxy.bedrock, key) == 200
        row = (await proxy.rows())[-1]
        assert (row["model"], row["billed_model"], row["price_status"]) == (PROFILE, SONNET, "priced")
        assert row["cost"] > 0
        assert look_ups(proxy.received) == 1


async def test_many_calls_at_once_ask_once(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        key = await proxy.key(models=["anthropic.*"])
        statuses = await asyncio.gather(*(converse(proxy.bedrock, key) for _ in range(10)))
        assert statuses == [200] * 10
        assert look_ups(proxy.received) == 1


@pytest.mark.parametrize("model", ["arn:aws:bedrock:xx-nowhere-1:123456789012:application-inference-profile/x", SONNET])
async def test_what_is_no_profile_of_a_region_is_never_looked_up(model: str, database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        key = await proxy.key(models=["amazon.*"])
        assert await converse(proxy.bedrock, key, model) == 403
        assert look_ups(proxy.received) == 0
