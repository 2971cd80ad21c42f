"""Bad input: a 4xx of one sentence that names the field, in LiteLLM's shape, and nothing changed."""

import io
import time
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient
from sqlalchemy import func, select

from passthrough.admin.app import add_admin_routes
from passthrough.policy.keys import digest
from passthrough.proxy.authenticate import Authenticate
from passthrough.storage.database import Database, open_database
from passthrough.storage.keys import KeyDirectory
from passthrough.storage.schema import Audit, Customer, Key, Team, User
from tests.admin.conftest import MASTER, Administrator, assert_error
from tests.fakes.cutting import cutting

SQL = "x'; DROP TABLE keys; --"
ROUTES_WITH_TEXT = {
    "/key/generate": ("key", "key_alias", "user_id", "team_id", "duration", "budget_id", "region", "budget_duration"),
    "/user/new": ("user_id", "user_email", "user_role", "key_alias", "budget_id"),
    "/team/new": ("team_id", "budget_id", "team_member_budget_duration"),
    "/customer/new": ("user_id", "budget_id"),
    "/budget/new": ("budget_id", "budget_duration", "budget_reset_at"),
}


async def counts(database: Database) -> tuple[int, ...]:
    async with database.begin() as connection:
        found = [
            await connection.scalar(select(func.count()).select_from(t)) for t in (Key, User, Team, Customer, Audit)
        ]
    return tuple(found)


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"models": "anthropic.*"}, "models"),
    ({"models": [1]}, "models"),
    ({"models": {"a": "b"}}, "models"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": {"b": ["x\x00"]}}}, "metadata"),
    ({"metadata": {"a": "x" * 20_000}}, "metadata"),
    ({"tags": "a"}, "tags"),
    ({"blocked": "yes"}, "blocked"),
    ({"max_budget": "10"}, "max_budget"),
    ({"max_budget": -0.01}, "max_budget"),
    ({"max_budget": 1e300}, "max_budget"),
    ({"soft_budget": -1}, "soft_budget"),
    ({"rpm_limit": 1.5}, "rpm_limit"),
    ({"rpm_limit": -1}, "rpm_limit"),
    ({"tpm_limit": 2**70}, "tpm_limit"),
    ({"max_parallel_requests": True}, "max_parallel_requests"),
    ({"model_max_budget": {"m": {"max_budget": -1}}}, "model_max_budget"),
    ({"model_max_budget": {"m": {"max_budget": 1, "budget_limit": 2}}}, "model_max_budget"),
    ({"model_rpm_limit": {"m": -1}}, "model_rpm_limit"),
    ({"budget_limits": [{"budget_duration": "1d"}]}, "budget_limits.max_budget"),
    ({"duration": "soon"}, "duration"),
    ({"duration": "0d"}, "duration"),
    ({"duration": "1y"}, "duration"),
    ({"duration": "99999999999d"}, "duration"),
    ({"key": "pk-not-one-of-ours-at-all"}, "key"),
    ({"key": "sk-short"}, "key"),
    ({"key": "sk-with blanks in between"}, "key"),
    ({"key": "sk-ünïcödé-letters"}, "key"),
    ({"key_alias": "a" * 257}, "key_alias"),
    ({"key_alias": "a\nb"}, "key_alias"),
    ({"key_alias": "a\n"}, "key_alias"),
    ({"key_alias": 7}, "key_alias"),
    ({"aliases": {"a": 1}}, "aliases"),
    ({"allowed_routes": ["Convers"]}, "allowed_routes"),
    ({"allowed_routes": ["management_routes"]}, "allowed_routes"),
    ({"allowed_regions": ["eu-west-99"]}, "allowed_regions"),
    ({"region": "mars-north-1"}, "region"),
    ({"enforced_params": ["metadata"]}, "enforced_params"),
    ({"auto_rotate": True}, "rotation_interval"),
    ({"models": ["all-team-models"]}, "models"),
    ({"budget_id": "nobodys"}, "budget_id"),
    ({"key_type": "management"}, "key_type"),
    ({"no_such_field": 1}, "no_such_field"),
    ({"guardrails": ["pii"]}, "guardrails"),
    ({"send_invite_email": True}, "send_invite_email"),
    ({"organization_id": "o"}, "organization_id"),
    ({"permissions": {"a": 1}}, "permissions"),
    ({"tpm_limit_type": "guaranteed_throughput"}, "tpm_limit_type"),
]


async def test_what_does_not_fit_is_named_and_nothing_happens(admin: Administrator, database: Database) -> None:
    for fields, named in UNFIT:
        error = (await admin.post("/key/generate", {"user_id": "somebody-new", **fields}, status=400))["error"]
        assert error["param"] == named, fields
        assert named.partition(".")[0] in error["message"], error
    assert await counts(database) == (0, 0, 0, 0, 0)


async def test_what_asks_for_nothing_is_accepted_of_fields_that_do_not_act(admin: Administrator) -> None:
    nothing = {"guardrails": None, "send_invite_email": False, "organization_id": "", "permissions": {}, "prompts": []}
    made = await admin.generate(**nothing)
    await admin.post("/key/update", {"key": made["key"], **nothing})


