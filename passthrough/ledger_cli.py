"""The ledger from a shell: what was spent, whether AWS's bill agrees, late prices, old months."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import asyncpg
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from passthrough import bills
from passthrough.bedrock import billing
from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.supplement import entries_of
from passthrough.errors import Refusal, UserError
from passthrough.policy import durations
from passthrough.policy.pricing import Pricing, multipliers_of
from passthrough.settings import Settings, load
from passthrough.storage import ledger_upkeep, reports
from passthrough.storage.database import Database, open_database
from passthrough.storage.embedded import attached
from passthrough.storage.migrations import require_head
from passthrough.storage.reports import Row, Span

app = typer.Typer()
ledger = typer.Typer(help="Look after the ledger.")
app.add_typer(ledger, name="ledger")

Config = Annotated[Path | None, typer.Option(help="A TOML file with settings; the environment comes first.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Result = TypeVar("Result")

_BAR = 30  # characters of the longest bar
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Subject(StrEnum):
    """What spend can be taken apart by."""

    MODEL = "model"
    KEY = "key"
    USER = "user"
    TEAM = "team"
    TAG = "tag"
    CUSTOMER = "customer"
    DAY = "day"


@app.command()
def spend(
    by: Annotated[Subject, typer.Option(help="What to take it apart by.")] = Subject.MODEL,
    since: Annotated[str, typer.Option(help="How many days, today (UTC) included: 7d, 4w, 1mo.")] = "7d",
    json: Json = False,  # noqa: FBT002  # typer's way
    config: Config = None,
) -> None:
    """Show what was spent, from the daily sums."""
    today = datetime.now(UTC).date()
    span = Span(first=min(_days_ago(since, today) + timedelta(days=1), today), last=today)
    rows = _with_database(load(config=config), lambda database: _spent(database, by, span))
    if json:
        typer.echo(_encode(rows).decode())
    else:
        Console().print(_spend_table(rows, by, span))


@app.command()
def reconcile(
    files: Annotated[
        list[Path],
        typer.Argument(help="A Cost and Usage Report, CUR 2.0: files or folders, Parquet, CSV or gzip'd CSV."),
    ],
    match: Annotated[
        list[str] | None, typer.Option(help="AWS's name of a model and our id of it: 'Titan Text=amazon.titan-…'.")
    ] = None,
    json: Json = False,  # noqa: FBT002  # typer's way
    config: Config = None,
) -> None:
    """Hold the ledger against AWS's bill, by day and model."""
    theirs = bills.read(files)
    if not theirs:
        raise UserError(
            f"{', '.join(map(str, files))} has no usage of Bedrock in it: export the month that you want to compare."
        )
    span = Span(first=min(day for day, _ in theirs), last=max(day for day, _ in theirs))
    rows = _with_database(load(config=config), lambda database: reports.sums(database, span, ("day", "model")))
    ours = {(row["day"], row["model"]): row["spend"] for row in rows if row["spend"]}
    differences = billing.compare(ours, theirs, _same(match or []))
    if json:
        lines = [_plain(each) for each in differences]
        typer.echo(_encode(lines).decode())
    else:
        Console().print(_bill_table(differences))


@app.command()
def reprice(
    since: Annotated[str, typer.Option(help="How far back, in days: 7d, 4w, 1mo.")] = "30d",
    config: Config = None,
) -> None:
    """Price the calls whose model was unknown, after its price was added."""
    settings = load(config=config)
    first = datetime.combine(_days_ago(since, datetime.now(UTC).date()), datetime.min.time(), UTC)
    price = Pricing(PriceBook(entries_of(settings.prices)), multipliers_of(settings.price_multipliers))

    async def run(connection: asyncpg.Connection) -> ledger_upkeep.Repriced:
        return await ledger_upkeep.reprice(connection, price, first.timestamp())

    done = _with_connection(settings, run)
    typer.echo(f"{done.priced} of {done.unpriced} calls have a price now: ${done.cost.normalize():f} in all.")


@ledger.command()
def prune(
    older_than: Annotated[str, typer.Option(help="What to drop, in days: 90d, 12w, 6mo; whole months go.")],
    sums_older_than: Annotated[
        str | None, typer.Option(help="Drop daily sums too, those older than this: 24mo; whole months go.")
    ] = None,
    config: Config = None,
) -> None:
    """Drop the months of calls that are older, and if asked the daily sums; counters stay."""
    today = datetime.now(UTC).date()
    keep_from = _days_ago(older_than, today)
    sums_from = _days_ago(sums_older_than, today) if sums_older_than else None
    if sums_from is not None and sums_from > keep_from:
        raise UserError("Daily sums are kept as long as their calls: --sums-older-than is at least --older-than.")

    async def run(connection: asyncpg.Connection) -> tuple[ledger_upkeep.Pruned, int | None]:
        gone = await ledger_upkeep.prune(connection, keep_from)
        return gone, None if sums_from is None else await ledger_upkeep.prune_sums(connection, sums_from)

    try:
        gone, sums = _with_connection(load(config=config), run)
    except asyncpg.LockNotAvailableError:
        raise UserError("Somebody reads the ledger at the moment: try again when that query has ended.") from None
    names = ", ".join(f"{month:%Y-%m}" for month in gone.months) or "none"
    typer.echo(f"Months dropped: {names}.")
    if sums is not None:
        typer.echo(f"Daily sums dropped: {sums}.")


