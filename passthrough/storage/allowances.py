"""Allowances in a worker: the door at which a call reserves, and the tasks behind it.

Far from a limit `reserve` decides without a query and without an `await`. When it returns None, `acquire` asks
PostgreSQL, together with all others who ask at the moment. The rules are in `policy.allowance_leases`, what a
death leaves behind in `allowances_heirs`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from passthrough.bedrock.bounds import frame_of
from passthrough.bedrock.operations import Body, Call
from passthrough.errors import Refusal, Unavailable
from passthrough.policy.allowance_answers import lines, refusal, unpriced
from passthrough.policy.allowance_holds import UNLIMITED, Hold, Needs, force, reserve
from passthrough.policy.allowance_leases import FOREVER, Account
from passthrough.policy.allowances import MINUTE_SECONDS, Kind, Limit, window
from passthrough.policy.estimates import Estimates
from passthrough.policy.keys import VirtualKey
from passthrough.policy.ledger import Entry
from passthrough.storage.allowances_desk import Desk
from passthrough.storage.allowances_plans import Plan, Plans
from passthrough.storage.allowances_rounds import Rounds, Short

_log = logging.getLogger(__name__)

Outage = Literal["closed", "open"]


class Counters(Protocol):
    """What is counted, for metrics."""

    def limit_refused(self, field: str, *, shadow: bool) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a deployment decides.

    `unpriced`: what becomes of a call at an unknown price under a budget. `budgets` and `rates`: beyond what is
    leased while PostgreSQL is away, refuse (`closed`), or give each worker its share of the whole limit once a window
    (`open`), where as many workers share as were alive when it was last heard of.
    """

    unpriced: Literal["refuse", "allow"] = "refuse"
    budgets: Outage = "closed"
    rates: Outage = "open"


class Allowances:
    """Reserves for calls; open it with `allowances_worker.open_allowances`.

    `exhausted` is told when the end of an allowance is reached before the end of its window. `wall` is the clock by
    which windows end, PostgreSQL's.
    """

    def __init__(
        self,
        *,
        estimates: Estimates,
        choices: Choices,
        counters: Counters,
        plans: Plans,
        rounds: Rounds,
        desk: Desk,
        exhausted: Callable[[int, int], None],
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._estimates = estimates
        self._choices = choices
        self._counters = counters
        self._plans = plans
        self._rounds = rounds
        self._desk = desk
        self._exhausted = exhausted
        self._wall = wall
        self._monotonic = monotonic

    def reads_body(self, key: VirtualKey, entry: Entry) -> bool:
        """Whether a call may be held to limits, for which it matters what its body asks for; costs nothing."""
        return bool(key.limits or self._plans.shared or (entry.end_user and self._plans.customers_limited))

    def reserve(self, key: VirtualKey, entry: Entry, call: Call, body: Body | None, length: int) -> Hold | None:
        """Reserve for a call at once, or return None: then `acquire` has to be awaited.

        `body` is None where only its length is known yet. Raises `Refusal` for a price that nobody knows.
        """
        if not (key.limits or entry.end_user or self._plans.shared):
            return UNLIMITED
        now = self._monotonic()
        plan = self._plans.known(key, entry, now)
        if plan is None:
            return None
        accounts = plan.accounts
        if not accounts:
            return UNLIMITED
        needs = self._needs(plan, entry, call, body, length)
        hold = reserve(accounts, needs, now)
        if hold is not None:
            for account in accounts:
                if account.lease.free < account.lease.low:
                    self._rounds.top_up(account)
        return hold

    async def acquire(self, key: VirtualKey, entry: Entry, call: Call, body: Body | None, length: int) -> Hold:
        """Reserve for a call, asking PostgreSQL. Raises `Refusal`; `Unavailable` when nobody can be asked."""
        plan = await self._plans.find(key, entry, self._monotonic())
        if not plan.accounts:
            return UNLIMITED
        needs = self._needs(plan, entry, call, body, length)
        now = self._monotonic()
        hold = reserve(plan.accounts, needs, now)
        if hold is not None:
            return hold
        for account in plan.accounts:
            if needs[account.kind] > account.ceiling and now < account.ceiling_until and not account.limit.shadow:
                raise self._refused(Short(account, needs[account.kind], final=True))
        try:
            return await self._rounds.obtain(plan.accounts, needs)
        except Short as short:
            raise self._refused(short) from None
        except Unavailable:
            return self._without_postgres(plan, needs)

    def header_lines(self, hold: Hold, model: str | None) -> bytes:
        """Return what an answer tells of the limits that its call was held to, as lines of a head."""
        if hold is UNLIMITED:
            return b""
        return lines(hold.accounts, self._wall(), anthropic=model is not None and "anthropic." in model)

    def _needs(self, plan: Plan, entry: Entry, call: Call, body: Body | None, length: int) -> Needs:
        if not (plan.counts_tokens or plan.budget):
            return (1, 0, 1, 0)
        bound = self._estimates.bound(call, entry, body, length, money=plan.budget is not None)
        if bound.money is None and plan.budget is not None:
            if self._choices.unpriced == "refuse" and not plan.budget.shadow:
                self._counters.limit_refused(plan.budget.field, shadow=False)
                model = entry.billed_model or entry.model
                boundless = frame_of(call.operation, model).boundless
                raise unpriced(plan.budget, model, call.operation.name, boundless=boundless)
            return (1, bound.tokens, 1, 0)
        return (1, bound.tokens, 1, bound.money or 0)

    def _refused(self, short: Short) -> Refusal:
        self._counters.limit_refused(short.account.limit.field, shadow=False)
        if short.final and short.account.kind != Kind.CONCURRENCY:
            self._exhausted(short.account.lease.allowance, short.account.lease.epoch)
        return refusal(short.account, short.need, self._wall(), final=short.final)

    def _without_postgres(self, plan: Plan, needs: Needs) -> Hold:
        """Decide a call that PostgreSQL cannot be asked about, as the deployment has chosen."""
        now = self._monotonic()
        for account in plan.accounts:
            need = needs[account.kind]
            lease = account.lease
            if not need or (lease.free >= need and lease.until > now) or account.limit.shadow:
                continue
            choice = self._choices.budgets if account.kind == Kind.MONEY else self._choices.rates
            if choice == "closed":
                raise Unavailable("Limits cannot be checked at the moment: try again shortly.", cause="PostgreSQL away")
            seconds = self._window_seconds(account.limit)
            self._rounds.held.grant_ourselves(account, account.most // self._desk.holders, now, seconds)
            if account.lease.free < need:
                raise self._refused(Short(account, need, final=False))
        return force(plan.accounts, needs)

    def _window_seconds(self, limit: Limit) -> float:
        """For how long a window lasts that begins while PostgreSQL is away."""
        if limit.anchored:
            return MINUTE_SECONDS
        wall = self._wall()
        _, end = window(datetime.fromtimestamp(wall, UTC), limit.period)
        return FOREVER if end is None else end.timestamp() - wall


def tell_spared(counters: Counters, account: Account, need: int) -> None:
    """Count and log what a shadow limit would have refused."""
    limit = account.limit
    if limit.field == "soft_budget":
        return  # it has an event of its own, once
    counters.limit_refused(limit.field, shadow=True)
    _log.info(
        "a shadow limit would have refused a call",
        extra={"subject": limit.subject, "field": limit.field, "need": need, "left": account.remaining()},
    )
