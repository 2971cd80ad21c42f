"""Durations as LiteLLM writes them: `30s`, `15m`, `24h`, `7d`, `2w`, `1mo`; and when a budget's window ends.

A lifetime is counted from now. A budget's window snaps to the calendar (in UTC), as LiteLLM's do: its users
expect a daily budget to be full again at midnight, a weekly one on Monday, a monthly one on the first.
"""

import re
from calendar import monthrange
from datetime import datetime, timedelta
from typing import Final

from passthrough.errors import invalid

# As many digits as end some 2,800 years from now at the latest: a datetime ends with the year 9999.
PATTERN: Final = (
    "[1-9][0-9]{0,8}s|[1-9][0-9]{0,7}m|[1-9][0-9]{0,6}h|[1-9][0-9]{0,5}d|[1-9][0-9]{0,4}w|[1-9][0-9]{0,3}mo"
)
_DURATION: Final = re.compile(PATTERN)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse(text: str, *, param: str) -> tuple[int, str]:
    """Read `30d` as (30, "d"); raises a 400 that names `param`."""
    if _DURATION.fullmatch(text) is None:
        raise invalid(
            f"'{param}' is not a duration: write a number and one of s, m, h, d, w, mo, such as 30d.", param=param
        )
    count = text.rstrip("smhdwo")
    return int(count), text[len(count) :]


def after(start: datetime, text: str, *, param: str) -> datetime:
    """`start` plus a duration; a month keeps the day of the month where the month has it."""
    count, unit = parse(text, param=param)
    return _months_after(start, count) if unit == "mo" else start + timedelta(seconds=count * _SECONDS[unit])


def window_end(now: datetime, text: str, *, param: str = "budget_duration") -> datetime:
    """When the budget window that holds `now` ends, on the grid of its unit: `24h` at a full hour, `1d` at midnight.

    A week ends on Monday and a month on the first; `7d` and `30d` are LiteLLM's other names for the two.
    """
    count, unit = parse(text, param=param)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    match (count, unit):
        case (7, "d") | (1, "w"):
            return midnight + timedelta(days=7 - midnight.weekday())
        case (30, "d"):
            return _months_after(midnight.replace(day=1), 1)
        case (_, "mo"):
            start = midnight.replace(day=1)
        case (_, "d" | "w"):
            start = midnight
        case (_, "h"):
            start = now.replace(minute=0, second=0, microsecond=0)
        case (_, "m"):
            start = now.replace(second=0, microsecond=0)
        case _:
            start = now.replace(microsecond=0)
    return after(start, text, param=param)


def _months_after(start: datetime, months: int) -> datetime:
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    return start.replace(year=year, month=month + 1, day=min(start.day, monthrange(year, month + 1)[1]))
