"""One thing for many users, or members, over the admin API."""

from typing import Any

import pytest

from passthrough.admin.schemas import bulk
from passthrough.storage.keys import KeyDirectory
from tests.admin.conftest import Administrator


@pytest.fixture
async def users(admin: Administrator) -> list[str]:
    names = ["a", "b", "c"]
    for name in names:
        await admin.post("/user/new", {"user_id": name, "user_email": f"{name}@x.org", "auto_create_key": False})
    return names


def outcomes(answer: Any) -> list[tuple[str | None, bool]]:
    return [(result["user_id"], result["success"]) for result in answer["results"]]


@pytest.mark.usefixtures("users")
async def test_users_are_updated_one_by_one_and_one_that_fails_hinders_nobody(
    admin: Administrator, directory: KeyDirectory
) -> None:
    token = (await admin.generate(user_id="a"))["token"]
    answer = await admin.post(
        "/user/bulk_update",
        {
            "users": [
                {"user_id": "a", "models": ["amazon.*"], "max_budget": 2.5},
                {"user_id": "nobody", "max_budget": 1},
                {"user_email": "b@x.org", "user_role": "internal_user"},
                {"user_id": "c", "budget_id": "none"},
                {"max_budget": 1},
            ]
        },
    )
    assert outcomes(answer) == [("a", True), ("nobody", False), ("b", True), ("c", False), (None, False)]
    assert (answer["total_requested"], answer["successful_updates"], answer["failed_updates"]) == (5, 2, 3)
    first, second, third, *_ = answer["results"]
    assert (first["updated_user"]["max_budget"], first["user_email"], first["error"]) == (2.5, "a@x.org", None)
    assert (second["updated_user"], second["error"]) == (None, "There is no such user: name an existing one.")
    assert third["updated_user"]["user_role"] == "internal_user"
    key = await directory.find(token)
    assert key is not None
    assert key.model_lists == (("amazon.*",),)
    assert (await admin.get("/v2/user/info?user_id=c"))["max_budget"] is None


async def test_all_users_are_updated_at_once(admin: Administrator, users: list[str]) -> None:
    answer = await admin.post(
        "/user/bulk_update", {"all_users": True, "user_updates": {"max_budget": 5, "tpm_limit": None}}
    )
    assert sorted(outcomes(answer)) == [(name, True) for name in users]
    assert {(await admin.get(f"/v2/user/info?user_id={name}"))["max_budget"] for name in users} == {5}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "users"),
        ({"users": []}, "users"),
        ({"users": [{"user_id": "a"}], "all_users": True}, "users"),
        ({"all_users": True}, "user_updates"),
        ({"users": [{"user_id": "a"}], "user_updates": {"max_budget": 1}}, "user_updates"),
        ({"all_users": True, "user_updates": {"user_email": "all@x.org"}}, "user_updates.user_email"),
        ({"users": [{"user_id": "a", "user_role": "proxy_admin"}]}, "users"),
    ],
)
async def test_an_update_of_many_that_says_not_whose_is_refused(
    admin: Administrator, users: list[str], body: dict[str, Any], field: str
) -> None:
    error = await admin.post("/user/bulk_update", body, status=400)
    assert error["error"]["param"] == field
    assert {(await admin.get(f"/v2/user/info?user_id={name}"))["max_budget"] for name in users} == {None}


@pytest.mark.usefixtures("users")
async def test_many_become_members_by_id_or_address_and_strangers_are_made(admin: Administrator) -> None:
    await admin.post("/team/new", {"team_id": "t"})
    members = [{"user_id": "a", "role": "admin"}, {"user_email": "b@x.org"}, {}, {"user_email": "new@x.org"}]
    answer = await admin.post("/team/bulk_member_add", {"team_id": "t", "members": members, "max_budget_in_team": 3})
    assert [success for _, success in outcomes(answer)] == [True, True, False, True]
    assert (answer["total_requested"], answer["successful_additions"], answer["failed_additions"]) == (4, 3, 1)
    admin_of_it, by_address, nameless, new = answer["results"]
    assert (admin_of_it["updated_team_membership"]["role"], by_address["user_id"]) == ("admin", "b")
    assert by_address["updated_team_membership"]["max_budget_in_team"] == 3
    assert by_address["updated_user"]["teams"] == ["t"]
    assert (nameless["user_id"], nameless["error"]) == (None, "A member needs a user_id or a user_email.")
    assert new["user_email"] == "new@x.org"
    assert answer["updated_team"]["members"] == sorted(["b", new["user_id"]])
    await admin.post("/team/bulk_member_add", {"team_id": "nobody", "members": members}, status=404)
    for body in ({}, {"members": []}, {"members": members, "all_users": True}):
        error = await admin.post("/team/bulk_member_add", {"team_id": "t", **body}, status=400)
        assert error["error"]["param"] == "members"


@pytest.mark.usefixtures("users")
async def test_all_users_become_members_and_who_is_one_stays_what_he_is(admin: Administrator) -> None:
    await admin.post("/team/new", {"team_id": "t", "admins": ["a"]})
    answer = await admin.post("/team/bulk_member_add", {"team_id": "t", "all_users": True})
    assert sorted(outcomes(answer)) == [("b", True), ("c", True)]
    assert (answer["updated_team"]["admins"], answer["updated_team"]["members"]) == (["a"], ["b", "c"])
    answer = await admin.post("/team/bulk_member_add", {"team_id": "t", "all_users": True})
    assert (answer["total_requested"], answer["results"]) == (0, [])


@pytest.mark.usefixtures("users")
async def test_more_users_than_a_request_may_be_about_are_not_changed_in_part(
    admin: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MOST", 2)
    await admin.post("/team/new", {"team_id": "t"})
    for path, body in (
        ("/user/bulk_update", {"user_updates": {"max_budget": 1}}),
        ("/team/bulk_member_add", {"team_id": "t"}),
    ):
        error = await admin.post(path, {**body, "all_users": True}, status=400)
        assert error["error"]["param"] == "all_users"
    assert (await admin.get("/team/info?team_id=t"))["team_info"]["members"] == []
