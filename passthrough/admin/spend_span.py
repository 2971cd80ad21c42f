"""Spans of time as queries write them, in UTC."""

from datetime import UTC, date, datetime, timedelta

from passthrough.errors import Refusal, invalid
from passthrough.storage.reports import Span

DEFAULT_DAYS = 30  # LiteLLM's own default for its reports
_LONGEST_DAYS = 3660  # ten years; an answer by day must end


def moments(start: str, end: str) -> tuple[float, float]:
    """Read two dates, `YYYY-MM-DD` or `YYYY-MM-DD HH:MM:SS`: the end's whole day, or second, is included.

    Return seconds since 1970, the second not included.
    """
    since, until = _read(start, "start_date"), _read(end, "end_date")
    until += timedelta(days=1) if _is_day(end) else timedelta(seconds=1)
    if until <= since:
        raise _backwards()
    return since.timestamp(), until.timestamp()


def days(start: str | None, end: str | None, now: float) -> Span:
    """Read the days of a report; what is missing is found from the other date or from today."""
    last = _read(end, "end_date").date() if end else datetime.fromtimestamp(now, UTC).date()
    first = _read(start, "start_date").date() if start else max(last - timedelta(days=DEFAULT_DAYS), date(1970, 1, 1))
    if first > last:
        raise _backwards()
    if (last - first).days > _LONGEST_DAYS:
        raise invalid(f"The span is longer than {_LONGEST_DAYS} days: ask for less at once.", param="start_date")
    return Span(first=first, last=last)


def _read(text: str, param: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise invalid(f"The {param} is in no calendar: {text} does not exist.", param=param) from None


def _is_day(text: str) -> bool:
    return len(text) == len("2026-01-31")


def _backwards() -> Refusal:
    return invalid("The end_date lies before the start_date: exchange them.", param="end_date")
