"""What the ledger costs: an append, the shipper's CPU, transactions and bytes a call.

    uv run python benchmarks/ledger.py [--seconds 20] [--rate 5000]

Starts an embedded PostgreSQL with its usual settings (fsync on) in a temporary directory, appends calls at
the given rate from one process, and reads PostgreSQL's own counters. The shipper's CPU is the process's CPU
time less what the same appends cost without a shipper.
"""

import argparse
import asyncio
import random
import tempfile
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import asyncpg
import uvloop

from passthrough.policy.ledger import Entry, uuid7
from passthrough.storage.database import open_database
from passthrough.storage.embedded import embedded
from passthrough.storage.journal import MIB, Journal
from passthrough.storage.ledger import Ledger
from passthrough.storage.ledger_payloads import payload_of
from passthrough.storage.migrations import migrate

AGENTS = (
    "Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux#6.1.0-18-amd64 md/arch#x86_64 lang/python#3.11.7 Botocore/1.44.5",
    "claude-cli/2.1.3 (external, cli)",
    "aws-sdk-js/3.901.0 ua/2.1 os/linux#6.8.0 lang/js md/nodejs#22.3.0 api/bedrock-runtime#3.901.0",
)
MODELS = ("anthropic.claude-sonnet-4-5-20250929-v1:0", "amazon.nova-lite-v1:0", "meta.llama3-3-70b-instruct-v1:0")


def make_call(number: int) -> Entry:
    """Return one of a mix: 200 keys, 3 models, half of them streams, a third with a session, a fifth tagged."""
    pick = random.Random(number)
    now, key = time.time(), pick.randrange(200)
    model = pick.choice(MODELS)
    return Entry(
        call_id=uuid7(now),
        started_at=now,
        duration_ms=pick.randrange(300, 60_000),
        ttfb_ms=pick.randrange(100, 2000),
        key_id=f"{key:064x}",
        key_alias=f"service-{key}",
        user_id=f"user-{key % 50}@example.com",
        team_id=f"team-{key % 10}",
        end_user=f"customer-{pick.randrange(1000)}" if pick.random() < 0.2 else None,
        tags=("production", "search") if pick.random() < 0.2 else (),
        session_id=str(uuid.UUID(int=pick.getrandbits(128))) if pick.random() < 0.33 else None,
        client_ip=f"10.{key}.12.34",
        user_agent=AGENTS[key % 3],
        service="bedrock-runtime",
        operation="ConverseStream" if number % 2 else "Converse",
        model=f"us.{model}",
        billed_model=model,
        region="us-east-1",
        identity="default",
        status=200,
        upstream_request_id=str(uuid.UUID(int=pick.getrandbits(128))),
        client_invocation_id=str(uuid.UUID(int=pick.getrandbits(128))),
        attempt=1,
        request_bytes=pick.randrange(200, 200_000),
        response_bytes=pick.randrange(200, 90_000),
        input_tokens=pick.randrange(10, 60_000),
        output_tokens=pick.randrange(1, 8000),
        cache_read_tokens=pick.randrange(0, 60_000),
        usage_source="stream" if number % 2 else "body",
        cost=Decimal(pick.randrange(1, 10**9)) / 10**9,
        price_status="priced",
        stream=bool(number % 2),
    )


def append_cost(directory: Path, calls: list[Entry]) -> float:
    """µs of one thread for an append, encoding included."""
    journal = Journal(directory, name="bench", max_bytes=1024 * MIB)
    began = time.thread_time()
    for call in calls:
        journal.append(payload_of(call))
    spent = time.thread_time() - began
    journal.close()
    return spent / len(calls) * 1e6


async def at_rate(rate: int, seconds: float, calls: list[Entry], take: Callable[[Entry], None]) -> float:
    """Hand the calls over as they would come in, every 10 ms a few; return the CPU seconds of this process."""
    began, cpu, given = time.monotonic(), time.process_time(), 0
    while given < rate * seconds:
        due = min(len(calls), int((time.monotonic() - began) * rate) + 1)
        for call in calls[given:due]:
            take(call)
        given = due
        await asyncio.sleep(0.01)
    return time.process_time() - cpu


async def measure(url: str, directory: Path, rate: int, seconds: float) -> None:
    await migrate(url)
    calls = [make_call(number) for number in range(int(rate * seconds))]
    print(f"append: {append_cost(directory / 'append', calls[:50_000]):.2f} µs of CPU a call")

    journal = Journal(directory / "alone", name="bench", max_bytes=1024 * MIB)
    alone = await at_rate(rate, seconds, calls, lambda call: journal.append(payload_of(call)))
    connection = await asyncpg.connect(url)
    async with open_database(url) as database, Ledger(directory / "shipped", database.connect) as ledger:
        before = await transactions(connection)
        cpu = await at_rate(rate, seconds, calls, ledger.append)
        behind = time.monotonic()
        tail = time.process_time()
        await ledger.flush(60)
        cpu += time.process_time() - tail
        behind = time.monotonic() - behind
        after = await transactions(connection)
    rows = await connection.fetchval("SELECT count(*) FROM ledger_calls")
    assert rows == len(calls), rows
    spent = cpu - alone
    print(f"shipper: {spent / rows * 1e9 / 1000:.1f} ms of CPU for 1,000 calls, {spent / seconds:.1%} of one core")
    print(f"transactions: {(after - before) / seconds:.1f} a second at {rate} calls a second")
    print(f"behind at the end: {behind:.2f} s")
    await sizes(connection, rows)
    await connection.close()


async def transactions(connection: asyncpg.Connection) -> int:
    await asyncio.sleep(1.2)  # PostgreSQL's counters are published at most once a second
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return int(await connection.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"))


async def sizes(connection: asyncpg.Connection, rows: int) -> None:
    row = await connection.fetchval("SELECT avg(pg_column_size(c.*)) FROM ledger_calls c")
    total = await connection.fetchval(
        "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'ledger_calls'::regclass"
    )
    print(f"a row: {row:.0f} bytes, {total / rows:.0f} with its share of pages and indexes")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the ledger.")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=5000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, embedded(Path(name) / "postgres") as url:
        uvloop.run(measure(url, Path(name), options.rate, options.seconds))


if __name__ == "__main__":
    main()
