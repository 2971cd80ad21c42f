"""Reports over days: /global/spend/… and /global/activity. Read from roll-ups, shaped as LiteLLM shapes them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from itertools import groupby
from typing import Any

from aiohttp import web

from passthrough.admin import spend_span
from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas.spans import SpanQuery, TopQuery
from passthrough.admin.schemas.spend import (
    ActivityDay,
    GlobalActivity,
    GlobalEndUser,
    GlobalKey,
    GlobalModel,
    GlobalTags,
    GlobalTeams,
    ReportQuery,
    TagTotal,
    TeamTotal,
)
from passthrough.admin.spend_csv import listed, table, wants_csv
from passthrough.storage import reports
from passthrough.storage.database import Database
from passthrough.storage.reports import Row, Span
from passthrough.storage.schema_ledger import SUM_COLUMNS

Report = list[dict[str, Any]]


class ReportRoutes:
    """Requests for sums."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        routes: Sequence[tuple[str, Any, Any, Any, str]] = (
            ("/global/spend/report", self.report, ReportQuery, Report, "Spend by day and team, key, user…"),
            ("/global/spend/keys", self.keys, TopQuery, list[GlobalKey], "The dearest keys."),
            ("/global/spend/models", self.models, TopQuery, list[GlobalModel], "The dearest models."),
            ("/global/spend/teams", self.teams, TopQuery, GlobalTeams, "Teams, by day and in all."),
            ("/global/spend/end_users", self.end_users, TopQuery, list[GlobalEndUser], "The dearest customers."),
            ("/global/spend/tags", self.global_tags, TopQuery, GlobalTags, "The dearest tags."),
            ("/global/activity", self.activity, SpanQuery, GlobalActivity, "Calls and tokens by day."),
        )
        return [
            Endpoint(method="GET", path=path, handle=handle, query=query, answer=answer, summary=summary)
            for path, handle, query, answer, summary in routes
        ]

    async def report(self, asked: Asked) -> Report | web.StreamResponse:
        by, span = asked.query.group_by, self._span(asked)
        rows = await self._report_rows(by, span)
        if wants_csv(asked.accept):
            return table(rows, tuple(rows[0]) if rows else ("day", *SUM_COLUMNS))
        return _by_key(rows) if by == "api_key" else _by_day(rows, by)

    async def _report_rows(self, by: str, span: Span) -> list[Row]:
        if by in {"customer", "tag"}:
            label: reports.Label = "customer" if by == "customer" else "tag"
            return await reports.label_sums(self._database, span, label, ("day", "value", "model"))
        subjects: dict[str, tuple[reports.Dimension, ...]] = {
            "team": ("day", "team_id", "model", "key_id"),
            "user": ("day", "user_id", "model", "key_id"),
            "api_key": ("key_id", "model"),
            "model": ("day", "model", "key_id"),
        }
        return await reports.sums(self._database, span, subjects[by])

    async def keys(self, asked: Asked) -> list[GlobalKey] | web.StreamResponse:
        rows = await reports.sums(self._database, self._span(asked), ("key_id",), limit=asked.query.limit)
        names = await reports.key_names(self._database, [row["key_id"] for row in rows])
        spent = [
            GlobalKey(
                api_key=row["key_id"],
                key_alias=names[row["key_id"]].key_alias,
                key_name=names[row["key_id"]].key_name,
                total_spend=row["spend"],
            )
            for row in rows
            if row["key_id"]
        ]
        return listed(spent, asked.accept)

    async def models(self, asked: Asked) -> list[GlobalModel] | web.StreamResponse:
        rows = await reports.sums(self._database, self._span(asked), ("model",), limit=asked.query.limit)
        spent = [GlobalModel(model=row["model"], total_spend=row["spend"]) for row in rows if row["model"]]
        return listed(spent, asked.accept)

    async def teams(self, asked: Asked) -> GlobalTeams | web.StreamResponse:
        rows = [
            row for row in await reports.sums(self._database, self._span(asked), ("day", "team_id")) if row["team_id"]
        ]
        if wants_csv(asked.accept):
            return table(rows, ("day", "team_id", *SUM_COLUMNS))
        totals: defaultdict[str, Decimal] = defaultdict(Decimal)
        daily: dict[date, dict[str, Any]] = {}
        for row in rows:
            totals[row["team_id"]] += row["spend"]
            daily.setdefault(row["day"], {"date": row["day"].isoformat()})[row["team_id"]] = row["spend"]
        dearest = sorted(totals, key=lambda team: (-totals[team], team))[: asked.query.limit]
        return GlobalTeams(
            daily_spend=list(daily.values()),
            teams=dearest,
            total_spend_per_team=[TeamTotal(team_id=team, total_spend=totals[team]) for team in dearest],
        )

    async def end_users(self, asked: Asked) -> list[GlobalEndUser] | web.StreamResponse:
        rows = await reports.label_sums(
            self._database, self._span(asked), "customer", ("value",), limit=asked.query.limit
        )
        spent = [
            GlobalEndUser(end_user=row["value"], total_count=row["calls"], total_spend=row["spend"]) for row in rows
        ]
        return listed(spent, asked.accept)

    async def global_tags(self, asked: Asked) -> GlobalTags | web.StreamResponse:
        rows = await reports.label_sums(self._database, self._span(asked), "tag", ("value",), limit=asked.query.limit)
        if wants_csv(asked.accept):
            return table(rows, ("value", *SUM_COLUMNS))
        return GlobalTags(
            spend_per_tag=[TagTotal(name=row["value"], spend=row["spend"], log_count=row["calls"]) for row in rows]
        )

    async def activity(self, asked: Asked) -> GlobalActivity | web.StreamResponse:
        rows = await reports.sums(self._database, self._span(asked), ("day",))
        if wants_csv(asked.accept):
            return table(rows, ("day", *SUM_COLUMNS))
        daily = [
            ActivityDay(date=row["day"].isoformat(), api_requests=row["calls"], total_tokens=tokens(row))
            for row in rows
        ]
        return GlobalActivity(
            daily_data=daily,
            sum_api_requests=sum(day.api_requests for day in daily),
            sum_total_tokens=sum(day.total_tokens for day in daily),
        )

    def _span(self, asked: Asked) -> Span:
        return spend_span.days(asked.query.start_date, asked.query.end_date, self._clock())


