import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from passthrough.errors import UserError
from passthrough.ledger_cli import app
from passthrough.policy.ledger import CallIds, Entry
from passthrough.storage import database as database_module
from passthrough.storage.database import open_database
from passthrough.storage.ledger_writer import LedgerWriter

Run = Callable[..., str]
TODAY = datetime.now(UTC).date()
HEADER = (
    "line_item_usage_start_date,line_item_unblended_cost,line_item_usage_type,"
    "line_item_product_code,line_item_line_item_type\n"
)


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("PASSTHROUGH_CONFIG", raising=False)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.output

    return run


def call(cost: str | None = "0.1", *, days_ago: float = 0, **fields: Any) -> Entry:
    moment = time.time() - days_ago * 86400
    known: dict[str, Any] = {
        "key_id": "ab" * 32,
        "team_id": "red",
        "model": "us.amazon.nova-lite-v1:0",
        "billed_model": "amazon.nova-lite-v1:0",
        "region": "us-east-1",
        "input_tokens": 1000,
        "output_tokens": 10,
        "tags": ("a", "b"),
        "cost": Decimal(cost) if cost else None,
        "price_status": "priced" if cost else "unknown_model",
    }
    return Entry(call_id=CallIds()(moment), started_at=moment, **(known | fields))


def record(url: str, *calls: Entry) -> None:
    async def write() -> None:
        async with open_database(url) as database:
            connection = await database.connect()
            writer = LedgerWriter(connection)
            await writer.prepare()
            await writer.write(calls, time.time())
            await connection.close()

    asyncio.run(write())


def test_spend_is_shown_with_bars_and_as_json_with_exact_digits(run: Run, database_url: str) -> None:
    record(database_url, call("0.30000000000000000001"), call("0.1", billed_model="other"), call("9", days_ago=30))
    table = run("spend", "--by", "model", "--since", "7d")
    assert "amazon.nova-lite-v1:0" in table
    assert "0.4000" in table
    bars = [line.count("█") for line in table.splitlines() if "█" in line]
    assert bars == [30, 9]
    rows = json.loads(run("spend", "--by", "team", "--json"), parse_float=Decimal)
    assert [(row["team_id"], row["calls"], row["spend"]) for row in rows] == [
        ("red", 2, Decimal("0.40000000000000000001"))
    ]
    for by in ("key", "user", "tag", "customer", "day"):
        assert "USD" in run("spend", "--by", by)
    assert "1 unpriced" not in table


def test_a_ledger_with_nothing_in_it_is_a_table_with_nothing_in_it(run: Run) -> None:
    assert "Sum" in run("spend")


def test_a_bill_is_held_against_the_ledger(run: Run, database_url: str, tmp_path: Path) -> None:
    record(database_url, call("0.5"))
    bill = tmp_path / "bill.csv"
    lines = HEADER + f"{TODAY}T00:00:00Z,0.6,USE1-NovaLite-input-tokens,AmazonBedrock,Usage\n"
    bill.write_text(lines)
    [row] = json.loads(run("reconcile", str(bill), "--json"), parse_float=Decimal)
    assert (row["model"], row["ours"], row["theirs"], row["difference"]) == (
        "amazon.nova-lite-v1:0",
        Decimal("0.5"),
        Decimal("0.6"),
        Decimal("0.1"),
    )
    (tmp_path / "bill.csv.gz").write_bytes(gzip.compress(lines.encode()))
    table = run("reconcile", str(tmp_path / "bill.csv.gz"))
    assert "+0.1000" in table
    assert "+16.7%" in table
    values = dict(zip(*(line.split(",") for line in lines.splitlines()), strict=True))
    typed: dict[str, list[Any]] = {name: [value] for name, value in values.items()}
    typed["line_item_usage_start_date"] = [datetime.combine(TODAY, datetime.min.time(), UTC)]
    typed["line_item_unblended_cost"] = [0.6]
    month = tmp_path / f"BILLING_PERIOD={TODAY:%Y-%m}"
    month.mkdir()
    parquet.write_table(pa.table(typed), month / "bill-00001.snappy.parquet")
    for places in ([month], [month / "bill-00001.snappy.parquet", month]):
        assert json.loads(run("reconcile", *map(str, places), "--json"), parse_float=Decimal) == [row]
    bill.write_text(lines.replace("NovaLite", "Oddity"))
    [row] = json.loads(run("reconcile", str(bill), "--json", "--match", "Oddity=amazon.nova-lite-v1:0"))
    assert row["model"] == "amazon.nova-lite-v1:0"


