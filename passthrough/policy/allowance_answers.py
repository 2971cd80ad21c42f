"""How allowances speak to clients: refusals, and header fields that tell what is left.

`RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-11: one item for each limit, its
name such as `team-rpm`; `q` the quota and `r` what is left, in units `qu` (requests unless said otherwise), `w` and
`t` in seconds. Money is counted in millionths of a dollar, because the fields hold integers.

A budget is refused with 400, not 429: boto3 retries a 429, and a budget does not come back within seconds.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from passthrough.errors import Refusal
from passthrough.policy.allowance_leases import Account
from passthrough.policy.allowances import DAY, ENDLESS, MINUTE, PICODOLLARS, Kind, Limit, dollars

_MICRO: Final = 10 ** (PICODOLLARS - 6)
_UNITS: Final = {
    Kind.TOKENS: ';qu="tokens"',
    Kind.CONCURRENCY: ';qu="concurrent-requests"',
    Kind.MONEY: ';qu="usd-micros"',
}
_SHORT_FIELDS: Final = {
    "rpm_limit": "rpm",
    "tpm_limit": "tpm",
    "tpd_limit": "tpd",
    "max_parallel_requests": "parallel",
    "max_budget": "budget",
    "soft_budget": "soft-budget",
    "budget_limits": "budget",
    "model_max_budget": "model-budget",
    "model_rpm_limit": "model-rpm",
    "model_tpm_limit": "model-tpm",
}
_SECONDS: Final = {
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "mo": 30 * 86400,
}  # `w` is about right, `t` exact
# Seconds: calls under way end, and give back the tokens that they had reserved too many. Requests do not come back.
_SOON: Final = 1
_SESSION_SECONDS: Final = 24 * 3600  # a shorter window is Claude Code's "session", a longer one its "week"
_WARNING: Final = 0.75  # from here Claude Code's own warning begins


def refusal(account: Account, need: int, now: float, *, final: bool) -> Refusal:
    """Say no because of one allowance. `final`: nothing will come back before the window ends. `now` is wall time."""
    limit = account.limit
    soon = not final and limit.kind != Kind.REQUESTS
    seconds = _seconds_left(account, now)
    if limit.kind == Kind.MONEY:
        text = _budget_text(account, need, held=soon)
        return Refusal(400, "ServiceQuotaExceededException", text, headers=_fields(account, seconds))
    if soon or seconds is None:
        seconds = _SOON
    headers = {
        "Retry-After": str(seconds),
        "x-amz-retry-after": str(seconds * 1000),
        **_fields(account, None if soon else seconds),
    }
    return Refusal(429, "ThrottlingException", _rate_text(account, need, seconds, held=soon), headers=headers)


def unpriced(limit: Limit, model: str | None, operation: str, *, boundless: bool) -> Refusal:
    """Say no because there is a budget and nobody knows what the call would cost, or how much it could at most."""
    has = f"The {_whose(limit)} has a budget ({limit.field})"
    if boundless:
        text = f"{has} and nobody can know beforehand what {operation} costs at most: use another operation."
    else:
        text = (
            f"{has} and the price of {model or 'this operation'} is not known: "
            "ask your administrator to add its price, or use another model."
        )
    return Refusal(400, "ServiceQuotaExceededException", text)


def lines(accounts: Sequence[Account], now: float, *, anthropic: bool) -> bytes:
    """Return the header fields of an answer, ready to be sent; none for a call that nothing limits."""
    policies, states = [], []
    for account in accounts:
        if not account.limit.shadow:
            name, policy, scale = account.told or _label(account)
            policies.append(policy)
            left, free = account.left, account.lease.free
            remaining = (left if left > 0 else 0) + (free if free > 0 else 0)  # noqa: FURB136  # max costs as much as all else here
            ends_at = account.ends_at
            if ends_at is None:
                states.append(f"{name}{remaining // scale}")
            else:
                states.append(f"{name}{remaining // scale};t={int(ends_at - now) + 1}")
    if not policies:
        return b""
    text = f"RateLimit-Policy: {', '.join(policies)}\r\nRateLimit: {', '.join(states)}\r\n"
    if anthropic:
        text += "".join(f"{name}: {value}\r\n" for name, value in _unified(accounts, now).items())
    return text.encode()


def _fields(account: Account, seconds: int | None) -> dict[str, str]:
    name, policy, scale = account.told or _label(account)
    state = f"{name}{account.remaining() // scale}" + (f";t={seconds}" if seconds is not None else "")
    return {"RateLimit-Policy": policy, "RateLimit": state}


def _label(account: Account) -> tuple[str, str, int]:
    """Write what is the same for every call, once for as long as the limit is as it is."""
    limit = account.limit
    name = limit_name(limit)
    scale = _MICRO if limit.kind == Kind.MONEY else 1
    window = f";w={_window_seconds(limit.period)}" if limit.period else ""
    account.told = f'"{name}";r=', f'"{name}";q={account.most // scale}{window}{_UNITS.get(limit.kind, "")}', scale
    return account.told


def _unified(accounts: Sequence[Account], now: float) -> dict[str, str]:
    """Return what Claude Code shows of a plan's windows: how full the fullest short and the fullest long one is."""
    fullest: dict[str, tuple[float, int]] = {}
    for account in accounts:
        if (
            account.limit.shadow
            or account.limit.kind == Kind.CONCURRENCY
            or account.limit.period == MINUTE
            or not account.most
        ):
            continue
        claim = "5h" if 0 < _window_seconds(account.limit.period) <= _SESSION_SECONDS else "7d"
        full = min(1.0, max(0.0, 1 - account.remaining() / account.most))
        if claim not in fullest or full > fullest[claim][0]:
            fullest[claim] = (full, math.ceil(account.ends_at or now + 365 * 86400))
    if not fullest:
        return {}
    prefix = "anthropic-ratelimit-unified"
    first = max(fullest, key=lambda claim: fullest[claim][0])
    fields = {
        f"{prefix}-status": _status(fullest[first][0]),
        f"{prefix}-reset": str(fullest[first][1]),
        f"{prefix}-representative-claim": {"5h": "five_hour", "7d": "seven_day"}[first],
    }
    for claim, (full, reset) in fullest.items():
        fields[f"{prefix}-{claim}-status"] = _status(full)
        fields[f"{prefix}-{claim}-utilization"] = f"{full:.4f}"
        fields[f"{prefix}-{claim}-reset"] = str(reset)
    return fields


