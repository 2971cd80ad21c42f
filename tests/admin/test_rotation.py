"""New texts for old keys."""

import asyncio
import time
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select, update

from passthrough.policy.keys import digest
from passthrough.storage.database import Database
from passthrough.storage.keys import KeyDirectory
from passthrough.storage.schema import FormerKey, Spend
from tests.admin.conftest import Administrator


async def test_a_rotated_key_is_the_same_key_with_another_text(admin: Administrator, database: Database) -> None:
    old = await admin.generate(key_alias="a", models=["m"], max_budget=5, spend=1.5)
    new = await admin.post("/key/regenerate", {"key": old["key"], "max_budget": 7})
    assert new["key"] != old["key"]
    assert new["token"] == digest(new["key"])
    assert [new[name] for name in ("key_alias", "models", "max_budget", "spend")] == ["a", ["m"], 7, 1.5]
    assert (new["rotation_count"], new["key_name"]) == (1, f"sk-...{new['key'][-4:]}")
    await admin.get(f"/key/info?key={old['key']}", status=404)
    assert (await admin.get("/key/list"))["keys"] == [new["token"]]
    async with database.begin() as connection:
        counters = (await connection.execute(select(Spend.subject, Spend.spend).where(Spend.kind == "key"))).all()
    assert [tuple(row) for row in counters] == [(new["token"], Decimal("1.5"))]


async def test_without_grace_the_former_text_is_dead_at_once(admin: Administrator, directory: KeyDirectory) -> None:
    old = await admin.generate()
    await directory.find(old["token"])
    await admin.post(f"/key/{old['key']}/regenerate")
    found = await directory.find(old["token"])
    assert found is not None  # it says why it is refused
    assert found.expires_at is not None
    assert found.expires_at <= time.time()
    error = (await admin.get("/key/info", key=old["key"], status=401))["error"]
    assert error["message"] == ("The virtual key was replaced by another: ask your administrator for its successor.")


async def test_during_grace_both_texts_open_the_key_and_name_it(admin: Administrator, directory: KeyDirectory) -> None:
    old = await admin.generate(key_alias="a")
    new = await admin.post(f"/key/{old['token']}/regenerate", {"grace_period": "24h"})
    former, current = await directory.find(old["token"]), await directory.find(new["token"])
    assert former is not None
    assert current is not None
    assert former.key_id == current.key_id == new["token"]
    assert former.expires_at is not None
    assert abs(former.expires_at - time.time() - 86400) < 5
    assert current.expires_at is None
    assert (await admin.get("/key/info", key=old["key"]))["info"]["key_alias"] == "a"
    assert (await admin.get(f"/key/info?key={old['key']}"))["key"] == new["token"]
    # what is done to the one is done to the other
    assert (await admin.post("/key/block", {"key": old["key"]}))["token"] == new["token"]


async def test_rotation_after_rotation_leads_all_former_texts_to_the_newest(
    admin: Administrator, database: Database
) -> None:
    keys = [await admin.generate()]
    for _ in range(3):
        keys.append(await admin.post("/key/regenerate", {"key": keys[-1]["key"], "grace_period": "1h"}))
    assert keys[-1]["rotation_count"] == 3
    async with database.begin() as connection:
        former = (await connection.execute(select(FormerKey.former_id, FormerKey.key_id))).all()
    assert {tuple(row) for row in former} == {(key["token"], keys[-1]["token"]) for key in keys[:-1]}


async def test_a_chosen_text_must_be_free_and_well_formed(admin: Administrator) -> None:
    one, other = await admin.generate(key="sk-the-first-of-them"), await admin.generate()
    new = await admin.post("/key/regenerate", {"key": one["key"], "new_key": "sk-the-second-of-them"})
    assert new["key"] == "sk-the-second-of-them"
    for taken in (other["key"], "sk-the-second-of-them", "sk-the-first-of-them", "short"):
        await admin.post("/key/regenerate", {"key": other["key"], "new_key": taken}, status=400)
    await admin.post("/key/generate", {"key": "sk-the-first-of-them"}, status=400)
    # one's own former text may come back
    back = await admin.post("/key/regenerate", {"key": new["key"], "new_key": "sk-the-first-of-them"})
    assert back["token"] == one["token"]
    await admin.post("/key/regenerate", {"key": "sk-nobodys-key-at-all"}, status=404)
    await admin.post("/key/regenerate", status=400)


