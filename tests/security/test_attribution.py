"""What clients say of themselves, before anybody knows them: it breaks nothing, leaks nothing, fills nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from passthrough.errors import Refusal
from passthrough.policy.ledger import LONGEST_METADATA, LONGEST_TEXT, MOST_TAGS, Entry
from passthrough.proxy import attribution
from passthrough.proxy.authenticate import Caller
from passthrough.proxy.headers import RequestHeaders
from passthrough.proxy.refuse import refuse
from passthrough.proxy.route import route
from passthrough.storage.database import Database
from tests.fakes.calls import call, call_head, ended_rows
from tests.fakes.peer import PATIENCE_SECONDS, connect, until
from tests.fakes.running import running, select

MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
SECRET = "sk-a-key-that-nobody-may-read-0123"  # opens nothing
NESTED = '{"a":' + "[" * 2000 + "]" * 2000 + "}"
HEADERS = (
    "User-Agent",
    "x-litellm-customer-id",
    "x-litellm-tags",
    "x-litellm-spend-logs-metadata",
    "x-claude-code-session-id",
    "x-claude-code-agent-id",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
)


def attributed(headers: dict[str, str], body: bytes = b"") -> Entry:
    entry = Entry(call_id="c", started_at=0.0)
    attribution.attribute(entry, headers)
    attribution.attribute_by_body(entry, body)
    return entry


@pytest.mark.parametrize(
    "metadata",
    [NESTED, '{"a":"\\ud800"}', '{"a":"\\u0000"}', '{"\\u0000":1}', '{"a":1e999}', '{"a"', "[]", "null", "\udcff"],
)
def test_metadata_that_cannot_be_kept_is_left_out(metadata: str) -> None:
    assert attributed({"x-litellm-spend-logs-metadata": metadata}).metadata is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"requestMetadata":{"a":"b"},"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"requestMetadata":{"a":"\\u0000"}}',
        json.dumps({"requestMetadata": {"a": "x" * 5000}}).encode(),
        json.dumps({"requestMetadata": {"a": 1}}).encode(),
        b'{"requestMetadata":{' + b'"a":"",' * 1_100_000 + b'"b":""}}',
    ],
    ids=["nested", "nul", "long", "no text", "many"],
)
def test_a_body_whose_metadata_cannot_be_kept_is_none_of_our_business(body: bytes) -> None:
    assert attributed({}, body).metadata is None


@given(st.dictionaries(st.sampled_from(HEADERS), st.text(max_size=60) | st.binary(max_size=9).map(repr), max_size=8))
def test_whatever_headers_hold_can_be_written_down(headers: dict[str, str]) -> None:
    raw = {name: value.encode("utf-8", "replace").decode("ascii", "surrogateescape") for name, value in headers.items()}
    entry = attributed(raw)
    msgspec.msgpack.encode(entry)
    assert json.loads(entry.metadata or "{}") is not None


def test_long_texts_and_many_tags_are_cut() -> None:
    entry = attributed(dict.fromkeys(HEADERS[:2], "x" * 9000) | {"x-litellm-tags": "a," * 9000 + "b"})
    assert [len(text) for text in (entry.user_agent or "", entry.end_user or "")] == [LONGEST_TEXT] * 2
    assert len(entry.tags) <= MOST_TAGS


def test_metadata_is_as_long_as_its_bytes() -> None:
    longest = json.dumps({"a": "é" * ((LONGEST_METADATA - 8) // 2)}, ensure_ascii=False, separators=(",", ":"))
    assert len(longest.encode()) == LONGEST_METADATA
    for text, kept in ((longest, longest), (longest.replace("é", "éé", 1), None)):
        assert attributed({"x-litellm-spend-logs-metadata": text}).metadata == kept


async def test_what_a_call_may_say_of_itself_is_in_its_row_to_the_last_letter(
    database_url: str, tmp_path: Path
) -> None:
    tags = [f"{number:02}" + "é" * 148 for number in range(MOST_TAGS)]  # 30 KB: a field may have 32
    metadata = json.dumps({"a": "x" * (LONGEST_METADATA - 8)}, separators=(",", ":"))
    customer, session_id = "c" * LONGEST_TEXT, "s" * LONGEST_TEXT
    said = {
        "x-litellm-tags": ",".join(tags),
        "x-litellm-customer-id": customer,
        "x-claude-code-session-id": session_id,
        "x-litellm-spend-logs-metadata": metadata,
    }
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        keys_tags = [f"{number:02}" + "k" * 200 for number in range(100)]
        headers = {**said, "Authorization": f"Bearer {await proxy.key(tags=keys_tags)}"}
        document = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
        async with session.post(f"{proxy.bedrock}/model/{MODEL}/converse", json=document, headers=headers) as response:
            assert response.status == 200
        [row] = await proxy.rows()
        assert row["tags"] == keys_tags + tags
        assert (row["end_user"], row["session_id"]) == (customer, session_id)
        assert json.loads(row["metadata"]) == json.loads(metadata)


@pytest.mark.parametrize("secret", [SECRET, 'sk-with"quotes\\and-such'])
def test_a_key_that_its_holder_puts_elsewhere_too_is_taken_out(secret: str) -> None:
    headers = dict.fromkeys(HEADERS, f"mine is {secret}") | {HEADERS[3]: json.dumps({"note": secret})}
    entry = attributed(headers)
    entry.model = secret
    attribution.take_out_key(entry, secret)
    assert secret not in repr(entry)
    assert json.dumps(secret)[1:-1] not in repr(entry.metadata)


async def test_a_key_that_its_holder_puts_into_the_body_is_not_recorded(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        key = await proxy.key()
        headers = {"Authorization": f"Bearer {key}"}
        noted: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
        noted["requestMetadata"] = {"note": key}
        asked = {"model": key, "messages": [{"role": "user", "content": "hi"}]}
        for path, body in ((f"model/{MODEL}/converse", noted), ("openai/v1/chat/completions", asked)):
            async with session.post(f"{proxy.bedrock}/{path}", json=body, headers=headers) as response:
                await response.read()
        rows: list[dict[str, Any]] = await proxy.rows()
        assert [(row["model"], row["metadata"]) for row in rows] == [(MODEL, None), (attribution.REMOVED, None)]


@pytest.mark.parametrize("name", ["X-Note", SECRET])
def test_no_field_with_the_key_in_it_goes_upstream(name: str) -> None:
    value = "harmless" if name == SECRET else f"a note of {SECRET}"
    assert RequestHeaders().choose([(name.encode(), value.encode())], SECRET).lines == b""


@pytest.mark.parametrize(
    "target",
    [
        f"/bedrock/model/{SECRET}/converse",
        "/bedrock/model/sk%2Da-key-that-nobody-may-read-0123/converse",
        f"/bedrock/model/{MODEL}/converse?api_key={SECRET}",
        f"/bedrock/model/{MODEL}/converse?x=%73k-a-key-that-nobody-may-read-0123",
    ],
)
def test_an_address_with_the_key_in_it_is_refused(target: str) -> None:
    caller = Caller(key=None, secret=SECRET, scope_region=None)  # type: ignore[arg-type]  # whose it is plays no part
    with pytest.raises(Refusal) as refused:
        caller.check_address(route("POST", target))
    assert refused.value.status == 400
    assert SECRET not in refused.value.message
    caller.check_address(route("POST", f"/bedrock/model/{MODEL}/converse?x=y"))


def test_a_refusal_can_quote_what_is_no_unicode() -> None:
    answer = refuse(Refusal(400, "ValidationException", "not \ud800 this"), "c")
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["message"] == "not ? this"


async def test_somebody_without_a_key_can_neither_break_a_worker_nor_write_into_anybodys_sums(
    database_url: str, tmp_path: Path
) -> None:
    said: dict[str, str] = {
        "x-litellm-spend-logs-metadata": NESTED,
        "x-litellm-tags": "a,b",
        "x-litellm-customer-id": "somebody",
        "x-claude-code-session-id": "s",
        "User-Agent": "curl/8",
    }
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        address = f"{proxy.bedrock}/model/{MODEL}/converse"
        for authorization in ("Bearer sk-nobody-has-this-one-01234", ""):
            async with session.post(address, headers={**said, "Authorization": authorization}) as response:
                assert response.status == 401
        rows: list[dict[str, Any]] = await proxy.rows()
        assert [(row["status"], row["user_agent"]) for row in rows] == [(401, "curl/8")] * 2
        for row in rows:
            assert (row["end_user"], row["tags"], row["session_id"], row["metadata"]) == (None, [], None, None)
        assert await select(database_url, "SELECT * FROM spend WHERE kind IN ('tag', 'customer')") == []
        assert await select(database_url, "SELECT * FROM ledger_daily_labels") == []


async def test_a_key_that_may_do_nothing_writes_no_lines_of_what_it_typed_into_the_sums(
    database_url: str, tmp_path: Path
) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        blocked, spent, useful = await proxy.key(blocked=True), await proxy.key(max_budget=0), await proxy.key()
        document = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
        typed = (
            (blocked, "anthropic.typed-0", 401),
            (spent, f"{MODEL}-typed", 400),
            (useful, MODEL, 200),
            (useful, "anthropic.sandbox.404", 404),  # which AWS refuses, for nothing
            (useful, f"{MODEL}.sandbox.throttle", 429),  # and this, though only for a model that there is
        )
        for number, (key, model, status) in enumerate(typed):
            said = {"x-litellm-tags": f"tag-{number}", "x-litellm-customer-id": f"customer-{number}"}
            headers = {**said, "Authorization": f"Bearer {key}"}
            address = f"{proxy.bedrock}/model/{model}/converse"
            async with session.post(address, json=document, headers=headers) as response:
                assert response.status == status, await response.text()
        async with connect(proxy.url) as client:  # one that leaves before it would be refused
            await client.send(
                call_head(
                    f"/bedrock/model/{MODEL}/converse", "Content-Length: 9", "x-litellm-tags: tag-left", key=spent
                )
            )
            await until(lambda: proxy.service.handler.calls)
        rows = await ended_rows(proxy)
        assert [(row["outcome"], row["tags"]) for row in rows] == [
            ("refused", ["tag-0"]),
            ("refused", ["tag-1"]),
            ("ok", ["tag-2"]),
            ("client_error", ["tag-3"]),
            ("client_error", ["tag-4"]),
            ("client_gone", ["tag-left"]),
        ]
        named = [("customer", "customer-2"), ("tag", "tag-2")]
        spend = await select(database_url, "SELECT * FROM spend WHERE kind IN ('tag', 'customer') ORDER BY kind")
        assert [(line["kind"], line["subject"]) for line in spend] == named
        labels = await select(database_url, "SELECT * FROM ledger_daily_labels ORDER BY label")
        assert [(line["label"], line["value"], line["calls"]) for line in labels] == [(*each, 1) for each in named]
        lines = "SELECT model, sum(calls) AS calls FROM ledger_daily WHERE key_id <> '' GROUP BY model ORDER BY model"
        days = await select(database_url, lines)
        assert [(day["model"], day["calls"]) for day in days] == [("", 4), (MODEL, 1), (f"{MODEL}.sandbox.throttle", 1)]


async def test_a_call_whose_client_leaves_while_its_limits_are_asked_for_is_in_no_line_of_what_it_typed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    asking = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%passthrough_lease%'"
    async with running(database_url, tmp_path) as proxy:
        key = await proxy.key(max_budget=1)
        async with database.begin() as connection, connect(proxy.url) as client:
            await connection.exec_driver_sql("LOCK TABLE allowances")
            await client.send(call(f"/bedrock/model/{MODEL}/converse", "x-litellm-tags: typed", key=key))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await select(database_url, asking):  # noqa: ASYNC110  # no event tells of it
                    await asyncio.sleep(0.01)
        [row] = await ended_rows(proxy)
        assert (row["outcome"], row["tags"], row["identity"]) == ("client_gone", ["typed"], None)
        assert await select(database_url, "SELECT * FROM ledger_daily_labels") == []
        assert await select(database_url, "SELECT model, calls FROM ledger_daily") == [{"model": "", "calls": 1}]


async def test_the_key_of_a_call_is_in_no_row_however_often_its_holder_sends_it(
    database_url: str, tmp_path: Path
) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        key = await proxy.key()
        headers = dict.fromkeys(HEADERS, key) | {"Authorization": f"Bearer {key}", "X-Else": key, key: "x"}
        async with session.post(f"{proxy.bedrock}/model/{MODEL}/converse", headers=headers, data=b"{}") as response:
            assert response.status == 400  # AWS's: there is no message in it
        async with session.post(f"{proxy.bedrock}/model/{key}/converse?k={key}", headers=headers) as response:
            assert response.status == 400
            assert key not in await response.text()
        assert key not in repr(await proxy.rows())
        assert len(proxy.received) == 1
        assert key not in repr(proxy.received)
        assert all(key.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_the_clients_address_is_that_of_its_connection_whatever_it_says(
    database_url: str, tmp_path: Path
) -> None:
    said = {"X-Forwarded-For": "10.0.0.1", "X-Real-IP": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        said["Authorization"] = f"Bearer {await proxy.key()}"
        async with session.post(f"{proxy.bedrock}/model/{MODEL}/converse", json={}, headers=said):
            pass
        (row,) = await proxy.rows()
    assert row["client_ip"] == "127.0.0.1"