def _status(full: float) -> str:
    return "allowed" if full < _WARNING else "allowed_warning"


def limit_name(limit: Limit) -> str:
    """Name a limit for clients: `key-rpm`, `team-budget-1d`; whose it is and which, but nobody's id."""
    name = f"{limit.subject.replace('_', '-')}-{_SHORT_FIELDS[limit.field]}"
    if limit.kind == Kind.MONEY and limit.period:
        name += f"-{limit.period}"
    if limit.field == "model_max_budget" and limit.kind != Kind.MONEY:
        name = f"{limit.subject.replace('_', '-')}-model-{'rpm' if limit.kind == Kind.REQUESTS else 'tpm'}"
    return name


def _whose(limit: Limit) -> str:
    """Name the subject as its own caller may know it."""
    match limit.subject:
        case "key":
            whose = "virtual key"
        case "global":
            whose = "deployment"
        case "team_member":
            whose = f"membership {limit.name}"
        case subject:
            whose = f"{subject} {limit.name}"
    return whose + (f" (for {limit.model})" if limit.model else "")


def _budget_text(account: Account, need: int, *, held: bool) -> str:
    limit = account.limit
    until = f" until {_moment(account.ends_at)}" if account.ends_at is not None else ""
    then = (
        f" It resets at {_moment(account.ends_at)}." if account.ends_at is not None else " It does not reset by itself."
    )
    if held:
        then = " Calls under way hold more, and what they do not use comes back as they end." + then
    return (
        f"The budget of the {_whose(limit)} ({limit.field}, {_usd(account.most)}{until}) "
        f"has {_usd(account.remaining())} left, and this call may cost up to {_usd(need)}.{then}"
    )


def _rate_text(account: Account, need: int, seconds: int, *, held: bool) -> str:
    limit = account.limit
    if limit.kind == Kind.CONCURRENCY:
        return f"The {_whose(limit)} may have {account.most} calls open at a time ({limit.field}): wait for one to end."
    per = {MINUTE: "minute", DAY: "day"}.get(limit.period, limit.period)
    what = "requests" if limit.kind == Kind.REQUESTS else "tokens"
    text = f"The {_whose(limit)} may use {account.most} {what} a {per} ({limit.field}), {account.remaining()} are left"
    if limit.kind == Kind.TOKENS:
        text += f" and this call may use up to {need}"
        if need > account.most:
            return text + ": ask for fewer tokens, by a lower maximum of output or a shorter input."
    if held:
        text += ", but calls under way hold others and give back what they do not use"
    return f"{text}: try again in {seconds} {'second' if seconds == 1 else 'seconds'}."


def _usd(amount: int) -> str:
    return f"{dollars(amount).normalize():f} USD"


def _moment(when: float | None) -> str:
    return datetime.fromtimestamp(when or 0, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _seconds_left(account: Account, now: float) -> int | None:
    return None if account.ends_at is None else max(1, int(account.ends_at - now) + 1)


def _window_seconds(period: str) -> int:
    if period == ENDLESS:
        return 0
    count = period.rstrip("smhdwo")
    return int(count) * _SECONDS[period[len(count) :]]
