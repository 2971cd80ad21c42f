"""What has been spent, by key, user, tag, and in all: /spend/keys, /spend/users, /spend/tags, /global/spend."""

from collections.abc import Callable

from aiohttp import web

from passthrough.admin import spend_span
from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas.spans import SpanQuery
from passthrough.admin.schemas.spend import (
    CountersQuery,
    GlobalSpend,
    KeySpend,
    TagSpend,
    UserSpend,
)
from passthrough.admin.spend_csv import listed
from passthrough.storage import reports
from passthrough.storage.database import Database


class CounterRoutes:
    """Requests for what subjects have spent."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET",
                path="/spend/keys",
                handle=self.keys,
                query=CountersQuery,
                answer=list[KeySpend],
                access="own",
                summary="Keys by what they have spent; a virtual key sees itself.",
            ),
            Endpoint(
                method="GET",
                path="/spend/users",
                handle=self.users,
                query=CountersQuery,
                answer=list[UserSpend],
                summary="Users by what they have spent.",
            ),
            Endpoint(
                method="GET",
                path="/spend/tags",
                handle=self.tags,
                query=SpanQuery,
                answer=list[TagSpend],
                summary="Tags by what calls with them cost.",
            ),
            Endpoint(
                method="GET",
                path="/global/spend",
                handle=self.everything,
                answer=GlobalSpend,
                summary="What everything has cost.",
            ),
        ]

    async def keys(self, asked: Asked) -> list[KeySpend] | web.StreamResponse:
        own = None if asked.key.is_master else asked.key.key_id
        rows = await reports.counters(self._database, "key", subject=own, limit=asked.query.limit)
        names = await reports.key_names(self._database, [row["subject"] for row in rows])
        spent = [
            KeySpend(
                token=row["subject"],
                key_alias=names[row["subject"]].key_alias,
                key_name=names[row["subject"]].key_name,
                user_id=names[row["subject"]].user_id,
                team_id=names[row["subject"]].team_id,
                spend=row["spend"],
                total_spend=row["total_spend"],
                last_active=row["last_active"],
            )
            for row in rows
        ]
        return listed(spent, asked.accept)

    async def users(self, asked: Asked) -> list[UserSpend] | web.StreamResponse:
        query: CountersQuery = asked.query
        rows = await reports.counters(self._database, "user", subject=query.user_id, limit=query.limit)
        spent = [
            UserSpend(
                user_id=row["subject"],
                spend=row["spend"],
                total_spend=row["total_spend"],
                last_active=row["last_active"],
            )
            for row in rows
        ]
        return listed(spent, asked.accept)

    async def tags(self, asked: Asked) -> list[TagSpend] | web.StreamResponse:
        span = spend_span.days(asked.query.start_date, asked.query.end_date, self._clock())
        rows = await reports.label_sums(self._database, span, "tag", ("value",))
        spent = [
            TagSpend(individual_request_tag=row["value"], log_count=row["calls"], total_spend=row["spend"])
            for row in rows
        ]
        return listed(spent, asked.accept)

    async def everything(self, asked: Asked) -> GlobalSpend:  # noqa: ARG002  # the interface of a handler
        return GlobalSpend(spend=await reports.spend_ever(self._database))
