"""Keys that must not work any more, keys that must, and what nobody but the administrator reaches."""

import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from yarl import URL

from passthrough.admin.key_rotation import Rotation
from passthrough.admin.keys import Keys
from passthrough.admin.schemas.keys import GenerateKey, RegenerateKey
from passthrough.errors import Refusal
from passthrough.policy.keys import admit_key, digest
from passthrough.storage.audit import Actor
from passthrough.storage.database import Database
from passthrough.storage.keys import key_directory
from tests.fakes.running import MASTER_KEY, Running, running

NOBODY = Actor("nobody")
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
HELLO = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


@pytest.mark.parametrize("behind_seconds", [0, 4 * 60])
async def test_a_text_that_was_replaced_without_grace_is_refused_also_where_the_clock_is_behind(
    database: Database, behind_seconds: int
) -> None:
    keys = Keys(database, time.time)
    old = await keys.generate(GenerateKey(), NOBODY)
    await Rotation(database, keys).rotate(old.key, RegenerateKey(), NOBODY)
    async with key_directory(database) as directory:
        found = await directory.find(digest(old.key))
    assert found is not None
    with pytest.raises(Refusal, match="was replaced by another: ask your administrator for its successor"):
        admit_key(found, time.time() - behind_seconds)


async def status_of(proxy: Running, key: str, session: ClientSession, **headers: str) -> int:
    address = f"{proxy.bedrock}/model/{MODEL}/converse"
    sent = {"Authorization": f"Bearer {key}", **headers}
    async with session.post(address, json=HELLO, headers=sent) as response:
        return response.status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"models": ["all-proxy-models"]}, 200),
        ({"models": ["all-team-models"], "team_id": "without-a-list"}, 200),
        ({"models": ["all-team-models"], "team_id": "listed"}, 403),
        ({"models": ["all-proxy-models"], "team_id": "listed"}, 403),
        ({"models": ["no-default-models"]}, 403),
        ({"models": []}, 200),
    ],
    ids=str,
)
async def test_litellms_words_for_model_lists_mean_what_they_mean_there(
    database_url: str, tmp_path: Path, fields: dict[str, Any], status: int
) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        await proxy.administrate("POST", "/team/new", {"team_id": "listed", "models": ["amazon.*"]})
        assert await status_of(proxy, await proxy.key(**fields), session) == status


async def test_no_digest_opens_what_its_key_opens(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        key = await proxy.key()
        for secret, status in (
            (key, 200),
            (digest(key), 401),
            (digest(MASTER_KEY), 401),
            ("master", 401),
            (key[:-1], 401),
            (f"{key}x", 401),
            (key.upper(), 401),
        ):
            assert await status_of(proxy, secret, session) == status, secret


async def test_no_virtual_key_can_be_made_with_the_text_of_the_master_key(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        other = await proxy.key()
        for path, fields, name in (
            ("/key/generate", {"key": MASTER_KEY}, "key"),
            ("/key/regenerate", {"key": other, "new_key": MASTER_KEY}, "new_key"),
            (f"/key/{digest(other)}/regenerate", {"new_key": MASTER_KEY}, "new_key"),
        ):
            headers = {"Authorization": f"Bearer {MASTER_KEY}"}
            async with session.post(proxy.url + path, json=fields, headers=headers) as response:
                assert response.status == 400
                error = (await response.json())["error"]
                assert error["param"] == name
                assert MASTER_KEY not in error["message"]
        assert await status_of(proxy, other, session) == 200
        assert (await proxy.administrate("GET", "/key/list"))["total_count"] == 1


async def test_a_virtual_key_that_had_the_text_before_the_master_key_does_not_stand_in_its_way(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    await Keys(database, time.time).generate(GenerateKey(key=MASTER_KEY, models=["amazon.*"]), NOBODY)
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        assert await status_of(proxy, MASTER_KEY, session) == 200
        await proxy.administrate("POST", "/key/block", {"key": MASTER_KEY})
        assert await status_of(proxy, MASTER_KEY, session) == 200
        await proxy.administrate("GET", "/key/list")


async def test_the_first_of_several_keys_counts_and_the_others_reach_nobody(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        first, other = await proxy.key(), await proxy.key()
        assert await status_of(proxy, other, session, **{"x-api-key": "sk-nobody-has-this-one-0123"}) == 401
        assert await status_of(proxy, other, session, **{"litellm_user_api_key": first, "API-Key": other}) == 200
        assert [row["key_id"] for row in await proxy.rows()] == [None, digest(first)]
        assert not any(key in repr(proxy.received) for key in (first, other))


OWN = {
    ("GET", "/key/info"),
    ("POST", "/key/health"),
    ("GET", "/spend/logs"),
    ("GET", "/spend/logs/v2"),
    ("GET", "/spend/keys"),
    ("GET", "/user/daily/activity"),
    ("GET", "/team/daily/activity"),
}
ANYBODY = {("GET", "/openapi.json"), ("GET", "/docs")}


async def test_every_route_asks_for_the_master_key_but_those_that_are_listed_here(
    database_url: str, tmp_path: Path
) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        key = await proxy.key()
        routes = {
            (method.upper(), path.replace("{", "").replace("}", ""))
            for path, methods in (await proxy.administrate("GET", "/openapi.json"))["paths"].items()
            for method in methods
            if method in {"get", "post", "put", "patch", "delete"}
        }
        assert len(routes) > 50
        assert routes >= OWN
        for method, path in routes - ANYBODY:
            for credential, status in (("", 401), ("Bearer sk-nobody-has-this-one-0123", 401), (f"Bearer {key}", 403)):
                if status == 403 and (method, path) in OWN:
                    continue
                async with session.request(method, proxy.url + path, headers={"Authorization": credential}) as response:
                    assert response.status == status, (method, path)


async def test_a_key_with_a_list_reaches_nothing_that_other_keys_calls_have_left(
    database_url: str, tmp_path: Path
) -> None:
    left = (
        ("POST", "/sessions/"),
        ("GET", "/sessions/3f2a/"),
        ("DELETE", "/sessions/3f2a/"),
        ("POST", "/tags/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Asession%2F3f2a"),
        ("GET", "/async-invoke"),
        ("GET", "/openai/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
    )
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        narrow, free = await proxy.key(models=["anthropic.claude-3-haiku*"]), await proxy.key()
        for method, path in left:
            target = URL(proxy.bedrock + path, encoded=True)
            async with session.request(method, target, headers={"x-api-key": narrow}) as response:
                assert (response.status, (await response.json())["__type"]) == (403, "AccessDeniedException"), path
        assert not proxy.received
        async with session.get(f"{proxy.bedrock}/async-invoke", headers={"x-api-key": free}) as response:
            assert response.status == 200
        assert await status_of(proxy, narrow, session) == 200