def test_a_late_price_is_filled_in(run: Run, database_url: str) -> None:
    record(database_url, call(None), call(None, model="made.up", billed_model="made.up"))
    said = run("reprice", "--since", "1d")
    assert said.startswith("1 of 2 calls have a price now: $0.0000")
    assert run("reprice", "--since", "1d") == "0 of 1 calls have a price now: $0 in all.\n"


def test_old_months_are_dropped(run: Run, database_url: str) -> None:
    record(database_url, call(days_ago=200), call())
    month = TODAY - timedelta(days=200)
    assert run("ledger", "prune", "--older-than", "90d") == f"Months dropped: {month:%Y-%m}.\n"
    assert run("ledger", "prune", "--older-than", "90d") == "Months dropped: none.\n"


def test_old_sums_are_dropped_where_that_is_asked_for(run: Run, database_url: str) -> None:
    record(database_url, call(days_ago=200), call())
    said = run("ledger", "prune", "--older-than", "90d", "--sums-older-than", "120d")
    assert said.splitlines()[1] == "Daily sums dropped: 3."
    assert json.loads(run("spend", "--by", "tag", "--since", "300d", "--json"))[0]["calls"] == 1
    with pytest.raises(UserError, match="as long as their calls"):
        run("ledger", "prune", "--older-than", "90d", "--sums-older-than", "60d")


def test_seven_days_are_seven_with_today(run: Run, database_url: str) -> None:
    record(database_url, *(call(days_ago=days) for days in range(9)))
    days = json.loads(run("spend", "--by", "day", "--since", "7d", "--json"))
    assert [row["day"] for row in days] == [str(TODAY - timedelta(days=ago)) for ago in range(6, -1, -1)]
    assert len(json.loads(run("spend", "--by", "day", "--since", "1d", "--json"))) == 1


def test_a_month_is_dropped_however_long_it_takes(run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record(database_url, call(days_ago=200))
    monkeypatch.setattr(database_module, "_COMMAND_SECONDS", 1.0)
    locked = threading.Event()

    async def read_for_long() -> None:
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE ledger_calls IN ACCESS SHARE MODE")
            locked.set()
            await asyncio.sleep(3)  # less than the 4 s for which prune waits
        await connection.close()

    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(asyncio.run, read_for_long())
        locked.wait(10)
        assert run("ledger", "prune", "--older-than", "90d").startswith("Months dropped: 20")
        reading.result()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("spend", "--since", "yesterday"), "not a duration"),
        (("spend", "--since", "90s"), "by day"),
        (("spend", "--since", "999999d"), "shorter"),
        (("reconcile", "nowhere.csv"), "cannot be read"),
        (("reconcile", "nowhere.parquet"), "cannot be read"),
        (("reconcile", __file__), "lacks the column"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        run(*arguments)
    assert "\n" not in str(raised.value)


def test_files_that_are_all_empty_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bill.parquet").touch()
    for place in (tmp_path / "bill.parquet", tmp_path):
        with pytest.raises(UserError, match=r"bill\.parquet cannot be read, being empty"):
            run("reconcile", str(place))


def test_files_that_are_no_bill_are_refused(run: Run, tmp_path: Path) -> None:
    broken = gzip.compress(HEADER.encode() * 100)
    for name, content in (("cut.gz", broken[:-20]), ("bytes.csv", b"\xff\xfe\xff"), ("empty.csv", HEADER.encode())):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError):
            run("reconcile", str(tmp_path / name))
    (tmp_path / "bill.csv").write_text(HEADER + f"{TODAY},1,USE1-NovaLite-input-tokens,AmazonBedrock,Usage\n")
    with pytest.raises(UserError, match="no pair"):
        run("reconcile", str(tmp_path / "bill.csv"), "--match", "nothing")
