"""Reading what was changed, by whom, and from where."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.schemas import accounts as schemas
from passthrough.errors import Refusal, invalid
from passthrough.storage.audit import Seen, page_of_changes
from passthrough.storage.database import Database

_LARGEST_ID = 2**63 - 1


class AuditRoutes:
    """The routes /audit and /audit/{id}."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET",
                path="/audit",
                handle=self.list,
                query=schemas.AuditQuery,
                answer=schemas.AuditList,
                summary="List administrative changes, the newest first, a page at a time.",
            ),
            Endpoint(
                method="GET",
                path="/audit/{id}",
                handle=self.one,
                answer=schemas.AuditRow,
                refuses={404: "There is no such change."},
                summary="Show one administrative change.",
            ),
        ]

    async def list(self, asked: Asked) -> schemas.AuditList:
        query: schemas.AuditQuery = asked.query
        which = Seen(
            equal={
                name: value
                for name in ("changed_by", "action", "table_name", "object_id")
                if (value := getattr(query, name))
            },
            since=_moment(query.start_date, "start_date"),
            before=_moment(query.end_date, "end_date", last=True),
        )
        async with self._database.begin() as connection:
            rows, total = await page_of_changes(
                connection, which, number=query.page, size=query.page_size, descending=query.sort_order == "desc"
            )
        return schemas.AuditList(
            audit_logs=[_row(row) for row in rows],
            total=total,
            page=query.page,
            page_size=query.page_size,
            total_pages=math.ceil(total / query.page_size),
        )

    async def one(self, asked: Asked) -> schemas.AuditRow:
        text = asked.parts["id"]
        identifier = int(text) if text.isascii() and text.isdigit() and len(text) < len(str(_LARGEST_ID)) else 0
        async with self._database.begin() as connection:
            rows, _ = await page_of_changes(connection, Seen(equal={"id": identifier}), number=1, size=1)
        if not rows:
            raise Refusal(404, "", "There is no such change: take an id from /audit.", param="id")
        return _row(rows[0])


def _row(row: Any) -> schemas.AuditRow:
    return msgspec.convert(row, schemas.AuditRow)


def _moment(text: str | None, name: str, *, last: bool = False) -> datetime | None:
    """A date or time, UTC; of a last day its end."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(f"'{name}' is not a date: write YYYY-MM-DD, or with a time.", param=name) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    whole_day = last and len(text) == len("YYYY-MM-DD")
    try:
        return moment + (timedelta(days=1) if whole_day else timedelta(microseconds=1) if last else timedelta(0))
    except OverflowError:
        return None
