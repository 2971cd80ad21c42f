"""Reading what was changed, by whom, and from where."""

import math
from datetime import datetime, timedelta
from typing import Any

import msgspec

from passthrough.admin.endpoint import Asked, Endpoint
from passthrough.admin.patch import moment
from passthrough.admin.schemas import accounts as schemas
from passthrough.errors import Refusal
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
            since=_since(query.start_date),
            before=_before(query.end_date),
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


def _since(text: str | None) -> datetime | None:
    return moment(text, param="start_date") if text else None


def _before(text: str | None) -> datetime | None:
    """The end of a day, or just after a time: the last date is included."""
    if not text:
        return None
    end = moment(text, param="end_date")
    try:
        return end + (timedelta(days=1) if len(text) == len("YYYY-MM-DD") else timedelta(microseconds=1))
    except OverflowError:
        return None