def _days_ago(text: str, today: date) -> date:
    try:
        count, unit = durations.parse(text, param="since")
    except Refusal as refusal:
        raise UserError(refusal.message) from None
    days = {"d": 1, "w": 7, "mo": 30}.get(unit)
    if days is None:
        raise UserError("The ledger's sums are by day: write 7d, 4w or 1mo.")
    try:
        return today - timedelta(days=count * days)
    except OverflowError:
        raise UserError("That is longer ago than there are years: write a shorter time.") from None


async def _spent(database: Database, by: Subject, span: Span) -> list[Row]:
    match by:
        case Subject.TAG | Subject.CUSTOMER:
            label: reports.Label = "tag" if by is Subject.TAG else "customer"
            return _named(await reports.label_sums(database, span, label, ("value",)), "value")
        case Subject.KEY:
            rows = await reports.sums(database, span, ("key_id",))
            names = await reports.key_names(database, [row["key_id"] for row in rows])
            return [row | {"name": names[row["key_id"]].key_alias or row["key_id"]} for row in rows]
        case Subject.DAY:
            return _named(await reports.sums(database, span, ("day",)), "day")
        case Subject.MODEL:
            return _named(await reports.sums(database, span, ("model",)), "model")
        case Subject.USER:
            return _named(await reports.sums(database, span, ("user_id",)), "user_id")
        case Subject.TEAM:
            return _named(await reports.sums(database, span, ("team_id",)), "team_id")


def _named(rows: Sequence[Row], column: str) -> list[Row]:
    return [row | {"name": str(row[column])} for row in rows]


def _spend_table(rows: Sequence[Row], by: Subject, span: Span) -> Table:
    table = Table(title=f"Spend by {by}, {span.first} to {span.last} (UTC)")
    table.add_column(by.value.capitalize(), overflow="fold")
    for heading in ("Calls", "Input", "Output", "Cached", "USD"):
        table.add_column(heading, justify="right")
    table.add_column("")
    most = max((row["spend"] for row in rows), default=Decimal(0))
    for row in rows:
        table.add_row(
            row["name"] or "-",
            f"{row['calls']:,}",
            f"{row['input_tokens']:,}",
            f"{row['output_tokens']:,}",
            f"{row['cache_read_tokens'] + row['cache_write_tokens']:,}",
            _usd(row["spend"]) + (f" + {row['unpriced_calls']} unpriced" if row["unpriced_calls"] else ""),
            "█" * int(row["spend"] * _BAR / most) if most else "",
        )
    table.add_section()
    table.add_row("Sum", f"{sum(row['calls'] for row in rows):,}", "", "", "", _usd(sum(r["spend"] for r in rows)), "")
    return table


def _bill_table(differences: Sequence[billing.Difference]) -> Table:
    table = Table(title="Our ledger and AWS's bill, USD before discounts, taxes and credits")
    for heading in ("Day", "Model"):
        table.add_column(heading, overflow="fold")
    for heading in ("Ours", "AWS's", "Difference", "%"):
        table.add_column(heading, justify="right")
    for each in differences:
        share = f"{each.difference / each.theirs:+.1%}" if each.theirs else ""
        sides = ("-" if side is None else _usd(side) for side in (each.ours, each.theirs))
        table.add_row(str(each.day), each.model or "-", *sides, f"{each.difference:+.4f}", share)
    ours = sum((each.ours or Decimal(0) for each in differences), Decimal(0))
    theirs = sum((each.theirs or Decimal(0) for each in differences), Decimal(0))
    table.add_section()
    table.add_row("Sum", "", _usd(ours), _usd(theirs), f"{theirs - ours:+.4f}", "")
    return table


def _usd(amount: Decimal | int) -> str:
    return f"{amount:,.4f}"


def _plain(difference: billing.Difference) -> dict[str, Any]:
    return {
        "day": difference.day,
        "model": difference.model,
        "ours": difference.ours,
        "theirs": difference.theirs,
        "difference": difference.difference,
    }


def _same(pairs: Sequence[str]) -> Mapping[str, str]:
    for pair in pairs:
        if not all(pair.partition("=")):
            raise UserError(f'--match {pair} names no pair: write "AWS\'s name=our model id".')
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}


@contextmanager
def _database_url(settings: Settings) -> Iterator[str]:
    if settings.database_url:
        yield settings.database_url
    else:
        with attached(settings.data_dir) as url:
            yield url


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    async def run(url: str) -> Result:
        await require_head(url)
        async with open_database(url) as database:
            return await work(database)

    with _database_url(settings) as url:
        return asyncio.run(run(url))


def _with_connection(settings: Settings, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
    async def connected(database: Database) -> Result:
        connection = await database.connect(bounded=False)  # upkeep takes as long as the ledger is large
        try:
            return await work(connection)
        finally:
            await connection.close()

    return _with_database(settings, connected)
