"""The life of a key over the admin API."""

import time
from datetime import datetime

from passthrough.policy.keys import digest
from passthrough.storage.keys import KeyDirectory
from tests.admin.conftest import Administrator


async def test_a_generated_key_is_known_to_the_directory_under_its_digest(
    admin: Administrator, directory: KeyDirectory
) -> None:
    made = await admin.generate(
        key_alias="a", models=["anthropic.*"], metadata={"service": "x"}, tags=["t"], user_id="u", team_id="g"
    )
    assert made["key"].startswith("sk-")
    assert made["token"] == made["token_id"] == digest(made["key"])
    assert made["key_name"] == f"sk-...{made['key'][-4:]}"
    assert (made["key_alias"], made["models"], made["metadata"]) == ("a", ["anthropic.*"], {"service": "x"})
    assert (made["tags"], made["user_id"], made["team_id"], made["spend"]) == (["t"], "u", "g", 0)
    key = await directory.find(made["token"])
    assert key is not None
    assert (key.key_alias, key.user_id, key.team_id, key.tags) == ("a", "u", "g", ("t",))


async def test_a_lifetime_is_counted_from_now(admin: Administrator) -> None:
    made = await admin.generate(duration="30d")
    expires = datetime.fromisoformat(made["expires"]).timestamp()
    assert abs(expires - time.time() - 30 * 86400) < 5
    assert (await admin.post("/key/update", {"key": made["key"], "duration": None}))["expires"] is None


async def test_a_custom_key_is_taken_as_it_is(admin: Administrator) -> None:
    made = await admin.generate(key="sk-of-my-own-choice")
    assert made["key"] == "sk-of-my-own-choice"
    error = await admin.post("/key/generate", {"key": "sk-of-my-own-choice"}, status=400)
    assert error["error"]["param"] == "key"


async def test_a_virtual_key_may_read_its_own_info_and_nothing_else(admin: Administrator) -> None:
    mine, other = (await admin.generate(key_alias="mine"))["key"], (await admin.generate())["key"]
    assert (await admin.get("/key/info", key=mine))["info"]["key_alias"] == "mine"
    assert (await admin.get(f"/key/info?key={mine}", key=mine))["info"]["key_alias"] == "mine"
    await admin.get(f"/key/info?key={other}", key=mine, status=403)
    await admin.get("/key/list", key=mine, status=403)
    await admin.post("/key/generate", {}, key=mine, status=403)


async def test_no_key_and_a_wrong_key_are_401(admin: Administrator) -> None:
    await admin.get("/key/list", key=None, status=401)
    await admin.get("/key/list", key="sk-nobodys-key-at-all", status=401)
    # a digest is no key
    made = await admin.generate()
    await admin.get("/key/info", key=made["token"], status=401)


async def test_update_changes_what_is_given_and_null_takes_away(admin: Administrator) -> None:
    made = await admin.generate(key_alias="a", models=["m"], max_budget=10.5, metadata={"a": 1, "b": 2})
    row = await admin.post("/key/update", {"key": made["key"], "metadata": {"c": 3}, "max_budget": None})
    assert (row["key_alias"], row["models"], row["metadata"], row["max_budget"]) == ("a", ["m"], {"c": 3}, None)
    row = await admin.post("/key/update", {"key_alias": "a", "models": None})
    assert row["models"] == []


async def test_blocked_updated_and_deleted_keys_are_so_for_the_directory_at_once(
    admin: Administrator, directory: KeyDirectory
) -> None:
    made = await admin.generate()
    assert (await admin.post("/key/block", {"key": made["key"]}))["blocked"] is True
    key = await directory.find(made["token"])
    assert key is not None
    assert key.blocked
    assert (await admin.post("/key/unblock", {"key": made["token"]}))["blocked"] is False
    deleted = await admin.post("/key/delete", {"keys": [made["key"]]})
    assert deleted == {"deleted_keys": [made["key"]]}
    await admin.get(f"/key/info?key={made['key']}", status=404)


async def test_an_unknown_key_is_404_and_nothing_happens_to_the_others(admin: Administrator) -> None:
    made = await admin.generate()
    for path, body in (
        ("/key/update", {"key": "sk-nobodys-key-at-all"}),
        ("/key/block", {"key": "sk-nobodys-key-at-all"}),
        ("/key/unblock", {"key": "0" * 64}),
        ("/key/delete", {"keys": [made["key"], "sk-nobodys-key-at-all"]}),
        ("/key/delete", {"key_aliases": ["nobody"]}),
    ):
        await admin.post(path, body, status=404)
    await admin.get(f"/key/info?key={made['key']}")


