"""Every administrative change is a row, and no key's text is anywhere but in the one answer."""

import asyncio
import logging

import asyncpg
import pytest

from passthrough.storage.database import Database
from tests.admin.conftest import MASTER, Administrator


async def test_a_change_says_who_when_what_before_and_after_and_from_where(admin: Administrator) -> None:
    made = await admin.generate(key_alias="a", models=["m"], max_budget=1.1)
    await admin.post(
        "/key/update", {"key": made["key"], "max_budget": 2.2}, headers={"litellm-changed-by": "alice@example.com"}
    )
    changes = (await admin.get("/audit"))["audit_logs"]
    assert [(change["action"], change["table_name"], change["changed_by"]) for change in changes] == [
        ("updated", "keys", "alice@example.com"),
        ("created", "keys", "master"),
    ]
    update, creation = changes
    assert (update["before_value"], update["updated_values"]) == ({"max_budget": 1.1}, {"max_budget": 2.2})
    assert creation["before_value"] is None
    assert creation["updated_values"] == {
        "key_id": made["token"],
        "key_name": made["key_name"],
        "key_alias": "a",
        "models": ["m"],
        "max_budget": 1.1,
    }
    assert {change["client_ip"] for change in changes} == {"127.0.0.1"}
    assert await admin.get(f"/audit/{update['id']}") == update
    for unknown in ("0", "x", "9" * 30):
        await admin.get(f"/audit/{unknown}", status=404)


async def test_every_kind_of_change_leaves_its_row(admin: Administrator) -> None:
    key = await admin.generate(user_id="u", team_id="t")
    await admin.post("/key/block", {"key": key["key"]})
    await admin.post("/key/unblock", {"key": key["key"]})
    new = await admin.post("/key/regenerate", {"key": key["key"]})
    await admin.post(f"/key/{new['token']}/reset_spend", {"reset_to": 0})
    await admin.post("/key/delete", {"keys": [new["key"]]})
    await admin.post("/team/member_add", {"team_id": "t", "member": {"user_id": "u"}})
    await admin.post("/team/member_update", {"team_id": "t", "user_id": "u", "role": "admin"})
    await admin.post("/team/member_delete", {"team_id": "t", "user_id": "u"})
    await admin.post("/team/delete", {"team_ids": ["t"]})
    await admin.post("/user/delete", {"user_ids": ["u"]})
    await admin.post("/customer/block", {"user_ids": ["c"]})
    await admin.post("/budget/new", {"budget_id": "b"})
    changes = (await admin.get("/audit?sort_order=asc"))["audit_logs"]
    assert [f"{change['table_name']} {change['object_id'][:8]} {change['action']}" for change in changes] == [
        "users u created",
        "teams t created",
        f"keys {key['token'][:8]} created",
        f"keys {key['token'][:8]} blocked",
        f"keys {key['token'][:8]} unblocked",
        f"keys {key['token'][:8]} rotated",
        f"keys {new['token'][:8]} spend_reset",
        f"keys {new['token'][:8]} deleted",
        "team_members t/u created",
        "team_members t/u updated",
        "team_members t/u deleted",
        "teams t deleted",
        "users u deleted",
        "customers c created",
        "customers c blocked",
        "budgets b created",
    ]


async def test_changes_are_filtered_and_paged(admin: Administrator) -> None:
    tokens = [(await admin.generate())["token"] for _ in range(3)]
    assert (await admin.get(f"/audit?object_id={tokens[1]}"))["total"] == 1
    assert (await admin.get("/audit?action=deleted"))["audit_logs"] == []
    page = await admin.get("/audit?page=2&page_size=2")
    assert ([change["object_id"] for change in page["audit_logs"]], page["total"], page["total_pages"]) == (
        tokens[:1],
        3,
        2,
    )
    assert (await admin.get("/audit?start_date=2026-01-01&end_date=9999-12-31"))["total"] == 3
    assert (await admin.get("/audit?end_date=2026-01-01"))["total"] == 0


async def test_a_refused_change_leaves_no_row(admin: Administrator) -> None:
    await admin.generate(key_alias="a")
    await admin.post("/key/generate", {"key_alias": "a", "user_id": "new"}, status=400)
    assert (await admin.get("/audit"))["total"] == 1
    await admin.get("/user/info?user_id=new", status=404)


async def test_a_keys_text_is_in_one_answer_and_nowhere_else(
    admin: Administrator, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = (await admin.generate(user_id="u", key="sk-the-text-of-this-very-key"))["key"]
    new = (await admin.post(f"/key/{key}/regenerate", {"grace_period": "1h"}))["key"]
    answers = [
        await admin.get(f"/key/info?key={key}"),
        await admin.get("/key/info", key=new),
        await admin.post("/v2/key/info", {"keys": [key, new]}),
        await admin.get("/key/list?return_full_object=true"),
        await admin.post("/key/update", {"key": new, "max_budget": 1}),
        await admin.post("/key/block", {"key": new}),
        await admin.post("/key/unblock", {"key": new}),
        await admin.post("/key/bulk_update", {"keys": [{"key": new}, {"key": "sk-unknown-to-all-of-us"}]}),
        await admin.post("/key/generate", {"key": new}, status=400),
        await admin.post("/key/block", {"key": "sk-unknown-to-all-of-us"}, status=404),
        await admin.get("/user/info?user_id=u"),
        await admin.get("/audit"),
    ]
    dump = await _everything_in(database)
    # aiohttp's own access log, which the product does not have, holds the query
    logged = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    for text in (key, new, "sk-unknown-to-all-of-us", MASTER):
        assert not [answer for answer in answers if text in str(answer)]
        assert text not in dump
        assert text not in str(logged)


async def _everything_in(database: Database) -> str:
    connection: asyncpg.Connection = await database.connect()
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [await connection.fetch(f'SELECT t::text FROM "{table[0]}" t') for table in tables]  # noqa: S608  # our own tables
    finally:
        await connection.close()
    return str(rows)


async def test_two_who_take_one_alias_at_once_do_not_both_have_it(admin: Administrator) -> None:
    async def take() -> int:
        headers = {"x-api-key": MASTER}
        async with admin.client.post(
            "/key/generate", json={"key_alias": "a", "user_id": "u"}, headers=headers
        ) as answer:
            return answer.status

    statuses = await asyncio.gather(*(take() for _ in range(10)))
    assert sorted(statuses) == [200] + [400] * 9
    assert (await admin.get("/key/list"))["total_count"] == 1
    assert (await admin.get("/audit"))["total"] == 2