async def test_a_key_that_must_be_rotated_is_due_after_its_interval(admin: Administrator, database: Database) -> None:
    key = await admin.generate(auto_rotate=True, rotation_interval="30d")
    due = datetime.fromisoformat(key["key_rotation_at"]) - datetime.fromisoformat(key["created_at"])
    assert abs(due.total_seconds() - 30 * 86400) < 5
    assert key["status"] == "active"
    async with database.begin() as connection:
        await connection.execute(
            update(FormerKey.metadata.tables["keys"]).values(
                key_rotation_at=datetime.fromisoformat("2026-01-01T00:00Z")
            )
        )
    assert (await admin.get(f"/key/info?key={key['key']}"))["info"]["status"] == "expired"
    error = await admin.get("/key/info", key=key["key"], status=401)
    assert "due for rotation" in error["error"]["message"]
    new = await admin.post("/key/regenerate", {"key": key["key"]})
    assert new["status"] == "active"
    updated = await admin.post("/key/update", {"key": new["key"], "auto_rotate": False})
    assert updated["key_rotation_at"] is None
    await admin.post("/key/generate", {"auto_rotate": True}, status=400)


async def test_spend_is_lowered_never_raised_and_the_life_time_sum_stays(
    admin: Administrator, database: Database
) -> None:
    key = await admin.generate()
    async with database.begin() as connection:
        await connection.execute(
            update(Spend).where(Spend.subject == key["token"]).values(spend=Decimal("3.1"), total_spend=Decimal("9.3"))
        )
    await admin.post(f"/key/{key['key']}/reset_spend", {"reset_to": 3.2}, status=400)
    row = await admin.post(f"/key/{key['key']}/reset_spend", {"reset_to": 0.5})
    assert (row["spend"], row["previous_spend"], row["total_spend"]) == (0.5, 3.1, 9.3)
    assert row["key_hash"] == key["token"]
    await admin.post("/key/sk-nobodys-key-at-all/reset_spend", {"reset_to": 0}, status=404)


async def test_many_updates_are_done_one_by_one(admin: Administrator) -> None:
    key = await admin.generate(key_alias="a")
    await admin.generate(key_alias="b")
    answer = await admin.post(
        "/key/bulk_update",
        {
            "keys": [
                {"key": key["key"], "max_budget": 1},
                {"key": "sk-unknown-to-all-of-us"},
                {"key": key["token"], "key_alias": "b"},
            ]
        },
    )
    assert answer["total_requested"] == 3
    assert [done["key_info"]["max_budget"] for done in answer["successful_updates"]] == [1]
    assert [failed["key"] for failed in answer["failed_updates"]] == [digest("sk-unknown-to-all-of-us"), key["token"]]
    assert "is taken" in answer["failed_updates"][1]["failed_reason"]


async def test_several_keys_are_shown_at_once_and_aliases_are_listed(admin: Administrator) -> None:
    keys = [await admin.generate(key_alias=alias) for alias in ("b", "a")]
    await admin.generate()
    shown = await admin.post("/v2/key/info", {"keys": [key["key"] for key in keys] + ["sk-unknown-to-all-of-us"]})
    assert sorted(shown["key"]) == sorted(key["token"] for key in keys)
    assert [row["token"] for row in shown["info"]] == shown["key"]
    aliases = await admin.get("/key/aliases?size=1&page=2")
    assert aliases == {"aliases": ["b"], "total_count": 2, "current_page": 2, "total_pages": 2, "size": 1}


async def test_a_key_asks_whether_it_works(admin: Administrator) -> None:
    key = await admin.generate()
    assert (await admin.post("/key/health", key=key["key"]))["key"] == "healthy"
    await admin.post("/key/block", {"key": key["key"]})
    async with asyncio.timeout(30):  # the change comes by itself, in milliseconds
        while (await admin.client.post("/key/health", headers={"x-api-key": key["key"]})).status != 401:
            pass


async def test_a_late_ledger_row_of_a_former_text_finds_its_key(admin: Administrator, database: Database) -> None:
    old = await admin.generate()
    new = await admin.post("/key/regenerate", {"key": old["key"]})
    async with database.begin() as connection:
        holder = await connection.scalar(select(FormerKey.key_id).where(FormerKey.former_id == old["token"]))
    assert holder == new["token"]
