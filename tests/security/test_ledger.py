"""What one client sends does not spoil the rows of others."""

import time
from pathlib import Path

from passthrough.policy.ledger import Entry, uuid7
from passthrough.storage.database import Database
from passthrough.storage.ledger import Ledger
from tests.fakes.running import select

CALLS = 100


def call(number: int, *, metadata: str) -> Entry:
    now = time.time()
    tags = tuple(f"tag-{n}" for n in range(40))
    return Entry(call_id=uuid7(now), started_at=now, key_id="k" * 64, attempt=number, metadata=metadata, tags=tags)


async def test_a_call_that_postgresql_refuses_takes_nothing_from_those_shipped_with_it(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    async with Ledger(tmp_path, database.connect) as ledger:
        for number in range(CALLS):
            ledger.append(call(number, metadata='{"a":"\\u0000"}' if number == 37 else '{"a":"b"}'))
        await ledger.flush(10)
        assert ledger.state().stored_calls == CALLS
        assert ledger.state().rejected_calls == 0
    rows = await select(database_url, "SELECT attempt, metadata, cardinality(tags) AS tags FROM ledger")
    assert len(rows) == CALLS
    for row in rows:
        spoilt = row["attempt"] == 37
        assert (row["metadata"] is None, row["tags"] < 40) == (spoilt, spoilt)
