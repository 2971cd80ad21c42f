"""With many keys, each lookup and each page is one query from an index: the plan is tested, not the time."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import asyncpg
import pytest
from sqlalchemy import Select

from passthrough.policy.keys import digest
from passthrough.storage.database import Database
from passthrough.storage.key_pages import Filter, Order, Page, page_query, rows_query
from passthrough.storage.keys import LOOKUP

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Every tenth key has no owner; an owner has some ten keys.
FILL = """
INSERT INTO users (user_id) SELECT 'user-' || n FROM generate_series(0, 599) n;
INSERT INTO teams (team_id) SELECT 'team-' || n FROM generate_series(0, 599) n;
INSERT INTO keys (key_id, key_name, key_alias, user_id, team_id, expires, max_budget, created_at, models)
SELECT encode(sha256(('key-' || n)::bytea), 'hex'), 'sk-...' || n, 'alias of ' || md5(n::text),
    CASE WHEN n % 10 > 0 THEN 'user-' || n % 600 END, CASE WHEN n % 10 > 0 THEN 'team-' || n * 7 % 600 END,
    CASE WHEN n % 3 = 0 THEN now() + n * interval '1 minute' END, CASE WHEN n % 2 = 0 THEN n END,
    now() - n * interval '1 minute', ARRAY['anthropic.*', 'amazon.nova-lite-v1:0']
FROM generate_series(1, 6000) n;
INSERT INTO spend (kind, subject, spend) SELECT 'key', key_id, random() FROM keys;
INSERT INTO former_keys (former_id, key_id, valid_until)
SELECT encode(sha256(key_id::bytea), 'hex'), key_id, now() FROM keys LIMIT 3000;
"""
NOT_YET_VISIBLE = "SELECT relallvisible < relpages OR relpages = 0 FROM pg_class WHERE relname = 'keys'"


class Planner:
    def __init__(self, connection: asyncpg.Connection, database: Database) -> None:
        self._connection = connection
        self._dialect = database.engine.dialect

    async def scans(self, query: Select[Any], **values: Any) -> set[tuple[str, str]]:
        """The ways in which a query reads its tables."""
        compiled = query.compile(dialect=self._dialect, compile_kwargs={"render_postcompile": True})
        parameters = {**compiled.params, **values}
        ordered = [parameters[name] for name in compiled.positiontup or ()]
        plan = json.loads(await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {compiled}", *ordered))
        return set(_scans(plan[0]["Plan"]))


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in node:
        yield node["Node Type"], node["Relation Name"]
    for part in node.get("Plans", ()):
        yield from _scans(part)


@pytest.fixture
async def planner(database: Database) -> AsyncIterator[Planner]:
    connection = await database.connect()
    await connection.execute("ALTER TABLE keys DISABLE TRIGGER ALL; ALTER TABLE former_keys DISABLE TRIGGER ALL")
    await connection.execute(FILL)
    async with asyncio.timeout(30):
        while await connection.fetchval(NOT_YET_VISIBLE):  # somebody's snapshot may be older than the rows
            for table in ("keys", "users", "teams", "spend", "former_keys"):
                await connection.execute(f"VACUUM ANALYZE {table}")
    yield Planner(connection, database)
    await connection.close()


async def test_no_page_no_info_and_no_lookup_reads_all_keys(planner: Planner) -> None:
    piece = Filter(pieces=("f00d",))
    queries: list[Select[Any]] = [
        page_query(Filter(), Page(number=number, size=100, order=order, descending=descending), NOW)
        for order in get_args(Order)
        for descending in (True, False)
        for number in (1, 20)
    ]
    queries += [
        page_query(which, Page(number=1, size=100), NOW)
        for which in (
            Filter(user_id="user-7"),
            Filter(team_id="team-7"),
            Filter(user_id="user-7", team_id="team-7", status="active"),
            *(Filter(status=status) for status in ("active", "expired", "revoked")),
            Filter(key_id=digest("key-7")),
            Filter(alias="alias of x"),
            piece,
        )
    ]
    queries += [page_query(Filter(has_alias=True), Page(number=1, size=50, order="key_alias", descending=False), NOW)]
    queries += [rows_query([digest("key-7")])]
    for query in queries:
        scans = await planner.scans(query)
        assert not {scan for scan in scans if scan[0] == "Seq Scan"}, (str(query), scans)
    assert ("Bitmap Heap Scan", "keys") in await planner.scans(page_query(piece, Page(number=1, size=10), NOW))
    for misses in (1, 20):
        scans = await planner.scans(LOOKUP, key_ids=[digest(f"key-{n}") for n in range(misses)])
        assert {table for _, table in scans} >= {"keys", "former_keys", "users", "teams"}
        assert {table for way, table in scans if way == "Seq Scan"} <= {"team_members"}  # it is empty
