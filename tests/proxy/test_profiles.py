"""An application inference profile is resolved off the path, once, and its answer is used for price and lists."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import ClientSession

from passthrough.proxy import profiles
from passthrough.proxy.profiles import LOOK_UPS_A_SECOND, LOOK_UPS_AT_ONCE, RESERVED
from passthrough.sandbox import Received
from tests.fakes.running import running
from tests.fakes.upstream import Incoming, Upstream, answer

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


def made_up(number: int) -> str:
    return f"arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/made-up-{number}"


async def test_made_up_profiles_do_not_become_a_flood_at_aws(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def most(at_once: int) -> float:
            return at_once + (loop.time() - began) * LOOK_UPS_A_SECOND

        anything, limited = await proxy.key(), await proxy.key(models=["anthropic.claude-3-5-*"])
        assert await converse(proxy.bedrock, limited) == 200  # found before the flood

        # a key for which nothing depends on it is served, looked up or not, and leaves room for those that need it
        for number in range(LOOK_UPS_AT_ONCE):
            assert await converse(proxy.bedrock, anything, made_up(number)) == 200
        assert RESERVED <= look_ups(proxy.received) <= most(LOOK_UPS_AT_ONCE - RESERVED)

        # one that is judged by it is refused until it can be looked up, and never let through without
        statuses = [await converse(proxy.bedrock, limited, made_up(number)) for number in range(1000, 1060)]
        assert set(statuses) == {200, 429}
        assert look_ups(proxy.received) <= most(LOOK_UPS_AT_ONCE)
        assert statuses.count(200) <= look_ups(proxy.received)

        # and what is known, or listed as it stands, needs no look-up
        assert await converse(proxy.bedrock, limited) == 200
        listed = await proxy.key(models=["arn:aws:bedrock:*:application-inference-profile/made-up-*"])
        assert await converse(proxy.bedrock, listed, made_up(2000)) == 200


async def test_the_refusal_of_a_flood_says_that_it_passes(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        headers = {"x-api-key": await proxy.key(models=["anthropic.*"])}
        for number in range(10 * LOOK_UPS_AT_ONCE):
            url = f"{proxy.bedrock}/model/{made_up(number)}/converse"
            async with session.post(url, json=BODY, headers=headers) as response:
                if response.status == 429:
                    assert int(response.headers["Retry-After"]) > 0
                    assert response.headers["x-amzn-ErrorType"] == "ThrottlingException"
                    assert "try again" in (await response.json())["message"]
                    return
        pytest.fail("it was never refused")


async def test_what_there_is_not_is_asked_for_once_and_pushes_nothing_out(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "KEPT", 2)
    model = f'{{"models":[{{"modelArn":"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}"}}]}}'.encode()

    async def control_plane(peer: Incoming) -> None:
        while True:
            request = await peer.request()
            missing = "made-up" in request.target and "inference-profiles" in request.target
            await peer.send(answer(b"{}", status="404 Not Found") if missing else answer(model))

    async with Upstream(control_plane) as upstream, running(database_url, tmp_path, upstream=upstream.url) as proxy:

        def asked() -> int:
            return sum(request.target.startswith("/inference-profiles/") for request in upstream.requests)

        key = await proxy.key(models=["anthropic.*"])
        assert await converse(proxy.bedrock, key) == 200
        for number in range(5):
            assert await converse(proxy.bedrock, key, made_up(number)) == 403
        assert asked() == 6
        assert await converse(proxy.bedrock, key) == 200
        assert await converse(proxy.bedrock, key, made_up(4)) == 403
        assert asked() == 6


async def test_what_was_found_stays_while_aws_does_not_answer(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "FOUND_SECONDS", 0.0)
    model = f'{{"models":[{{"modelArn":"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}"}}]}}'.encode()
    asked = 0

    async def control_plane(peer: Incoming) -> None:
        nonlocal asked
        while True:
            request = await peer.request()
            is_look_up = request.target.startswith("/inference-profiles/")
            asked += is_look_up
            fails = is_look_up and asked > 1
            await peer.send(answer(b"{}", status="429 Too Many Requests") if fails else answer(model))

    async with Upstream(control_plane) as upstream, running(database_url, tmp_path, upstream=upstream.url) as proxy:
        key = await proxy.key(models=["anthropic.*"])
        assert [await converse(proxy.bedrock, key) for _ in range(3)] == [200, 200, 200]
        assert asked == 2
