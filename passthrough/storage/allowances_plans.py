"""Which accounts a call is held to: found out once for each kind of caller and call, and kept until a limit changes."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from passthrough.bedrock.models import ModelKind, model_ref
from passthrough.errors import Unavailable
from passthrough.policy.access import covers
from passthrough.policy.allowance_leases import FOREVER, Account
from passthrough.policy.allowances import Kind, Limit, merged, ordered
from passthrough.policy.keys import VirtualKey
from passthrough.policy.ledger import Entry
from passthrough.storage.allowances_desk import Desk
from passthrough.storage.allowances_limits import (
    ANY_CUSTOMER,
    CUSTOMERS,
    SHARED,
    SharedLimits,
    limits_of_customer,
    shared_limits,
)
from passthrough.storage.allowances_settle import subjects_of

_log = logging.getLogger(__name__)

_MOST_PLANS: Final = 20_000  # of about 500 bytes; callers make up models, end users and tags
_MOST_CUSTOMERS: Final = 50_000
_RETRY_SECONDS: Final = 1.0
_PROFILE_SECONDS: Final = 1.0  # until it is looked again what a profile stands for that nobody knew

PlanKey = tuple[str, str | None, str | None, str | None, str | None, tuple[str, ...]]


class Plan:
    """The accounts of one kind of call. `budget` is the limit of money that matters most, if there is one."""

    __slots__ = ("accounts", "budget", "counts_tokens", "limits", "used_at", "valid_until", "version")

    def __init__(
        self, accounts: tuple[Account, ...], limits: tuple[Limit, ...], version: int, valid_until: float
    ) -> None:
        self.accounts = accounts
        self.limits = limits
        self.version = version
        self.valid_until = valid_until
        self.used_at = 0.0
        self.counts_tokens = any(account.kind == Kind.TOKENS for account in accounts)
        budgets = [account.limit for account in accounts if account.kind == Kind.MONEY]
        self.budget: Limit | None = min(budgets, key=lambda limit: limit.shadow, default=None)


class Plans:
    """Finds plans. All accounts are kept here.

    `shared` is true when calls may be limited whose keys are not, `customers_limited` when that may be so for those
    that name an end user. `stands_for` gives the model of an application inference profile, once it is known.
    """

    def __init__(
        self, desk: Desk, *, wall: Callable[[], float], stands_for: Callable[[str], str | None] = lambda _: None
    ) -> None:
        self._desk = desk
        self._stands_for = stands_for
        self._wall = wall
        self._plans: dict[PlanKey, Plan] = {}
        self._customers: dict[str, tuple[Limit, ...]] = {}
        self._accounts: dict[tuple[str, str, int, str, str], Account] = {}
        self._shared: SharedLimits | None = None
        self._outdated = True
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._wanted = asyncio.Event()
        self.read = asyncio.Event()  # what is shared is known
        self._version = 0
        self.customers_limited = True
        self.shared = True  # until we know better

    def known(self, key: VirtualKey, entry: Entry, now: float) -> Plan | None:
        """Return the plan of a call, if it is known and right."""
        plan = self._plans.get(self._key(key, entry))
        if plan is None or plan.limits is not key.limits or plan.version != self._version or plan.valid_until <= now:
            return None
        plan.used_at = now
        return plan

    async def find(self, key: VirtualKey, entry: Entry, now: float) -> Plan:
        """Return the plan of a call; raises `Unavailable` when limits cannot be read and were never known."""
        plan = self.known(key, entry, now)
        if plan is not None:
            return plan
        version = self._version
        shared, customer = await self._known_limits(entry)
        plan = self._make((*key.limits, *customer), key, entry, shared, version, now)
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[self._key(key, entry)] = plan
        return plan

    def changed(self, subject: str) -> None:
        """Hear that a customer or a shared budget was changed."""
        kind, _, name = subject.partition(":")
        if kind in {"customer", "budget"}:
            if kind == "customer":
                self._customers.pop(name, None)
            else:
                self._customers.clear()
            self.customers_limited = True
            self._version += 1
            self._outdated = True
            self._wanted.set()

    def regained(self) -> None:
        """Changes are heard again: what is known may be old."""
        self._customers.clear()
        self.customers_limited = True
        self._version += 1
        self._outdated = True
        self._wanted.set()

    def accounts(self) -> Iterator[Account]:
        yield from self._accounts.values()

    def active(self, since: float) -> set[Account]:
        """Return the accounts of plans that were used since then."""
        return {account for plan in self._plans.values() if plan.used_at >= since for account in plan.accounts}

    def forget(self, account: Account) -> None:
        """Drop an account that nobody uses; plans that name it go too."""
        self._accounts.pop(account.key, None)
        self._version += 1

    async def run(self) -> None:
        """Read what is asked for, and shared limits whenever they have changed; the owner cancels it."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            asked, self._asked = self._asked, {}
            try:
                if self._outdated:
                    await self._read_shared()
                if asked:
                    await self._read_customers(asked)
            except Unavailable as error:
                for future in asked.values():
                    if not future.done():
                        future.set_exception(error)
                if self._outdated:
                    await asyncio.sleep(_RETRY_SECONDS if not self._asked else 0)
                    self._wanted.set()

    def _key(self, key: VirtualKey, entry: Entry) -> PlanKey:
        shared = self._shared
        # of tags only those that are limited: callers make up the others, a hundred a call
        tags = tuple(tag for tag in entry.tags if tag in shared.tags) if entry.tags and shared is not None else ()
        # its owners too: two keys of no limits have the same ones, and defaults are by owner
        return (key.key_id, key.user_id, key.team_id, entry.billed_model or entry.model, entry.end_user, tags)

    async def _read_shared(self) -> None:
        self._outdated = False
        try:
            rows = await self._desk.fetch(SHARED)
            (customers,) = await self._desk.fetch(ANY_CUSTOMER)
        except Unavailable:
            self._outdated = True
            raise
        self._shared = shared_limits(row["budget"] for row in rows)
        self.read.set()
        self.shared = self._shared.any
        if not self._outdated:  # else somebody was changed while this was read
            self.customers_limited = customers["limited"]
        self._version += 1

    async def _read_customers(self, asked: "dict[str, asyncio.Future[None]]") -> None:
        version = self._version
        rows = await self._desk.fetch(CUSTOMERS, list(asked))
        found = {row["user_id"]: limits_of_customer(row["user_id"], row["own"], row["shared"]) for row in rows}
        if len(self._customers) + len(asked) > _MOST_CUSTOMERS:
            self._customers.clear()
        for name, future in asked.items():
            if version == self._version:  # else a change was heard meanwhile, perhaps of this one
                self._customers[name] = found.get(name, ())
            if not future.done():
                future.set_result(None)

    async def _ask(self, name: str) -> None:
        """Have something read by the task of `run`: a caller that leaves must not take the connection along."""
        future = self._asked.get(name)
        if future is None:
            future = self._asked[name] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, even if nobody waits
            self._wanted.set()
        await asyncio.shield(future)

    async def _known_limits(self, entry: Entry) -> tuple[SharedLimits, tuple[Limit, ...]]:
        """Return what is shared, and the limits of the call's end user."""
        shared, name = self._shared, entry.end_user
        while shared is None or (name and self.customers_limited and name not in self._customers):
            await self._ask(name or "")
            shared = self._shared
        return shared, self._customers.get(name or "", ())

    def _make(  # what a plan is made of
        self,
        limits: tuple[Limit, ...],
        key: VirtualKey,
        entry: Entry,
        shared: SharedLimits,
        version: int,
        now: float,
    ) -> Plan:
        wall = self._wall()
        model = entry.billed_model or entry.model
        every = [*limits, *shared.of(limits, subjects_of(entry))]
        profile = model is not None and model_ref(model).kind is ModelKind.APPLICATION_INFERENCE_PROFILE
        behind = self._stands_for(model) if model is not None and profile else None
        models = [name for name in (model, behind) if name is not None]
        applying = [limit for limit in every if not limit.model or any(covers(limit.model, name) for name in models)]
        ends = [limit.bonus_until - wall for limit in applying if limit.bonus_until > wall]
        if profile and behind is None:
            ends.append(_PROFILE_SECONDS)
        accounts = tuple(self._account(limit, wall) for limit in ordered(merged(applying)))
        plan = Plan(accounts, key.limits, version, now + min(ends, default=FOREVER))
        plan.used_at = now
        return plan

    def _account(self, limit: Limit, wall: float) -> Account:
        account = self._accounts.get(limit.account)
        if account is None:
            account = self._accounts[limit.account] = Account(limit, limit.most_at(wall))
        elif account.limit != limit or account.most != limit.most_at(wall):
            account.restrict(limit, limit.most_at(wall))
        return account
