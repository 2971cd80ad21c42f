"""Users and customers over the admin API."""

import pytest

from passthrough.policy.keys import digest
from passthrough.storage.keys import KeyDirectory
from tests.admin.conftest import Administrator


async def test_a_new_user_gets_a_key_that_its_model_list_binds(admin: Administrator, directory: KeyDirectory) -> None:
    made = await admin.post(
        "/user/new", {"user_id": "u", "user_email": "u@example.com", "models": ["amazon.*"], "duration": "1d"}
    )
    assert (made["user_id"], made["models"], made["token"]) == ("u", ["amazon.*"], digest(made["key"]))
    key = await directory.find(made["token"])
    assert key is not None
    assert (key.user_id, key.model_lists) == ("u", (("amazon.*",),))
    info = await admin.get("/user/info?user_id=u")
    assert [row["token"] for row in info["keys"]] == [made["token"]]
    assert (info["user_info"]["user_email"], info["teams"]) == ("u@example.com", [])
    assert made["key"] not in str(info)


async def test_a_user_may_be_made_without_a_key_and_with_teams(admin: Administrator) -> None:
    made = await admin.post(
        "/user/new", {"teams": ["t", {"team_id": "s", "user_role": "admin"}], "auto_create_key": False}
    )
    assert (made["key"], made["teams"]) == (None, ["s", "t"])
    info = await admin.get(f"/user/info?user_id={made['user_id']}")
    assert [(team["team_id"], team["members"], team["admins"]) for team in info["teams"]] == [
        ("t", [made["user_id"]], []),
        ("s", [], [made["user_id"]]),
    ]


async def test_a_user_is_changed_by_id_or_address_and_null_takes_away(admin: Administrator) -> None:
    await admin.post("/user/new", {"user_id": "u", "user_email": "u@example.com", "max_budget": 1, "tpm_limit": 5})
    answer = await admin.post(
        "/user/update", {"user_email": "u@example.com", "max_budget": None, "user_alias": "O'Brien"}
    )
    assert answer["user_id"] == "u"
    assert [answer["data"][name] for name in ("max_budget", "tpm_limit", "user_alias")] == [None, 5, "O'Brien"]
    assert (await admin.get("/v2/user/info?user_id=u"))["user_alias"] == "O'Brien"


async def test_a_blocked_users_keys_are_blocked_at_once(admin: Administrator, directory: KeyDirectory) -> None:
    made = await admin.post("/user/new", {"user_id": "u"})
    await admin.post("/user/update", {"user_id": "u", "blocked": True})
    key = await directory.find(made["token"])
    assert key is not None
    assert (key.blocked, key.blocked_by) == (True, "user")


async def test_with_a_user_go_its_keys_and_with_an_unknown_one_nobody(admin: Administrator) -> None:
    made = await admin.post("/user/new", {"user_id": "u"})
    await admin.post("/user/delete", {"user_ids": ["u", "nobody"]}, status=404)
    await admin.get(f"/key/info?key={made['key']}")
    assert await admin.post("/user/delete", {"user_ids": ["u"]}) == 1
    await admin.get(f"/key/info?key={made['key']}", status=404)
    await admin.get("/user/info?user_id=u", status=404)


async def test_users_are_listed_in_pages_with_filters(admin: Administrator) -> None:
    for name in "abc":
        await admin.post("/user/new", {"user_id": name, "user_email": f"{name}@x.org", "auto_create_key": False})
    page = await admin.get("/user/list?page_size=2&sort_by=user_id&sort_order=asc")
    assert [row["user_id"] for row in page["users"]] == ["a", "b"]
    assert (page["total"], page["page"], page["page_size"], page["total_pages"]) == (3, 1, 2, 2)
    for query, found in (
        ("user_ids=a,c", ["c", "a"]),
        ("user_email=b%40", ["b"]),
        ("user_email=%25", []),
        ("team=t", []),
    ):
        assert [row["user_id"] for row in (await admin.get(f"/user/list?{query}"))["users"]] == found


async def test_a_role_that_administrates_is_refused_because_only_the_master_key_does(admin: Administrator) -> None:
    error = await admin.post("/user/new", {"user_role": "proxy_admin"}, status=400)
    assert error["error"]["param"] == "user_role"


async def test_the_roles_that_are_shown_are_those_that_a_user_may_be_given(admin: Administrator) -> None:
    roles = await admin.get("/user/available_roles")
    assert {frozenset(role) for role in roles.values()} == {frozenset({"description", "ui_label"})}
    for role in roles:
        made = await admin.post("/user/new", {"user_role": role, "auto_create_key": False})
        assert (await admin.get(f"/v2/user/info?user_id={made['user_id']}"))["user_role"] == role
    assert roles.keys() == {"internal_user", "internal_user_viewer"}


async def test_the_second_user_of_an_id_is_refused(admin: Administrator) -> None:
    await admin.post("/user/new", {"user_id": "u"})
    error = await admin.post("/user/new", {"user_id": "u"}, status=400)
    assert error["error"]["param"] == "user_id"
    assert (await admin.get("/key/list"))["total_count"] == 1


@pytest.mark.parametrize("prefix", ["/customer", "/end_user"])
async def test_a_customer_lives_and_dies(admin: Administrator, prefix: str) -> None:
    made = await admin.post(
        f"{prefix}/new", {"user_id": "c", "alias": "C", "max_budget": 2.5, "budget_duration": "1mo"}
    )
    assert (made["alias"], made["max_budget"], made["blocked"]) == ("C", 2.5, False)
    assert made["budget_reset_at"].endswith("-01T00:00:00Z")
    changed = await admin.post(f"{prefix}/update", {"user_id": "c", "alias": None, "models": ["amazon.*"]})
    assert (changed["alias"], changed["models"], changed["max_budget"]) == (None, ["amazon.*"], 2.5)
    blocked = await admin.post(f"{prefix}/block", {"user_ids": ["c", "new"]})
    assert {row["user_id"]: row["blocked"] for row in blocked["blocked_users"]} == {"c": True, "new": True}
    await admin.post(f"{prefix}/unblock", {"user_ids": ["c"]})
    assert (await admin.get(f"{prefix}/info?end_user_id=c"))["blocked"] is False
    assert [row["user_id"] for row in await admin.get(f"{prefix}/list")] == ["new", "c"]
    await admin.post(f"{prefix}/delete", {"user_ids": ["c", "nobody"]}, status=404)
    assert (await admin.post(f"{prefix}/delete", {"user_ids": ["c"]}))["deleted_customers"] == 1
    await admin.get(f"{prefix}/info?end_user_id=c", status=404)
