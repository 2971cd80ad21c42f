import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from passthrough.policy.allowance_answers import limit_name, lines, refusal, unpriced
from passthrough.policy.allowance_events import Event, signature
from passthrough.policy.allowance_leases import Account
from passthrough.policy.allowances import Kind, limits_of

NOW = 1_771_420_800.0  # 2026-02-18T13:20:00Z
DOLLAR = 10**12


def accounts_of(subject: Any = "key", name: str = "k", **fields: Any) -> list[Account]:
    accounts = [Account(limit, limit.most) for limit in limits_of(subject, name, fields)]
    for account in accounts:
        account.ends_at = NOW + 41.2 if account.limit.period == "1m" else None
    return accounts


def test_a_rate_is_a_429_that_says_when_to_come_back() -> None:
    (account,) = accounts_of(rpm_limit=10)
    account.left = 0
    refused = refusal(account, 1, NOW, final=True)
    assert (refused.status, refused.code) == (429, "ThrottlingException")
    assert refused.message == (
        "The virtual key may use 10 requests a minute (rpm_limit), 0 are left: try again in 42 seconds."
    )
    assert refused.headers == {
        "Retry-After": "42",
        "x-amz-retry-after": "42000",
        "RateLimit-Policy": '"key-rpm";q=10;w=60',
        "RateLimit": '"key-rpm";r=0;t=42',
    }


def test_what_calls_under_way_may_give_back_is_worth_coming_back_for_soon() -> None:
    (account,) = accounts_of("team", "red", tpm_limit=1000)
    account.left = 300
    refused = refusal(account, 400, NOW, final=False)
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["RateLimit"] == '"team-tpm";r=300'
    assert refused.message == (
        "The team red may use 1000 tokens a minute (tpm_limit), 300 are left and this call may use up to 400, but "
        "calls under way hold others and give back what they do not use: try again in 1 second."
    )


def test_a_request_of_a_call_under_way_does_not_come_back_before_the_window_ends() -> None:
    (account,) = accounts_of(rpm_limit=1)
    account.left = 0
    refused = refusal(account, 1, NOW, final=False)
    assert refused.message.endswith("0 are left: try again in 42 seconds.")
    assert (refused.headers["Retry-After"], refused.headers["x-amz-retry-after"]) == ("42", "42000")
    assert refused.headers["RateLimit"] == '"key-rpm";r=0;t=42'


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize(
    "fields", [{"rpm_limit": 5}, {"tpm_limit": 1000}, {"tpd_limit": 9}, {"max_parallel_requests": 1}]
)
@pytest.mark.parametrize("known", [True, False])
def test_an_answer_names_one_time_to_come_back_at(fields: dict[str, int], *, final: bool, known: bool) -> None:
    (account,) = accounts_of(**fields)
    account.ends_at = NOW + 41.2 if known and "max_parallel_requests" not in fields else None
    refused = refusal(account, 5, NOW, final=final)
    wait = refused.headers["Retry-After"]
    assert refused.headers["x-amz-retry-after"] == f"{wait}000"
    assert re.findall(r"in (\d+) second", refused.message) in ([], [wait])
    assert re.findall(r";t=(\d+)", refused.headers["RateLimit"]) in ([], [wait])


def test_money_that_calls_under_way_hold_is_said_to_come_back() -> None:
    (account,) = accounts_of(max_budget=1)
    account.left = 0
    assert refusal(account, DOLLAR, NOW, final=False).message.endswith(
        "Calls under way hold more, and what they do not use comes back as they end. It does not reset by itself."
    )


def test_a_call_that_can_never_fit_is_told_to_ask_for_less() -> None:
    (account,) = accounts_of(tpd_limit=1000)
    assert refusal(account, 5000, NOW, final=True).message.endswith(
        "up to 5000: ask for fewer tokens, by a lower maximum of output or a shorter input."
    )


def test_calls_at_one_time_say_to_wait_for_one() -> None:
    (account,) = accounts_of("customer", "c", max_parallel_requests=2)
    refused = refusal(account, 1, NOW, final=False)
    assert refused.message == (
        "The customer c may have 2 calls open at a time (max_parallel_requests): wait for one to end."
    )
    assert refused.headers["RateLimit-Policy"] == '"customer-parallel";q=2;qu="concurrent-requests"'


def test_a_budget_is_a_400_that_boto3_does_not_retry() -> None:
    (account,) = accounts_of("team_member", "t/u", max_budget=Decimal("1.5"), budget_duration="1d")
    account.ends_at, account.left = 1_771_459_200.0, DOLLAR // 4
    refused = refusal(account, DOLLAR, NOW, final=True)
    assert (refused.status, refused.code) == (400, "ServiceQuotaExceededException")
    assert refused.message == (
        "The budget of the membership t/u (max_budget, 1.5 USD until 2026-02-19T00:00:00Z) has 0.25 USD left, "
        "and this call may cost up to 1 USD. It resets at 2026-02-19T00:00:00Z."
    )
    assert "Retry-After" not in refused.headers
    assert refused.headers["RateLimit"] == '"team-member-budget-1d";r=250000;t=38401'


