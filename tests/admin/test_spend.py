import csv
import io
import json
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient
from sqlalchemy import insert

from passthrough.admin.app import add_admin_routes
from passthrough.admin.schemas.fields import FORMS
from passthrough.admin.spend import spend_endpoints
from passthrough.policy.keys import digest
from passthrough.policy.ledger import CallIds, Entry
from passthrough.proxy.authenticate import Authenticate
from passthrough.storage.database import Database
from passthrough.storage.keys import KeyDirectory
from passthrough.storage.ledger import Ledger
from passthrough.storage.schema import FormerKey

MASTER = "sk-the-master-key-of-these-tests"
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MARCH = "start_date=2026-03-01&end_date=2026-03-31"
ids: defaultdict[datetime, CallIds] = defaultdict(CallIds)  # they only grow, and tests go back in time


class Get(Protocol):
    async def __call__(self, target: str, *, key: str = MASTER, status: int = 200) -> Any: ...


@pytest.fixture
async def client(
    database: Database, directory: KeyDirectory, aiohttp_client: AiohttpClient
) -> TestClient[web.Request, web.Application]:
    app = web.Application()
    authenticate = Authenticate(directory, master_digest=digest(MASTER))
    more = spend_endpoints(database, NOON.timestamp)
    add_admin_routes(
        app, database=database, authenticate=authenticate, clock=time.time, obeyed=directory.caught_up, more=more
    )
    return await aiohttp_client(app)


@pytest.fixture
def get(client: TestClient[web.Request, web.Application]) -> Get:
    async def get(target: str, *, key: str = MASTER, status: int = 200) -> Any:
        async with client.get(target, headers={"Authorization": f"Bearer {key}"}) as answer:
            text = await answer.text()
            assert answer.status == status, text
            return json.loads(text, parse_float=Decimal)

    return get


