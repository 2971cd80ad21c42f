"""Tables as CSV, streamed row by row, for those who ask by `Accept: text/csv`."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web

Item = TypeVar("Item", bound=msgspec.Struct)

# A cell that begins like this is a formula to a spreadsheet, and a user agent is whatever somebody sent (OWASP,
# "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def wants_csv(accept: str) -> bool:
    """Say whether the header prefers CSV: it names it, and not JSON before it."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/csv" in named and named.index("text/csv") <= _place(named, "application/json")


def listed(items: list[Item], accept: str) -> list[Item] | web.StreamResponse:
    """Answer with a list, as CSV for those who want it."""
    if not wants_csv(accept) or not items:
        return items
    return table([msgspec.structs.asdict(item) for item in items], type(items[0]).__struct_fields__)


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> web.Response:
    """Answer with a table that is at hand."""

    async def batches() -> AsyncIterator[list[Mapping[str, Any]]]:
        yield list(rows)

    return stream(batches(), columns)


def stream(batches: AsyncIterator[Sequence[Mapping[str, Any]]], columns: Sequence[str]) -> web.Response:
    """Answer with a table of any length; each batch is asked for once the one before is on its way."""

    async def lines() -> AsyncIterator[bytes]:
        yield _lines([columns])
        async for batch in batches:
            yield _lines([_cell(row[name]) for name in columns] for row in batch)

    return web.Response(body=lines(), content_type="text/csv", charset="utf-8")


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:  # whatever a column holds
    if isinstance(value, dict | list):
        value = msgspec.json.encode(value).decode()
    elif hasattr(value, "isoformat"):
        value = value.isoformat()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)
