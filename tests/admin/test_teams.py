"""Teams, their members, and budgets over the admin API."""

from decimal import Decimal

from passthrough.storage.database import Database
from passthrough.storage.keys import KeyDirectory
from passthrough.storage.owners import set_counter
from tests.admin.conftest import Administrator


async def test_a_teams_lists_and_blocks_bind_its_keys_at_once(admin: Administrator, directory: KeyDirectory) -> None:
    await admin.post("/team/new", {"team_id": "t", "team_alias": "T", "models": ["amazon.*"], "tags": ["cost-1"]})
    token = (await admin.generate(team_id="t"))["token"]
    key = await directory.find(token)
    assert key is not None
    assert (key.model_lists, key.tags, key.blocked) == ((("amazon.*",),), ("cost-1",), False)
    assert (await admin.post("/team/block", {"team_id": "t"}))["blocked"] is True
    key = await directory.find(token)
    assert key is not None
    assert key.blocked_by == "team"
    await admin.post("/team/unblock", {"team_id": "t"})
    await admin.post("/team/update", {"team_id": "t", "models": ["meta.*"]})
    key = await directory.find(token)
    assert key is not None
    assert (key.model_lists, key.blocked) == ((("meta.*",),), False)


async def test_members_come_change_and_go(admin: Administrator, directory: KeyDirectory) -> None:
    team = await admin.post("/team/new", {"members_with_roles": [{"user_id": "a", "role": "admin"}]})
    identity = {"team_id": team["team_id"]}
    team = await admin.post(
        "/team/member_add",
        {**identity, "member": [{"user_id": "b"}, {"user_email": "c@x.org"}], "max_budget_in_team": 5},
    )
    assert team["admins"] == ["a"]
    assert {member["user_email"] for member in team["members_with_roles"]} == {None, "c@x.org"}

    share = await admin.post("/team/member_update", {**identity, "user_id": "b", "allowed_models": ["amazon.*"]})
    assert (share["max_budget_in_team"], share["allowed_models"], share["role"]) == (5, ["amazon.*"], "user")
    key = await directory.find((await admin.generate(user_id="b", **identity))["token"])
    assert key is not None
    assert key.model_lists == (("amazon.*",),)

    await admin.post("/team/member_delete", {**identity, "user_email": "c@x.org"})
    await admin.post("/team/member_delete", {**identity, "user_email": "c@x.org"}, status=404)
    info = await admin.get(f"/team/info?team_id={team['team_id']}")
    assert [member["user_id"] for member in info["team_memberships"]] == ["a", "b"]
    assert len(info["keys"]) == 1


async def test_what_a_member_spent_in_a_team_is_lowered_and_never_raised(
    admin: Administrator, database: Database
) -> None:
    await admin.post("/team/new", {"team_id": "t/1", "members": ["a b"]})
    await admin.post("/team/member_update", {"team_id": "t/1", "user_id": "a b", "max_budget_in_team": 5})
    async with database.begin() as connection:
        for kind, subject in (("team_member", "t/1/a b"), ("team", "t/1"), ("user", "a b")):
            await set_counter(connection, kind, subject, Decimal("3.1"))
    reset = "/team/t%2F1/member/a%20b/reset_spend"
    await admin.post(reset, {"reset_to": 3.2}, status=400)
    assert await admin.post(reset, {"reset_to": 0.5}) == {
        "team_id": "t/1",
        "user_id": "a b",
        "spend": 0.5,
        "previous_spend": 3.1,
        "max_budget": 5,
    }
    info = await admin.get("/team/info?team_id=t%2F1")
    assert (info["team_memberships"][0]["spend"], info["team_info"]["spend"]) == (0.5, 3.1)
    assert (await admin.get("/user/info?user_id=a%20b"))["user_info"]["spend"] == 3.1
    changes = (await admin.get("/audit?action=spend_reset"))["audit_logs"]
    assert [(change["table_name"], change["object_id"]) for change in changes] == [("team_members", "t/1/a b")]
    await admin.post("/team/t%2F1/member/nobody/reset_spend", {"reset_to": 0}, status=404)
    await admin.post("/team/nowhere/member/a%20b/reset_spend", {"reset_to": 0}, status=404)


