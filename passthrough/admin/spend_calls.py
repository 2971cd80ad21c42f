"""Reading calls: /spend/logs and /spend/logs/v2. A virtual key sees its own, the administrator all."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
from aiohttp import web

from passthrough.admin import spend_span
from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas.calls import CallPage, CallRow, CallsQuery, LogsQuery, SpendDay, SpendLog
from passthrough.admin.spend_csv import stream, table, wants_csv
from passthrough.errors import forbidden, invalid
from passthrough.policy.keys import key_id_of
from passthrough.storage import ledger_rows, reports
from passthrough.storage.database import Database
from passthrough.storage.ledger_rows import Row, Wanted
from passthrough.storage.schema_ledger import SUM_COLUMNS

_MOST_LOGS = 10_000  # LiteLLM's bound on what /spend/logs gives at once; /spend/logs/v2 has pages
_COLUMNS = CallRow.__struct_fields__


class CallRoutes:
    """Requests about calls."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET",
                path="/spend/logs/v2",
                handle=self.page,
                query=CallsQuery,
                answer=CallPage,
                access="own",
                summary="Calls, newest first, a page at a time; with Accept: text/csv all of them, streamed.",
            ),
            Endpoint(
                method="GET",
                path="/spend/logs",
                handle=self.logs,
                query=LogsQuery,
                answer=list[dict[str, Any]],  # SpendLog or SpendDay: a schema cannot have either list
                access="own",
                summary="Calls, newest first, at most 10,000; between two dates sums by day, unless told otherwise.",
            ),
        ]

    async def page(self, asked: Asked) -> CallPage | web.StreamResponse:
        query: CallsQuery = asked.query
        wanted = await self._wanted(asked)
        if wants_csv(asked.accept):
            return stream(ledger_rows.every(self._database, wanted), _COLUMNS)
        if query.cursor is not None:
            rows = await ledger_rows.after(self._database, wanted, cursor=str(query.cursor), limit=query.page_size)
            return _page(rows, query.page_size)
        offset = (query.page - 1) * query.page_size
        rows, total = await ledger_rows.page(self._database, wanted, offset=offset, limit=query.page_size)
        page = _page(rows, query.page_size)
        page.page, page.total, page.total_pages = query.page, total, -(-total // query.page_size)
        return page

    async def logs(self, asked: Asked) -> list[SpendLog] | list[SpendDay] | web.StreamResponse:
        query: LogsQuery = asked.query
        if query.summarize and query.start_date and query.end_date and query.request_id is None:
            return await self._by_day(asked)
        span = spend_span.days(query.start_date, query.end_date, self._clock())
        since, until = spend_span.moments(
            query.start_date or span.first.isoformat(), query.end_date or span.last.isoformat()
        )
        wanted = Wanted(
            since=0 if query.request_id else since,
            until=until + timedelta(days=1).total_seconds() if query.request_id else until,
            key_ids=await self._key_ids(asked, query.api_key),
            user_id=query.user_id,
            call_id=str(query.request_id) if query.request_id else None,
        )
        if wants_csv(asked.accept):
            return stream(_as_logs(ledger_rows.every(self._database, wanted)), SpendLog.__struct_fields__)
        rows = await ledger_rows.after(self._database, wanted, cursor=None, limit=_MOST_LOGS)
        return [msgspec.convert(_as_log(row), SpendLog) for row in rows]

    async def _by_day(self, asked: Asked) -> list[SpendDay] | web.StreamResponse:
        query: LogsQuery = asked.query
        span = spend_span.days(query.start_date, query.end_date, self._clock())
        only = {"key_id": await self._key_ids(asked, query.api_key), "user_id": query.user_id and [query.user_id]}
        span = replace(span, only={name: values for name, values in only.items() if values})
        rows = await reports.sums(self._database, span, ("day", "user_id", "model"))
        if wants_csv(asked.accept):
            return table(rows, ("day", "user_id", "model", *SUM_COLUMNS))
        days: dict[str, SpendDay] = {}
        for row in rows:
            day = days.setdefault(row["day"].isoformat(), _empty_day(row["day"].isoformat()))
            day.spend += row["spend"]
            day.users[row["user_id"]] += row["spend"]
            day.models[row["model"]] += row["spend"]
        return list(days.values())

    async def _wanted(self, asked: Asked) -> Wanted:
        query: CallsQuery = asked.query
        since, until = spend_span.moments(query.start_date, query.end_date)
        status = query.status or query.status_filter
        if query.call_id and query.request_id and query.call_id != query.request_id:
            raise invalid("The call_id and the request_id differ: give one of them.", param="request_id")
        call_id = query.call_id or query.request_id
        return Wanted(
            since=since,
            until=until,
            key_ids=await self._key_ids(asked, query.api_key),
            key_alias=query.key_alias,
            user_id=query.user_id,
            team_id=query.team_id,
            end_user=query.end_user,
            model=query.model,
            status=int(status) if status and status.isdecimal() else None,
            failed=status == "failure" if status in {"success", "failure"} else None,
            call_id=str(call_id) if call_id else None,
            session_id=query.session_id,
            tag=query.tag,
            least_cost=Decimal(query.min_spend) if query.min_spend else None,
            most_cost=Decimal(query.max_spend) if query.max_spend else None,
        )

    async def _key_ids(self, asked: Asked, named: str | None) -> list[str] | None:
        return await key_ids(self._database, asked, named)


async def key_ids(database: Database, asked: Asked, named: str | None) -> list[str] | None:
    """Return the digests to keep to: of the key that is named, of the caller if that is no administrator, or None."""
    if not asked.key.is_master:
        if named is not None and key_id_of(named) != asked.key.key_id:
            raise forbidden("A virtual key may only read its own calls: leave 'api_key' out.")
        return await ledger_rows.digests_of(database, asked.key.key_id)
    if named is None:
        return None
    return await ledger_rows.digests_of(database, named if named == asked.key.key_id else key_id_of(named))


def _page(rows: list[Row], size: int) -> CallPage:
    data = [msgspec.convert(row, CallRow) for row in rows]
    following = data[-1].call_id if len(data) == size else None
    return CallPage(data=data, total=None, page=None, page_size=size, total_pages=None, next_cursor=following)


async def _as_logs(batches: AsyncIterator[list[Row]]) -> AsyncIterator[list[Row]]:
    async for batch in batches:
        yield [_as_log(row) for row in batch]


def _as_log(row: Row) -> dict[str, Any]:
    prompt = sum(row[name] or 0 for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens"))
    completion = row["output_tokens"] or 0
    return {
        **row,
        "request_id": row["call_id"],
        "api_key": row["key_id"],
        "user": row["user_id"],
        "spend": row["cost"] or Decimal(0),
        "total_tokens": prompt + completion,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "startTime": row["started_at"],
        "endTime": row["started_at"] + timedelta(milliseconds=row["duration_ms"]),
        "request_tags": row["tags"],
    }


def _empty_day(day: str) -> SpendDay:
    return SpendDay(startTime=day, spend=Decimal(0), users=defaultdict(Decimal), models=defaultdict(Decimal))