async def test_a_deleted_key_frees_its_alias(admin: Administrator) -> None:
    await admin.generate(key_alias="a")
    error = await admin.post("/key/generate", {"key_alias": "a"}, status=400)
    assert error["error"]["param"] == "key_alias"
    await admin.post("/key/delete", {"key_aliases": ["a"]})
    await admin.generate(key_alias="a")


async def test_the_list_is_paged_newest_first_and_counted(admin: Administrator) -> None:
    made = [(await admin.generate(key_alias=f"key-{n}", user_id="u" if n % 2 else "v"))["token"] for n in range(5)]
    page = await admin.get("/key/list?size=2")
    assert page == {"keys": made[:2:-1], "total_count": 5, "current_page": 1, "total_pages": 3}
    assert (await admin.get("/key/list?size=2&page=3"))["keys"] == made[:1]
    assert (await admin.get("/key/list?size=2&page=9")) == {
        "keys": [],
        "total_count": 5,
        "current_page": 9,
        "total_pages": 3,
    }
    assert (await admin.get("/key/list?user_id=u"))["keys"] == [made[3], made[1]]
    assert (await admin.get("/key/list?search=EY-3"))["keys"] == [made[3]]
    whole = await admin.get("/key/list?return_full_object=true&sort_by=key_alias&sort_order=asc")
    assert [row["key_alias"] for row in whole["keys"]] == [f"key-{n}" for n in range(5)]


async def test_a_service_accounts_key_is_its_teams_and_outlives_the_user_who_asked_for_it(admin: Administrator) -> None:
    path = "/key/service-account/generate"
    await admin.post("/team/new", {"team_id": "t", "members": ["u"]})
    made = await admin.post(path, {"team_id": "t", "key_alias": "ci", "models": ["amazon.*"], "user_id": None})
    assert (made["team_id"], made["user_id"], made["models"]) == ("t", None, ["amazon.*"])
    await admin.post("/user/delete", {"user_ids": ["u"]})
    assert (await admin.get(f"/key/info?key={made['key']}"))["info"]["key_alias"] == "ci"
    for body, field in (
        ({}, "team_id"),
        ({"team_id": None}, "team_id"),
        ({"team_id": "nobody-made-it"}, "team_id"),
        ({"team_id": "t", "user_id": "u"}, "user_id"),
        ({"team_id": "t", "guardrails": ["x"]}, "guardrails"),
    ):
        error = await admin.post(path, body, status=400)
        assert error["error"]["param"] == field
    await admin.get("/team/info?team_id=nobody-made-it", status=404)
    assert (await admin.get("/key/list"))["total_count"] == 1


async def test_a_user_that_nobody_created_is_created_with_the_key(admin: Administrator) -> None:
    await admin.generate(user_id="somebody")
    assert (await admin.get("/user/info?user_id=somebody"))["user_info"]["max_budget"] is None


async def test_the_text_of_a_key_names_nothing_so_that_it_is_kept_nowhere(admin: Administrator) -> None:
    text = "sk-a-text-of-ones-own"
    await admin.post("/key/generate", {"key": text, "key_alias": text}, status=400)
    made = await admin.generate(key=text)
    await admin.post("/key/regenerate", {"key": text, "new_key": "sk-the-next-of-them", "grace_period": "1h"})
    other = (await admin.generate())["key"]
    for holding in (text, "sk-the-next-of-them", other):
        for path, body, param in (
            ("/key/generate", {"key_alias": holding}, "key_alias"),
            ("/key/generate", {"user_id": holding}, "user_id"),
            ("/key/generate", {"tags": ["a", holding]}, "tags"),
            ("/key/generate", {"metadata": {"of": [{"old": holding}]}}, "metadata"),
            ("/key/update", {"key": other, "key_alias": holding}, "key_alias"),
            ("/key/regenerate", {"key": other, "new_key": "sk-yet-another-text", "key_alias": holding}, "key_alias"),
            ("/user/new", {"user_id": holding}, "user_id"),
            ("/team/new", {"team_id": holding}, "team_id"),
            ("/team/new", {"team_alias": holding}, "team_alias"),
            ("/customer/new", {"user_id": holding}, "user_id"),
        ):
            error = (await admin.post(path, body, status=400))["error"]
            assert error["param"] == param
            assert holding not in error["message"]
    changes = await admin.get("/audit?page_size=100")
    assert made["token"] in str(changes)
    assert "ones-own" not in str(changes)
    await admin.generate(key_alias="sk-no-text-of-any-key")


async def test_a_key_that_is_not_there_is_named_as_the_route_takes_it(admin: Administrator) -> None:
    await admin.generate(key_alias="par")
    error = (await admin.get("/key/info?key=par", status=404))["error"]
    assert error["message"] == "There is no such key: name an existing one by itself or its SHA-256."
    error = (await admin.post("/key/delete", {"key_aliases": ["far"]}, status=404))["error"]
    assert error["message"] == "There is no key of this alias: name an existing one."