async def test_what_is_no_json_object_is_refused(admin: Administrator) -> None:
    numbers = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"1.")
    documents = [b"[]", b"1", b'"x"', b"null", b"{", b"\xef\xbb\xbf{}", b'{"a": "\xff"}', b"{}{}", b"[" * 100_000]
    for document in [*documents, *(b'{"max_budget": %b}' % number for number in numbers)]:
        await admin.call("POST", "/key/generate", raw=document, status=400)


async def test_a_deeply_nested_body_is_refused_not_a_crash(admin: Administrator) -> None:
    deep = b'{"metadata":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}"
    await admin.call("POST", "/key/generate", raw=deep, status=400)


async def test_ten_megabytes_are_refused_whether_announced_or_not(admin: Administrator) -> None:
    document = b'{"metadata": {"a": "' + b"x" * 10_000_000 + b'"}}'

    async def chunks() -> Any:
        for start in range(0, len(document), 65536):
            yield document[start : start + 65536]

    headers = {"Authorization": f"Bearer {MASTER}"}
    for data in (io.BytesIO(document), chunks()):
        async with admin.client.post("/key/generate", data=data, headers=headers) as answer:
            assert answer.status == 413
            await assert_error(answer)


async def test_sql_in_a_text_that_names_something_is_refused(admin: Administrator, database: Database) -> None:
    for path, names in ROUTES_WITH_TEXT.items():
        for name in names:
            fields = {"user_id": "c"} if path == "/customer/new" else {}
            error = await admin.post(path, {**fields, name: SQL}, status=400)
            assert error["error"]["param"] == name
    assert await counts(database) == (0, 0, 0, 0, 0)


async def test_sql_where_any_text_may_be_is_kept_as_it_is(admin: Administrator, database: Database) -> None:
    made = await admin.generate(metadata={SQL: SQL})
    assert made["metadata"] == {SQL: SQL}
    for target in ("/key/list?search=%27%20OR%201=1", "/key/list?user_id=%27%3B--", "/audit?object_id=%27%3B--"):
        await admin.get(target, status=400)
    assert (await admin.get("/user/list?user_email=%27%20OR%20%271%27=%271"))["total"] == 0
    for key in (SQL, "' OR '1'='1", "sk-' OR '1'='1' --"):
        await admin.post("/key/block", {"key": key}, status=404)
        await admin.get("/key/list", key=key, status=401)
    assert (await counts(database))[0] == 1


async def test_a_wild_card_of_sql_in_a_search_is_a_letter(admin: Administrator) -> None:
    for alias in ("ab_cd", "abxcd", "100%"):
        await admin.generate(key_alias=alias)
    for search, found in (("b_c", 1), ("%25", 0), ("00%25", 1), ("_", 0), ("AB", 2), ("zz", 0)):
        assert (await admin.get(f"/key/list?search={search}"))["total_count"] == found, search


UNFIT_QUERIES: list[tuple[str, str | None]] = [
    ("/key/list?page=0", "page"),
    ("/key/list?page=x", "page"),
    ("/key/list?size=101", "size"),
    ("/key/list?sort_by=metadata", "sort_by"),
    ("/key/list?status=deleted", "status"),
    ("/key/list?status=null", "status"),
    ("/key/list?nonsense=1", "nonsense"),
    ("/key/list?user_id=a&user_id=b", None),
    ("/key/list?user_id=%00", "user_id"),
    ("/key/info", "key"),
    ("/team/info", "team_id"),
    ("/budget/list?x=1", "x"),
    ("/audit?start_date=yesterday", "start_date"),
    ("/audit?start_date=2026-02-30", "start_date"),
]


async def test_a_query_that_does_not_fit_is_refused(admin: Administrator) -> None:
    for target, named in UNFIT_QUERIES:
        assert (await admin.get(target, status=400))["error"]["param"] == named, target


async def test_a_user_called_null_can_be_asked_for(admin: Administrator) -> None:
    await admin.generate(user_id="null")
    await admin.generate()
    assert (await admin.get("/key/list?user_id=null"))["total_count"] == 1


async def test_while_the_database_is_away_the_answer_is_503_in_the_same_shape(
    database_url: str, directory: KeyDirectory, aiohttp_client: AiohttpClient
) -> None:
    async with cutting(database_url) as proxy, open_database(proxy.url) as distant:
        app = web.Application()
        authenticate = Authenticate(directory, master_digest=digest(MASTER))
        add_admin_routes(app, database=distant, authenticate=authenticate, clock=time.time, obeyed=directory.caught_up)
        admin = Administrator(await aiohttp_client(app))
        await admin.generate()
        await proxy.cut()
        error = await admin.post("/key/generate", status=503)
        assert error["error"]["type"] == "no_db_connection"
        await proxy.mend()
        await admin.generate()


async def test_a_bug_of_ours_is_a_500_that_tells_nothing_and_a_log_line_without_the_key(
    admin: Administrator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("passthrough.admin.key_rotation._move", bug)
    made = await admin.generate()
    error = await admin.post(f"/key/{made['key']}/regenerate", status=500)
    assert error["error"]["type"] == "internal_server_error"
    assert "secret detail" not in str(error)
    ours = [record for record in caplog.records if record.name.startswith("passthrough")]
    assert len(ours) == 1
    assert ours[0].exc_info is not None
    assert made["key"] not in str(ours[0].__dict__)
    # and what was begun was not done
    assert (await admin.get(f"/key/info?key={made['key']}"))["info"]["rotation_count"] == 0