async def get_csv(client: TestClient[web.Request, web.Application], target: str) -> list[dict[str, str]]:
    headers = {"Authorization": f"Bearer {MASTER}", "Accept": "text/csv"}
    async with client.get(target, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/csv"
        return list(csv.DictReader(io.StringIO(await answer.text())))


async def make_key(client: TestClient[web.Request, web.Application], **fields: Any) -> tuple[str, str]:
    headers = {"Authorization": f"Bearer {MASTER}"}
    async with client.post("/key/generate", json=fields, headers=headers) as answer:
        made = await answer.json()
        return made["key"], made["token"]


@pytest.fixture
async def ledger(tmp_path: Path, database: Database) -> AsyncIterator[Ledger]:
    async with Ledger(tmp_path, database.connect) as opened:
        yield opened


def call(at: datetime = NOON, **fields: Any) -> Entry:
    known = {
        "duration_ms": 1500,
        "key_id": digest("somebody"),
        "user_id": "alice",
        "team_id": "red",
        "operation": "Converse",
        "model": "us.amazon.nova-lite-v1:0",
        "billed_model": "amazon.nova-lite-v1:0",
        "status": 200,
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_tokens": 3,
        "cache_write_tokens": 4,
        "cost": Decimal("0.1"),
        "price_status": "priced",
    }
    return Entry(call_id=ids[at](at.timestamp()), started_at=at.timestamp(), **(known | fields))


async def record(ledger: Ledger, *calls: Entry) -> None:
    for each in calls:
        ledger.append(each)
    await ledger.flush(10)


async def test_pages_hold_every_call_once_newest_first(ledger: Ledger, get: Get) -> None:
    calls = [call(NOON + timedelta(minutes=minute)) for minute in range(25)]
    await record(ledger, *calls)
    expected = [each.call_id for each in reversed(calls)]
    pages = [await get(f"/spend/logs/v2?{MARCH}&page_size=10&page={number}") for number in (1, 2, 3, 4)]
    assert [row["call_id"] for page in pages for row in page["data"]] == expected
    assert [(p["total"], p["page"], p["page_size"], p["total_pages"]) for p in pages[:2]] == [
        (25, 1, 10, 3),
        (25, 2, 10, 3),
    ]
    assert pages[3]["data"] == []


async def test_a_cursor_walks_the_same_way_without_counting(ledger: Ledger, get: Get) -> None:
    calls = [call(NOON + timedelta(minutes=minute)) for minute in range(25)]
    await record(ledger, *calls)
    page = await get(f"/spend/logs/v2?{MARCH}&page_size=10")
    walked = page["data"]
    while page["next_cursor"]:
        page = await get(f"/spend/logs/v2?{MARCH}&page_size=10&cursor={page['next_cursor']}")
        assert page["total"] is None
        walked += page["data"]
    assert [row["call_id"] for row in walked] == [each.call_id for each in reversed(calls)]


async def test_a_row_has_the_names_and_the_exact_digits_of_the_ledger(ledger: Ledger, get: Get) -> None:
    await record(ledger, call(cost=Decimal("0.00000120000000000000001"), tags=("a", "b"), metadata='{"job": 7}'))
    [row] = (await get(f"/spend/logs/v2?{MARCH}"))["data"]
    assert row["cost"] == Decimal("0.00000120000000000000001")
    assert (row["tags"], row["metadata"], row["started_at"]) == (["a", "b"], {"job": 7}, "2026-03-10T12:00:00Z")
    assert set(Entry.__struct_fields__) - row.keys() <= {"units", "by_model", "charges"}


FILTERS: list[tuple[str, dict[str, Any]]] = [
    ("key_alias=ci", {"key_alias": "ci"}),
    ("team_id=blue", {"team_id": "blue"}),
    ("user_id=bob", {"user_id": "bob"}),
    ("end_user=c%201", {"end_user": "c 1"}),
    ("model=amazon.titan-embed-text-v2:0", {"billed_model": "amazon.titan-embed-text-v2:0"}),
    ("model=arn:aws:bedrock:x", {"model": "arn:aws:bedrock:x"}),
    ("status=429", {"status": 429}),
    ("status=failure&user_id=carol", {"outcome": "client_error", "user_id": "carol"}),
    ("status_filter=failure&status=403", {"outcome": "refused", "status": 403}),
    ("session_id=s1", {"session_id": "s1"}),
    ("tag=prod", {"tags": ("x", "prod")}),
    ("min_spend=0.2", {"cost": Decimal("0.2")}),
    ("max_spend=0.05", {"cost": Decimal("0.05")}),
    ("api_key=sk-a-key-in-plain-text", {"key_id": digest("sk-a-key-in-plain-text")}),
    (f"api_key={'ab' * 32}", {"key_id": "ab" * 32}),
    ("api_key=master", {"key_id": "master"}),
]


async def test_each_filter_finds_its_call_alone(ledger: Ledger, get: Get) -> None:
    calls = [call(**matching) for _, matching in FILTERS]
    await record(ledger, call(), *calls, call(cost=None, price_status="not_metered"))
    for (query, _), wanted in zip(FILTERS, calls, strict=True):
        found = await get(f"/spend/logs/v2?{MARCH}&{query}")
        assert [row["call_id"] for row in found["data"]] == [wanted.call_id], query
        assert found["total"] == 1


async def test_a_call_is_found_by_its_id(ledger: Ledger, get: Get) -> None:
    wanted = call()
    await record(ledger, call(), wanted)
    found = await get(f"/spend/logs/v2?{MARCH}&call_id={wanted.call_id}")
    assert [row["call_id"] for row in found["data"]] == [wanted.call_id]
    [log] = await get(f"/spend/logs?request_id={wanted.call_id}")
    assert (log["request_id"], log["spend"], log["total_tokens"]) == (wanted.call_id, Decimal("0.1"), 37)
    assert log["endTime"] == "2026-03-10T12:00:01.500000Z"


async def test_both_ends_of_a_span_are_included_to_the_second(ledger: Ledger, get: Get) -> None:
    midnight = datetime(2026, 3, 11, tzinfo=UTC)
    calls = [call(midnight - timedelta(milliseconds=1)), call(midnight), call(midnight + timedelta(seconds=1.5))]
    await record(ledger, *calls)

    async def found(start: str, end: str) -> list[str]:
        page = await get(f"/spend/logs/v2?start_date={start}&end_date={end}")
        return [row["call_id"] for row in reversed(page["data"])]

    first, second, third = (each.call_id for each in calls)
    assert await found("2026-03-10", "2026-03-10") == [first]
    assert await found("2026-03-11", "2026-03-11") == [second, third]
    assert await found("2026-03-10%2023:59:59", "2026-03-11%2000:00:00") == [first, second]


async def test_a_virtual_key_reads_its_own_calls_and_nobody_elses(
    ledger: Ledger, get: Get, client: TestClient[web.Request, web.Application]
) -> None:
    key, key_id = await make_key(client, key_alias="mine", user_id="alice")
    _, other_id = await make_key(client)
    mine = call(key_id=key_id)
    await record(ledger, mine, call(key_id=other_id))
    for target in ("/spend/logs/v2?", "/spend/logs?summarize=false&"):
        rows = await get(f"{target}{MARCH}", key=key)
        assert [row["call_id"] for row in (rows["data"] if isinstance(rows, dict) else rows)] == [mine.call_id]
    assert [row["token"] for row in await get("/spend/keys", key=key)] == [key_id]
    [day] = (await get(f"/user/daily/activity?{MARCH}", key=key))["results"]
    assert day["metrics"]["api_requests"] == 1
    assert [day["spend"] for day in await get(f"/spend/logs?{MARCH}", key=key)] == [Decimal("0.1")]
    await get(f"/spend/logs/v2?{MARCH}&api_key={other_id}", key=key, status=403)


async def test_a_virtual_key_reads_no_sums_of_others(
    get: Get, client: TestClient[web.Request, web.Application]
) -> None:
    key, _ = await make_key(client)
    sums = ("report", "keys", "models", "teams", "end_users", "tags")
    for target in (
        "/spend/users",
        "/spend/tags",
        "/global/spend",
        "/global/activity",
        *(f"/global/spend/{s}" for s in sums),
    ):
        await get(target, key=key, status=403)
        await get(target, key="sk-a-key-that-nobody-made", status=401)


async def test_a_rotated_key_still_shows_what_it_did_before(
    ledger: Ledger, get: Get, client: TestClient[web.Request, web.Application], database: Database
) -> None:
    key, key_id = await make_key(client, key_alias="rotated")
    former = digest("its text before it was rotated")
    async with database.begin() as connection:
        await connection.execute(insert(FormerKey).values(former_id=former, key_id=key_id, valid_until=NOON))
    await record(ledger, call(key_id=former), call(key_id=key_id))
    assert (await get(f"/spend/logs/v2?{MARCH}", key=key))["total"] == 2
    assert (await get(f"/spend/logs/v2?{MARCH}&api_key={key_id}"))["total"] == 2
    [shown] = [row for row in await get("/spend/keys") if row["token"] == key_id]
    assert (shown["spend"], shown["key_alias"]) == (Decimal("0.2"), "rotated")
    assert [(row["api_key"], row["total_spend"]) for row in await get(f"/global/spend/keys?{MARCH}")] == [
        (key_id, Decimal("0.2"))
    ]


@pytest.fixture
async def mixed(ledger: Ledger) -> None:
    await record(
        ledger,
        call(cost=Decimal("0.3"), tags=("a",), end_user="c1"),
        call(cost=Decimal("0.1"), team_id="blue", user_id="bob", key_id="cd" * 32, tags=("a", "b")),
        call(NOON + timedelta(days=1), cost=Decimal("0.05"), billed_model="other", end_user="c2"),
        call(NOON + timedelta(days=1), cost=None, price_status="not_metered", status=429, outcome="client_error"),
        call(NOON - timedelta(days=100), cost=Decimal(7)),
    )


@pytest.mark.usefixtures("mixed")
async def test_reports_sum_what_the_rows_say(get: Get) -> None:
    assert (await get("/global/spend"))["spend"] == Decimal("7.45")
    keys = await get(f"/global/spend/keys?{MARCH}")
    assert [(row["api_key"], row["total_spend"]) for row in keys] == [
        (digest("somebody"), Decimal("0.35")),
        ("cd" * 32, Decimal("0.1")),
    ]
    models = await get(f"/global/spend/models?{MARCH}&limit=1")
    assert models == [{"model": "amazon.nova-lite-v1:0", "total_spend": Decimal("0.4")}]
    teams = await get(f"/global/spend/teams?{MARCH}")
    assert teams["teams"] == ["red", "blue"]
    assert teams["daily_spend"] == [
        {"date": "2026-03-10", "red": Decimal("0.3"), "blue": Decimal("0.1")},
        {"date": "2026-03-11", "red": Decimal("0.05")},
    ]
    customers = await get(f"/global/spend/end_users?{MARCH}")
    assert [tuple(row.values()) for row in customers] == [("c1", 1, Decimal("0.3")), ("c2", 1, Decimal("0.05"))]
    tags = await get(f"/global/spend/tags?{MARCH}")
    assert [tuple(row.values()) for row in tags["spend_per_tag"]] == [
        ("a", Decimal("0.4"), 2),
        ("b", Decimal("0.1"), 1),
    ]
    assert [row["individual_request_tag"] for row in await get(f"/spend/tags?{MARCH}")] == ["a", "b"]
    activity = await get(f"/global/activity?{MARCH}")
    assert (activity["sum_api_requests"], activity["sum_total_tokens"]) == (4, 148)
    users = await get("/spend/users")
    assert [(row["user_id"], row["spend"]) for row in users] == [("alice", Decimal("7.35")), ("bob", Decimal("0.1"))]


SHAPES = [
    ("team", "teams", "team_name", [("red", "0.3"), ("blue", "0.1"), ("red", "0.05")]),
    ("user", "users", "user", [("alice", "0.3"), ("bob", "0.1"), ("alice", "0.05")]),
    ("customer", "customers", "customer", [("c1", "0.3"), ("c2", "0.05")]),
    ("tag", "tags", "tag", [("a", "0.4"), ("b", "0.1")]),
    (
        "model",
        "models",
        "model",
        [("amazon.nova-lite-v1:0", "0.4"), ("other", "0.05"), ("amazon.nova-lite-v1:0", "0")],
    ),
]


@pytest.mark.usefixtures("mixed")
async def test_a_report_has_days_and_their_subjects(get: Get) -> None:
    for by, plural, name, expected in SHAPES:
        report = await get(f"/global/spend/report?{MARCH}&group_by={by}")
        found = [(subject[name], subject["total_spend"]) for day in report for subject in day[plural]]
        assert found == [(subject, Decimal(spend)) for subject, spend in expected], by
        for subject in [subject for day in report for subject in day[plural]]:
            assert sum(part["spend"] for part in subject["metadata"]) == subject["total_spend"]


@pytest.mark.usefixtures("mixed")
async def test_a_report_by_key_has_its_models(get: Get) -> None:
    report = await get(f"/global/spend/report?{MARCH}&group_by=api_key")
    assert [(row["api_key"], row["total_cost"], len(row["model_details"])) for row in report] == [
        (digest("somebody"), Decimal("0.35"), 2),
        ("cd" * 32, Decimal("0.1"), 1),
    ]
    assert report[0]["total_input_tokens"] == 51


@pytest.mark.usefixtures("mixed")
async def test_daily_activity_comes_apart_by_model_key_and_owner(get: Get) -> None:
    activity = await get(f"/team/daily/activity?{MARCH}")
    newest, oldest = activity["results"]
    assert (newest["date"], oldest["date"]) == ("2026-03-11", "2026-03-10")
    assert (newest["metrics"]["successful_requests"], newest["metrics"]["failed_requests"]) == (1, 1)
    assert {team: part["metrics"]["spend"] for team, part in oldest["breakdown"]["entities"].items()} == {
        "red": Decimal("0.3"),
        "blue": Decimal("0.1"),
    }
    assert activity["metadata"]["total_spend"] == Decimal("0.45")
    blue = await get(f"/team/daily/activity?{MARCH}&team_ids=blue,green")
    assert blue["metadata"]["total_api_requests"] == 1
    second = await get(f"/user/daily/activity?{MARCH}&page_size=1&page=2")
    assert [day["date"] for day in second["results"]] == ["2026-03-10"]
    assert (second["metadata"]["total_pages"], second["metadata"]["has_more"]) == (2, False)


@pytest.mark.usefixtures("mixed")
async def test_tables_come_as_csv_with_exact_digits(client: TestClient[web.Request, web.Application]) -> None:
    rows = await get_csv(client, f"/spend/logs/v2?{MARCH}&page_size=1")
    assert [row["cost"] for row in rows] == ["", "0.05", "0.1", "0.3"]
    report = await get_csv(client, f"/global/spend/report?{MARCH}&group_by=team")
    assert sum(Decimal(row["spend"]) for row in report) == Decimal("0.45")
    for target in (
        f"/spend/logs?{MARCH}",
        f"/spend/logs?{MARCH}&summarize=false",
        "/spend/keys",
        "/spend/users",
        f"/global/spend/keys?{MARCH}",
        f"/global/spend/teams?{MARCH}",
        f"/global/spend/tags?{MARCH}",
        f"/global/activity?{MARCH}",
        f"/user/daily/activity?{MARCH}",
    ):
        assert await get_csv(client, target), target


async def test_a_long_export_is_streamed_whole(
    ledger: Ledger, client: TestClient[web.Request, web.Application]
) -> None:
    await record(ledger, *(call(NOON + timedelta(seconds=second)) for second in range(2500)))
    rows = await get_csv(client, f"/spend/logs/v2?{MARCH}")
    assert len({row["call_id"] for row in rows}) == 2500


async def test_what_a_caller_wrote_is_no_formula_in_a_spreadsheet(
    ledger: Ledger, client: TestClient[web.Request, web.Application]
) -> None:
    await record(ledger, call(user_agent='=HYPERLINK("http://x","y")', end_user="@c", cost=None))
    [row] = await get_csv(client, f"/spend/logs/v2?{MARCH}")
    assert (row["user_agent"], row["end_user"]) == ('\'=HYPERLINK("http://x","y")', "'@c")


MISFITS = [
    "",
    "start_date=2026-03-01",
    "start_date=2026-02-30&end_date=2026-03-01",
    "start_date=yesterday&end_date=today",
    "start_date=0001-01-01&end_date=9999-12-31",
    "start_date=2026-03-02&end_date=2026-03-01",
    f"{MARCH}&page=0",
    f"{MARCH}&page_size=100000",
    f"{MARCH}&cursor=1",
    f"{MARCH}&status=teapot",
    f"{MARCH}&min_spend=NaN",
    f"{MARCH}&sort_order=asc",
    f"{MARCH}&nonsense=1",
    f"{MARCH}&call_id={uuid.UUID(int=1)}&request_id={uuid.UUID(int=2)}",
]


async def test_a_query_that_does_not_fit_is_a_400_in_one_sentence(get: Get) -> None:
    for query in MISFITS:
        error = (await get(f"/spend/logs/v2?{query}", status=400))["error"]
        assert error["message"].endswith("."), query


async def test_an_empty_ledger_has_empty_reports(get: Get) -> None:
    assert (await get(f"/spend/logs/v2?{MARCH}"))["data"] == []
    assert (await get("/global/spend"))["spend"] == 0
    for target in ("/spend/logs", "/spend/tags", "/global/spend/keys", "/global/spend/report"):
        assert await get(target) == []
    assert (await get("/user/daily/activity"))["results"] == []


KEY_IN_A_PATH = "^[!-.0-~]+$"


async def test_what_does_not_fit_is_told_which_form_is_asked_for(get: Get) -> None:
    dates = "start_date=2026-03-01&end_date=2026-03-02"
    day = "a date of UTC such as 2026-01-31 or 2026-01-31 12:00:00, from 1970 to 2099"
    for target, field, form in (
        ("/global/activity?start_date=tomorrow", "start_date", day),
        ("/global/activity?end_date=1.3.2026", "end_date", day),
        (f"/spend/logs/v2?{dates}&min_spend=much", "min_spend", "an amount in USD such as 0.25"),
        (f"/spend/logs/v2?{dates}&status=bad", "status", "an HTTP status such as 200, success or failure"),
    ):
        error = (await get(target, status=400))["error"]
        assert error["message"] == f"The field '{field}' does not fit: expected {form}."
    for pattern in _patterns(await get("/openapi.json")):
        assert pattern in FORMS or "\\x00" in pattern or pattern == KEY_IN_A_PATH


def _patterns(value: Any) -> set[str]:
    if isinstance(value, list):
        return {pattern for item in value for pattern in _patterns(item)}
    if not isinstance(value, dict):
        return set()
    own = {value["pattern"]} if isinstance(value.get("pattern"), str) else set()
    return own | {pattern for item in value.values() for pattern in _patterns(item)}