async def test_patterns_are_added_to_a_teams_list_and_the_last_is_never_taken(admin: Administrator) -> None:
    await admin.post("/team/new", {"team_id": "t", "models": ["a.*"]})
    team = await admin.post("/team/model/add", {"team_id": "t", "models": ["b.*", "a.*"]})
    assert team["models"] == ["a.*", "b.*"]
    team = await admin.post("/team/model/delete", {"team_id": "t", "models": ["a.*"]})
    assert team["models"] == ["b.*"]
    # an empty list allows everything, which is not what taking away means
    await admin.post("/team/model/delete", {"team_id": "t", "models": ["b.*"]}, status=400)


async def test_teams_are_listed_and_deleted_with_their_keys(admin: Administrator) -> None:
    for name in "ab":
        await admin.post(
            "/team/new", {"team_id": name, "team_alias": f"Team {name}", "members": ["u"] if name == "a" else []}
        )
    key = (await admin.generate(team_id="a"))["key"]
    assert [team["team_id"] for team in await admin.get("/team/list")] == ["b", "a"]
    assert [team["team_id"] for team in await admin.get("/team/list?user_id=u")] == ["a"]
    page = await admin.get("/v2/team/list?team_alias=m+B&page_size=1")
    assert ([team["team_id"] for team in page["teams"]], page["total"], page["total_pages"]) == (["b"], 1, 1)
    await admin.post("/team/delete", {"team_ids": ["a", "x"]}, status=404)
    assert await admin.post("/team/delete", {"team_ids": ["a"]}) == {"deleted_teams": ["a"]}
    await admin.get(f"/key/info?key={key}", status=404)


async def test_a_shared_budget_is_made_used_and_not_deleted_while_it_is_used(admin: Administrator) -> None:
    made = await admin.post("/budget/new", {"budget_id": "free", "max_budget": 0.1, "budget_duration": "1d"})
    assert (made["max_budget"], made["budget_id"]) == (0.1, "free")
    changed = await admin.post("/budget/update", {"budget_id": "free", "rpm_limit": 10})
    assert (changed["max_budget"], changed["rpm_limit"]) == (0.1, 10)
    assert [row["budget_id"] for row in await admin.post("/budget/info", {"budgets": ["free", "x"]})] == ["free"]
    assert len(await admin.get("/budget/list")) == 1
    key = (await admin.generate(budget_id="free"))["key"]
    await admin.post("/budget/delete", {"id": "free"}, status=400)
    await admin.post("/key/update", {"key": key, "budget_id": None})
    await admin.post("/budget/delete", {"id": "free"})
    await admin.post("/budget/delete", {"id": "free"}, status=404)
    for path, body in (
        ("/key/generate", {}),
        ("/user/new", {}),
        ("/team/new", {}),
        ("/customer/new", {"user_id": "c"}),
    ):
        error = await admin.post(path, {**body, "budget_id": "free"}, status=400)
        assert error["error"]["param"] == "budget_id"


async def test_a_budget_is_shown_field_by_field(admin: Administrator) -> None:
    await admin.post("/budget/new", {"budget_id": "free", "max_budget": 0.1, "rpm_limit": 10, "budget_duration": "1d"})
    settings = await admin.get("/budget/settings?budget_id=free")
    shown = {field["field_name"]: (field["field_type"], field["field_value"]) for field in settings}
    assert shown == {
        "max_budget": ("Float", 0.1),
        "soft_budget": ("Float", None),
        "budget_duration": ("String", "1d"),
        "model_max_budget": ("Object", {}),
        "max_parallel_requests": ("Integer", None),
        "tpm_limit": ("Integer", None),
        "tpd_limit": ("Integer", None),
        "rpm_limit": ("Integer", 10),
    }
    assert all(field["field_description"] and field["stored_in_db"] for field in settings)
    await admin.get("/budget/settings?budget_id=x", status=404)
    await admin.get("/budget/settings", status=400)
