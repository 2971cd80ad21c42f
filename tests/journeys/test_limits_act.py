"""A call that is over a limit of its key is refused, costs nothing, and says what is left."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from tests.fakes.running import Running, running

MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
BODY = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"maxTokens": 100}}


async def ask(proxy: Running, key: str, model: str = MODEL) -> tuple[int, Any, dict[str, Any]]:
    async with (
        ClientSession() as session,
        session.post(f"{proxy.bedrock}/model/{model}/converse", json=BODY, headers={"x-api-key": key}) as response,
    ):
        return response.status, response.headers, await response.json()


async def test_of_a_limit_of_three_requests_exactly_three_are_served(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        key = await proxy.key(rpm_limit=3)
        answers = [await ask(proxy, key) for _ in range(5)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429]
        assert "RateLimit" in answers[0][1]
        _, headers, document = answers[-1]
        assert headers["x-amzn-ErrorType"] == "ThrottlingException"
        assert int(headers["Retry-After"]) >= 0
        assert int(headers["x-amz-retry-after"]) >= 0
        assert "rpm_limit" in document["message"]
        assert sum(request.target.startswith("/model/") for request in proxy.received) == 3


async def test_a_budget_is_spent_to_the_cent_and_never_over(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        key = await proxy.key(max_budget=0.001, budget_duration="30d")
        statuses = []
        while 400 not in statuses:
            status, _, document = await ask(proxy, key)
            statuses.append(status)
            assert len(statuses) < 200, "the budget never ends"
        assert set(statuses) == {200, 400}
        assert statuses.count(200) >= 1
        assert document["__type"] == "ServiceQuotaExceededException"
        assert "max_budget" in document["message"]
        rows = await proxy.rows()
        assert 0 < sum(row["cost"] for row in rows if row["cost"] is not None) <= 0.001
        info = await proxy.administrate("GET", f"/key/info?key={key}")
        assert info["info"]["spend"] > 0


async def test_a_model_without_a_price_is_refused_under_a_budget_and_served_without(
    database_url: str, tmp_path: Path
) -> None:
    async with running(database_url, tmp_path) as proxy:
        bound, free = await proxy.key(max_budget=10), await proxy.key()
        status, _, document = await ask(proxy, bound, "nobody.knows-v1:0")
        assert (status, document["__type"]) == (400, "ServiceQuotaExceededException")
        assert (await ask(proxy, free, "nobody.knows-v1:0"))[0] == 200


async def test_a_teams_limit_binds_all_of_its_keys_together(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        await proxy.administrate("POST", "/team/new", {"team_id": "t", "rpm_limit": 2})
        keys = [await proxy.key(team_id="t") for _ in range(3)]
        assert [(await ask(proxy, key))[0] for key in keys] == [200, 200, 429]


async def test_a_key_reads_what_is_left_of_all_that_binds_it(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        await proxy.administrate("POST", "/team/new", {"team_id": "left", "tpd_limit": 10**6})
        key = await proxy.key(team_id="left", rpm_limit=10, max_budget=1, budget_duration="1d")
        for _ in range(3):
            assert (await ask(proxy, key))[0] == 200
        (*_, last) = await proxy.rows()
        async with (
            ClientSession() as session,
            session.get(f"{proxy.url}/key/info", headers={"x-api-key": key}) as response,
        ):
            assert response.status == 200
            left = {item["field"]: item for item in (await response.json())["allowances"]}
        assert (left["rpm_limit"]["used"], left["rpm_limit"]["remaining"]) == (3, 7)
        assert (left["tpd_limit"]["subject"], left["tpd_limit"]["name"]) == ("team", "left")
        assert left["tpd_limit"]["used"] == 3 * (last["input_tokens"] + last["output_tokens"])
        assert left["max_budget"]["used"] == float(3 * last["cost"])
        assert left["max_budget"]["held"] == left["max_budget"]["lost"] == 0
        assert left["max_budget"]["resets_at"].endswith("T00:00:00Z")


async def test_a_limit_of_an_end_user_reads_what_a_call_asks_for_also_where_its_client_has_hashed_it(
    database_url: str, tmp_path: Path
) -> None:
    async with running(database_url, tmp_path) as proxy:
        await proxy.administrate("POST", "/customer/new", {"user_id": "hashing", "tpm_limit": 5000})
        body = json.dumps(BODY).encode()
        headers = {"x-api-key": await proxy.key(), "x-litellm-customer-id": "hashing"}
        headers["x-amz-content-sha256"] = hashlib.sha256(body).hexdigest()

        async def slowly() -> AsyncIterator[bytes]:
            yield body[:10]
            await asyncio.sleep(0.05)  # the body comes after its head, as a large one does
            yield body[10:]

        async with ClientSession() as session:
            target = f"{proxy.bedrock}/model/{MODEL}/converse"
            async with session.post(target, data=slowly(), headers=headers | {"Content-Length": str(len(body))}) as got:
                assert got.status == 200, await got.text()


async def test_an_answer_of_claude_tells_claude_code_how_full_its_budget_is(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        _, headers, _ = await ask(proxy, await proxy.key(max_budget=1, budget_duration="30d"))
        assert headers["anthropic-ratelimit-unified-status"] == "allowed"
        assert float(headers["anthropic-ratelimit-unified-7d-utilization"]) < 0.01
        assert '"key-budget-30d";q=1000000;w=2592000;qu="usd-micros"' in headers["RateLimit-Policy"]
        _, headers, _ = await ask(proxy, await proxy.key())
        assert not {"RateLimit", "RateLimit-Policy"} & set(headers)
