from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.policy.allowances import (
    Kind,
    Limit,
    dollars,
    inherited,
    limits_of,
    merged,
    ordered,
    picodollars,
    picodollars_up,
    window,
)

DOLLAR = 10**12


def read(**fields: Any) -> list[tuple[str, str, str, int]]:
    return [(limit.field, limit.period, limit.model, limit.most) for limit in limits_of("key", "k", fields)]


def test_litellms_fields_are_limits() -> None:
    assert read(
        rpm_limit=1,
        tpm_limit=2,
        tpd_limit=3,
        max_parallel_requests=4,
        model_rpm_limit={"a.*": 5, "gone": None},
        model_tpm_limit={"bedrock/a.b": 6},
        max_budget=Decimal("0.07"),
        budget_duration="30d",
        budget_limits=[{"budget_duration": "1d", "max_budget": 0.08}],
        model_max_budget={"m": {"max_budget": 9, "budget_duration": "7d", "rpm_limit": 10}, "n": 11.0},
    ) == [
        ("rpm_limit", "1m", "", 1),
        ("tpm_limit", "1m", "", 2),
        ("tpd_limit", "1d", "", 3),
        ("max_parallel_requests", "", "", 4),
        ("model_rpm_limit", "1m", "a.*", 5),
        ("model_tpm_limit", "1m", "a.b", 6),
        ("max_budget", "30d", "", 7 * DOLLAR // 100),
        ("budget_limits", "1d", "", 8 * DOLLAR // 100),
        ("model_max_budget", "7d", "m", 9 * DOLLAR),
        ("model_max_budget", "1m", "m", 10),
        ("model_max_budget", "", "n", 11 * DOLLAR),
    ]


def test_what_is_absent_or_null_limits_nothing_and_zero_limits_all() -> None:
    assert read(rpm_limit=None, model_max_budget={}, budget_limits=None, temp_budget_increase=5) == []
    assert read(rpm_limit=0, max_budget=0) == [("rpm_limit", "1m", "", 0), ("max_budget", "", "", 0)]


def test_of_two_amounts_for_one_window_the_smaller_binds_and_the_warning_stays() -> None:
    windows = [{"budget_duration": "1d", "max_budget": 4}, {"budget_duration": "1d", "max_budget": 6}]
    (limit,) = limits_of(
        "key", "k", {"max_budget": 5, "soft_budget": 2, "budget_duration": "1d", "budget_limits": windows}
    )
    assert (limit.most, limit.soft, limit.field) == (4 * DOLLAR, 2 * DOLLAR, "budget_limits")


def test_a_soft_budget_alone_refuses_nobody() -> None:
    (limit,) = limits_of("key", "k", {"soft_budget": 2.5})
    assert (limit.most, limit.soft, limit.shadow) == (25 * DOLLAR // 10, 25 * DOLLAR // 10, True)


def test_what_refuses_nobody_takes_no_place_of_what_does() -> None:
    windows = [{"budget_duration": "1d", "max_budget": 10}]
    (limit,) = limits_of("key", "k", {"soft_budget": 5, "budget_duration": "1d", "budget_limits": windows})
    assert (limit.most, limit.soft, limit.shadow) == (10 * DOLLAR, 5 * DOLLAR, False)
    shadowed = {"max_budget": 3, "budget_duration": "1d", "budget_limits": windows, "shadow_limits": ["max_budget"]}
    (limit,) = limits_of("key", "k", shadowed)
    assert (limit.most, limit.shadow) == (10 * DOLLAR, False)


def test_limits_of_one_count_are_one_limit_wherever_they_come_from() -> None:
    own, default, again = (limits_of("key", "k", {"model_rpm_limit": {"m": most}}) for most in (5, 20, 5))
    assert merged([*own, *default, *again]) == own
    (budget,) = merged([*limits_of("key", "k", {"max_budget": 9}), *limits_of("key", "k", {"soft_budget": 1})])
    assert (budget.field, budget.most, budget.soft, budget.shadow) == ("max_budget", 9 * DOLLAR, DOLLAR, False)


@pytest.mark.parametrize(
    ("listed", "shadows"),
    [(["rpm_limit"], [True, False]), (["*"], [True, True]), ("rpm_limit", [False, False]), (None, [False, False])],
)
def test_shadow_limits_are_listed_by_field(listed: Any, shadows: list[bool]) -> None:
    limits = limits_of("key", "k", {"rpm_limit": 1, "tpm_limit": 1, "shadow_limits": listed})
    assert [limit.shadow for limit in limits] == shadows


def test_a_temporary_increase_counts_until_it_expires() -> None:
    until = datetime(2026, 3, 1, tzinfo=UTC)
    (limit,) = limits_of("key", "k", {"max_budget": 1, "temp_budget_increase": 2, "temp_budget_expiry": until})
    assert limit.most_at(until.timestamp() - 1) == 3 * DOLLAR
    assert limit.most_at(until.timestamp()) == DOLLAR


def test_a_shared_budget_fills_in_what_is_not_set_and_an_amount_keeps_its_window() -> None:
    shared = {"max_budget": 9, "budget_duration": "1d", "rpm_limit": 7, "tpm_limit": 8}
    assert inherited({"max_budget": None, "rpm_limit": 0, "tpm_limit": None}, shared) == {
        "max_budget": 9,
        "budget_duration": "1d",
        "rpm_limit": 0,
        "tpm_limit": 8,
    }
    assert inherited({"max_budget": 5, "budget_duration": None}, shared)["budget_duration"] is None
    assert inherited({"max_budget": 0}, shared)["max_budget"] == 0
    windowed = inherited({"max_budget": None, "budget_duration": "30d"}, shared)
    assert (windowed["max_budget"], windowed["budget_duration"]) == (9, "30d")
    assert inherited({"a": 1}, None) == {"a": 1}


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("1d", "2026-02-18T00:00:00", "2026-02-19T00:00:00"),
        ("7d", "2026-02-16T00:00:00", "2026-02-23T00:00:00"),
        ("1w", "2026-02-16T00:00:00", "2026-02-23T00:00:00"),
        ("30d", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
        ("1mo", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
        ("2mo", "2026-02-01T00:00:00", "2026-04-01T00:00:00"),
        ("3d", "2026-02-18T00:00:00", "2026-02-21T00:00:00"),
        ("24h", "2026-02-18T13:00:00", "2026-02-19T13:00:00"),
        ("15m", "2026-02-18T13:20:00", "2026-02-18T13:35:00"),
        ("30s", "2026-02-18T13:20:07", "2026-02-18T13:20:37"),
    ],
)
def test_windows_snap_to_the_calendar(period: str, start: str, end: str) -> None:
    now = datetime(2026, 2, 18, 13, 20, 7, 5, tzinfo=UTC)
    assert window(now, period) == (
        datetime.fromisoformat(start).replace(tzinfo=UTC),
        datetime.fromisoformat(end).replace(tzinfo=UTC),
    )


def test_an_endless_window_has_no_end() -> None:
    now = datetime(2026, 2, 18, tzinfo=UTC)
    assert window(now, "") == (now, None)


@given(st.decimals(min_value=0, max_value=10**12, allow_nan=False, allow_infinity=False, places=15))
def test_money_is_rounded_against_the_spender_and_by_less_than_a_picodollar(amount: Decimal) -> None:
    low, high = picodollars(amount), picodollars_up(amount)
    assert dollars(low) <= amount <= dollars(high)
    assert high - low <= 1


def test_what_binds_longest_is_named_first() -> None:
    limits = limits_of("key", "k", {"rpm_limit": 1, "tpm_limit": 1, "max_parallel_requests": 1, "max_budget": 1})
    assert [limit.kind for limit in ordered(limits)] == [Kind.MONEY, Kind.TOKENS, Kind.REQUESTS, Kind.CONCURRENCY]


def test_only_rates_by_the_minute_begin_with_their_first_call() -> None:
    limits = limits_of("key", "k", {"rpm_limit": 1, "tpd_limit": 1, "max_budget": 1, "budget_duration": "1m"})
    assert [limit.anchored for limit in limits] == [True, False, False]


def test_limits_that_share_a_count_have_the_same_account() -> None:
    one, other = (Limit(subject="key", name="k", kind=Kind.MONEY, period="1d", most=n, field="f") for n in (1, 2))
    assert one.account == other.account
