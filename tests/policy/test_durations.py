"""Lifetimes count from now; budget windows end with the calendar, as LiteLLM's do."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.errors import Refusal
from passthrough.policy.durations import PATTERN, after, parse, window_end

WEDNESDAY = datetime(2026, 11, 18, 13, 45, 30, 500_000, UTC)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("30s", WEDNESDAY + timedelta(seconds=30)),
        ("15m", WEDNESDAY + timedelta(minutes=15)),
        ("24h", WEDNESDAY + timedelta(hours=24)),
        ("7d", WEDNESDAY + timedelta(days=7)),
        ("2w", WEDNESDAY + timedelta(days=14)),
        ("1mo", WEDNESDAY.replace(month=12)),
        ("3mo", WEDNESDAY.replace(year=2027, month=2)),
    ],
)
def test_a_lifetime_is_counted_from_now(text: str, end: datetime) -> None:
    assert after(WEDNESDAY, text, param="duration") == end


def test_a_month_that_lacks_the_day_ends_with_its_last() -> None:
    assert after(datetime(2027, 1, 31, tzinfo=UTC), "1mo", param="duration") == datetime(2027, 2, 28, tzinfo=UTC)
    assert after(datetime(2028, 1, 31, tzinfo=UTC), "1mo", param="duration") == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("1d", datetime(2026, 11, 19, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 23, tzinfo=UTC)),  # Monday
        ("1w", datetime(2026, 11, 23, tzinfo=UTC)),
        ("30d", datetime(2026, 12, 1, tzinfo=UTC)),
        ("1mo", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2mo", datetime(2027, 1, 1, tzinfo=UTC)),
        ("3d", datetime(2026, 11, 21, tzinfo=UTC)),
        ("1h", datetime(2026, 11, 18, 14, tzinfo=UTC)),
        ("24h", datetime(2026, 11, 19, 13, tzinfo=UTC)),
        ("1m", datetime(2026, 11, 18, 13, 46, tzinfo=UTC)),
        ("30s", datetime(2026, 11, 18, 13, 46, tzinfo=UTC)),
    ],
)
def test_a_budgets_window_ends_with_the_calendar(text: str, end: datetime) -> None:
    assert window_end(WEDNESDAY, text) == end


def test_a_week_that_begins_now_ends_in_a_week() -> None:
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    assert window_end(monday, "7d") == monday + timedelta(days=7)


# Hypothesis wants the bounds of zoned times without a zone.
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # see above


@given(st.from_regex(PATTERN, fullmatch=True), MOMENTS)
def test_every_duration_that_is_written_so_ends_and_later_than_it_began(text: str, start: datetime) -> None:
    assert after(start, text, param="duration") > start
    assert window_end(start, text) > start


@pytest.mark.parametrize(
    "text", ["", "d", "1", "0d", "-1d", "1.5h", "1y", "1 d", "\uff11d", "1d\n", "1D", "9" * 20 + "d"]
)
def test_what_is_no_duration_is_a_400_that_names_the_field(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse(text, param="grace_period")
    assert (refused.value.status, refused.value.param) == (400, "grace_period")