def tokens(row: Row) -> int:
    """Every token of a row of sums, cached ones included."""
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    return sum(row[name] for name in names)


def _by_day(rows: list[Row], by: str) -> Report:
    """LiteLLM's shape for teams and customers: a day, its subjects, and of what their spend is made."""
    subject, plural, name = _SHAPES[by]
    report = []
    for day, of_day in groupby(rows, key=lambda row: row["day"]):
        parts: defaultdict[str, list[Row]] = defaultdict(list)
        for row in of_day:
            parts[row[subject]].append(row)
        subjects = [
            {
                name: value,
                "total_spend": sum(row["spend"] for row in found),
                "metadata": [_part(row) for row in found],
            }
            for value, found in parts.items()
        ]
        report.append({"group_by_day": f"{day.isoformat()}T00:00:00+00:00", plural: subjects})
    return report


_SHAPES = {
    "team": ("team_id", "teams", "team_name"),
    "user": ("user_id", "users", "user"),
    "customer": ("value", "customers", "customer"),
    "tag": ("value", "tags", "tag"),
    "model": ("model", "models", "model"),
}


def _part(row: Row) -> dict[str, Any]:
    shown = {"model": row["model"], "spend": row["spend"], "total_tokens": tokens(row)}
    return {**shown, "api_key": row["key_id"]} if "key_id" in row else shown


def _by_key(rows: list[Row]) -> Report:
    """LiteLLM's shape for keys: no days, a key's sums and its models."""
    parts: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[row["key_id"]].append(row)
    return [
        {"api_key": key_id, **_key_sums(found), "model_details": [_model(row) for row in found]}
        for key_id, found in parts.items()
    ]


def _model(row: Row) -> dict[str, Any]:
    return {"model": row["model"], **_key_sums([row])}


def _key_sums(rows: list[Row]) -> dict[str, Any]:
    return {
        "total_cost": sum(row["spend"] for row in rows),
        "total_input_tokens": sum(tokens(row) - row["output_tokens"] for row in rows),
        "total_output_tokens": sum(row["output_tokens"] for row in rows),
    }