def test_a_budget_without_a_window_says_that_it_does_not_come_back() -> None:
    (account,) = accounts_of("global", "", max_budget=1)
    assert refusal(account, DOLLAR, NOW, final=True).message.startswith(
        "The budget of the deployment (max_budget, 1 USD)"
    )
    assert refusal(account, DOLLAR, NOW, final=True).message.endswith("It does not reset by itself.")


def test_an_unknown_price_names_model_and_budget() -> None:
    (limit,) = limits_of("user", "u", {"model_max_budget": {"x.*": 1}})
    assert unpriced(limit, "x.y", "Converse", boundless=False).message == (
        "The user u (for x.*) has a budget (model_max_budget) and the price of x.y is not known: "
        "ask your administrator to add its price, or use another model."
    )
    assert "the price of this operation is" in unpriced(limit, None, "", boundless=False).message
    assert unpriced(limit, "x.y", "InvokeInlineAgent", boundless=True).message.endswith(
        "nobody can know beforehand what InvokeInlineAgent costs at most: use another operation."
    )


def test_answers_tell_every_limit_but_shadows() -> None:
    accounts = accounts_of(rpm_limit=10, tpm_limit=1000, max_budget=2, soft_budget=1)
    accounts += accounts_of("user", "u", rpm_limit=5, shadow_limits=["*"])
    accounts[0].left, accounts[0].lease.free = -3, 4
    assert lines(accounts, NOW, anthropic=False).decode().split("\r\n") == [
        'RateLimit-Policy: "key-rpm";q=10;w=60, "key-tpm";q=1000;w=60;qu="tokens", '  # noqa: ISC004  # one line of the head
        '"key-budget";q=2000000;qu="usd-micros"',
        'RateLimit: "key-rpm";r=4;t=42, "key-tpm";r=1000;t=42, "key-budget";r=2000000',
        "",
    ]
    assert lines(accounts[3:], NOW, anthropic=True) == b""


def test_claude_code_is_told_how_full_its_budgets_are() -> None:
    windows = [{"budget_duration": "1d", "max_budget": 4}, {"budget_duration": "5h", "max_budget": 2}]
    rate, month, day, hours = accounts_of(max_budget=10, budget_duration="30d", budget_limits=windows, rpm_limit=1)
    month.left, month.ends_at = DOLLAR, 2e9
    day.left, day.ends_at = 2 * DOLLAR, 1.9e9
    hours.left, hours.ends_at = 2 * DOLLAR, 1.8e9
    head = lines([rate, month, day, hours], NOW, anthropic=True).decode()
    told = dict(line.split(": ") for line in head.split("\r\n") if line.startswith("anthropic-ratelimit-unified-"))
    assert {name.removeprefix("anthropic-ratelimit-unified-"): value for name, value in told.items()} == {
        "status": "allowed_warning",
        "reset": "2000000000",
        "representative-claim": "seven_day",
        "5h-status": "allowed",
        "5h-utilization": "0.5000",
        "5h-reset": "1900000000",
        "7d-status": "allowed_warning",
        "7d-utilization": "0.9000",
        "7d-reset": "2000000000",
    }


@pytest.mark.parametrize(("left", "status"), [(26, "allowed"), (25, "allowed_warning"), (0, "allowed_warning")])
def test_the_warning_begins_at_three_quarters(left: int, status: str) -> None:
    (account,) = accounts_of(max_budget=100, budget_duration="1d")
    account.left, account.ends_at = left * DOLLAR, NOW + 60
    head = lines([account], NOW, anthropic=True).decode()
    assert f"anthropic-ratelimit-unified-status: {status}\r\n" in head
    assert "anthropic-ratelimit-unified-representative-claim: five_hour\r\n" in head
    assert f"anthropic-ratelimit-unified-5h-utilization: {1 - left / 100:.4f}\r\n" in head


def test_names_of_limits_tell_whose_and_which() -> None:
    fields = {"model_max_budget": {"m": {"max_budget": 1, "budget_duration": "1d", "tpm_limit": 1}}, "tpd_limit": 1}
    assert [limit_name(limit) for limit in limits_of("team_member", "t/u", fields)] == [
        "team-member-tpd",
        "team-member-model-budget-1d",
        "team-member-model-tpm",
    ]


def test_a_signature_is_over_moment_and_body() -> None:
    # openssl: printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
    assert signature("secret", 1_700_000_000, b"{}") == (
        "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    )


def test_an_event_has_exact_amounts() -> None:
    at = datetime(2026, 2, 18, 13, 20, tzinfo=UTC)
    event = Event(
        number=1,
        at=at,
        subject="key",
        name="k",
        kind=Kind.MONEY,
        period="1d",
        model="",
        threshold="soft",
        used=Decimal("1.5"),
        most=Decimal(10 * DOLLAR),
        ends_at=None,
    )
    assert event.fields()["used"] == "0.0000000000015"
    assert event.fields()["limit"] == "10"
    assert event.fields()["event"] == "soft_budget_crossed"
    assert event.body().startswith(b'{"id": 1, "event": "soft_budget_crossed", "at": "2026-02-18T13:20:00.000Z"')
