"""/user/daily/activity and /team/daily/activity: days with their sums, taken apart by model, key and owner."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any, Literal

from aiohttp import web

from passthrough.admin import spend_span
from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas.spend import (
    ActivityQuery,
    Breakdown,
    DailyActivity,
    DailyActivityDay,
    DailyActivityTotals,
    Metrics,
    Part,
)
from passthrough.admin.spend_calls import key_ids
from passthrough.admin.spend_csv import table, wants_csv
from passthrough.storage import reports
from passthrough.storage.database import Database
from passthrough.storage.reports import KeyName, Row, Span
from passthrough.storage.schema_ledger import SUM_COLUMNS

Owner = Literal["user_id", "team_id"]


class ActivityRoutes:
    """Requests for daily activity."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET",
                path=path,
                handle=handle,
                query=ActivityQuery,
                answer=DailyActivity,
                access="own",
                summary=f"Days by model, key and {noun}; a virtual key sees its own part.",
            )
            for path, handle, noun in (
                ("/user/daily/activity", self.users, "user"),
                ("/team/daily/activity", self.teams, "team"),
            )
        ]

    async def users(self, asked: Asked) -> DailyActivity | web.StreamResponse:
        return await self._days(asked, "user_id")

    async def teams(self, asked: Asked) -> DailyActivity | web.StreamResponse:
        return await self._days(asked, "team_id")

    async def _days(self, asked: Asked, owner: Owner) -> DailyActivity | web.StreamResponse:
        query: ActivityQuery = asked.query
        span = await self._span(asked)
        if wants_csv(asked.accept):
            rows = await reports.sums(self._database, span, ("day", owner, "key_id", "model"))
            return table(rows, ("day", owner, "key_id", "model", *SUM_COLUMNS))
        totals = await reports.sums(self._database, span, ("day",))
        days = [row["day"] for row in reversed(totals)][(query.page - 1) * query.page_size :][: query.page_size]
        rows = []
        if days:
            shown = replace(span, first=days[-1], last=days[0])
            rows = await reports.sums(self._database, shown, ("day", owner, "key_id", "model"))
        names = await reports.key_names(self._database, sorted({row["key_id"] for row in rows}))
        by_day: defaultdict[date, list[Row]] = defaultdict(list)
        for row in rows:
            by_day[row["day"]].append(row)
        return DailyActivity(
            results=[_day(day, by_day[day], owner, names) for day in days],
            metadata=_totals(totals, query.page, -(-len(totals) // query.page_size)),
        )

    async def _span(self, asked: Asked) -> Span:
        query: ActivityQuery = asked.query
        only = {
            "key_id": await key_ids(self._database, asked, query.api_key),
            "user_id": [query.user_id] if query.user_id is not None else None,
            "team_id": query.team_ids.split(",") if query.team_ids is not None else None,
            "model": [query.model] if query.model is not None else None,
        }
        span = spend_span.days(query.start_date, query.end_date, self._clock())
        return replace(span, only={name: values for name, values in only.items() if values is not None})


def _day(day: date, rows: Iterable[Row], owner: Owner, names: Mapping[str, KeyName]) -> DailyActivityDay:
    whole = Metrics()
    models: defaultdict[str, Metrics] = defaultdict(Metrics)
    keys: defaultdict[str, Metrics] = defaultdict(Metrics)
    owners: defaultdict[str, Metrics] = defaultdict(Metrics)
    for row in rows:
        for metrics in (whole, models[row["model"]], keys[row["key_id"]], owners[row[owner]]):
            _add(metrics, row)
    return DailyActivityDay(
        date=day.isoformat(),
        metrics=whole,
        breakdown=Breakdown(
            models=_parts(models),
            api_keys={key: Part(metrics=metrics, metadata=_shown(names[key])) for key, metrics in keys.items()},
            entities=_parts(owners),
        ),
    )


def _parts(metrics: Mapping[str, Metrics]) -> dict[str, Part]:
    return {name: Part(metrics=each) for name, each in metrics.items()}


def _shown(name: KeyName) -> dict[str, str | None]:
    return {"key_alias": name.key_alias, "team_id": name.team_id}


def _add(metrics: Metrics, row: Row) -> None:
    prompt = row["input_tokens"] + row["cache_read_tokens"] + row["cache_write_tokens"]
    metrics.spend += row["spend"]
    metrics.prompt_tokens += prompt
    metrics.completion_tokens += row["output_tokens"]
    metrics.cache_read_input_tokens += row["cache_read_tokens"]
    metrics.cache_creation_input_tokens += row["cache_write_tokens"]
    metrics.total_tokens += prompt + row["output_tokens"]
    metrics.successful_requests += row["calls"] - row["failed_calls"]
    metrics.failed_requests += row["failed_calls"]
    metrics.api_requests += row["calls"]


def _totals(rows: Iterable[Row], page: int, pages: int) -> DailyActivityTotals:
    whole = Metrics()
    for row in rows:
        _add(whole, row)
    named: dict[str, Any] = {f"total_{name}": getattr(whole, name) for name in Metrics.__struct_fields__}
    named["total_tokens"] = named.pop("total_total_tokens")
    return DailyActivityTotals(**named, page=page, total_pages=pages, has_more=page < pages)
