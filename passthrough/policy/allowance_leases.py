"""What one worker holds of allowances: leases, what is reserved on them, and what has to be asked of PostgreSQL.

Rules:

1. A call reserves on all of its accounts at once, without an `await` between looking and taking, or on none.
2. `granted = free + reserved + settled`, all three since the lease began. PostgreSQL knows `granted` and, as of the
   last report, `settled`; whatever it does not know to be settled it counts as held, so it may be told late, or
   twice, or never: nothing is given out a second time for it.
3. `granted` comes from PostgreSQL as an absolute figure, never as a difference: an answer that was lost is made good
   by the next.
4. A lease is good until its window ends by the worker's own monotonic clock, counted from before the question was
   sent; so it ends here no later than there. What is settled after that belongs to the window in which it began.
5. `free` below zero is a debt: something was used that had not been leased (a shadow limit, an outage that is
   configured to be open, an answer dearer than its bound). It is asked for before anything else.
"""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Final

from passthrough.policy.allowances import Kind, Limit, picodollars_up
from passthrough.policy.ledger import Entry

FOREVER: Final = float("inf")
_FIRST_BLOCK: Final = 32  # calls that a first block should last for; PostgreSQL gives an eighth of what is left at most
_LARGEST_BLOCK: Final = 4096
_QUICKLY_SPENT: Final = 1.0  # seconds; a block that lasted less is doubled
_LOW: Final = (
    4  # a quarter of a block is left when the next one is fetched; a block of few calls is not: the limit is near
)

Needs = tuple[int, int, int, int]
"""What a call needs of each `Kind`, in the order of their numbers."""


class Lease:
    """A part of an allowance that this worker may spend; `number` is 0 until PostgreSQL has given one.

    `cells[slot]` is where the amount is noted that must not be given back should this process die now
    (`storage.allowance_book`): of money what is reserved, of the others also what is settled.
    """

    __slots__ = ("allowance", "cells", "epoch", "free", "low", "number", "reserved", "settled", "slot", "until")

    def __init__(self) -> None:
        self.allowance = 0
        self.number = 0
        self.epoch = 0
        self.free = 0
        self.reserved = 0
        self.settled = 0
        self.low = 0
        self.until = 0.0
        self.cells: MutableSequence[int] = [0]
        self.slot = 0

    @property
    def taken(self) -> int:
        return self.reserved + self.settled


@dataclass(slots=True, kw_only=True)
class Want:
    """What a worker tells PostgreSQL of one account, and asks for.

    `need` is what the most modest of the waiting calls lacks, `total` what all lack together; `extra` would be
    welcome.
    `back` is given back. `ask` names a question to the other holders, should the need not be met.
    """

    account: "Account"
    number: int
    epoch: int
    taken: int
    settled: int
    back: int = 0
    need: int = 0
    total: int = 0
    extra: int = 0
    ask: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What PostgreSQL says of one account after a `Want`.

    `granted` is all that the lease was ever given, less what it gave back. `used`, `held` and `lost` are of all
    holders together. `others` were asked to give back what they do not need. `seconds_left` of the window, None
    if it never ends; `ends_at` in seconds since 1970.
    """

    allowance: int
    number: int
    epoch: int
    granted: int
    used: int
    held: int
    lost: int
    seconds_left: float | None
    ends_at: float | None
    others: tuple[str, ...] = ()


class Account:
    """One allowance as this worker sees it.

    `left` is what nobody had used or held at the last answer, `ceiling` what nobody had used for good: more than
    that cannot be had, whoever gives back, until `ceiling_until`.
    """

    __slots__ = (
        "block",
        "ceiling",
        "ceiling_until",
        "ends_at",
        "exchanged_at",
        "key",
        "kind",
        "lease",
        "left",
        "limit",
        "lowered",
        "most",
        "told",
        "usual",
    )

    def __init__(self, limit: Limit, most: int) -> None:
        self.limit = limit
        self.key = limit.account
        self.kind = int(limit.kind)
        self.most = most
        self.lease = Lease()
        self.left = most
        self.ceiling = most
        self.ceiling_until = 0.0
        self.ends_at: float | None = None
        self.exchanged_at = 0.0
        self.block = _FIRST_BLOCK
        self.usual = 1
        self.lowered = False
        self.told: tuple[str, str] | None = None  # kept for `allowance_answers`

    def restrict(self, limit: Limit, most: int) -> None:
        """Take over a limit that was changed. What a lowered one leaves too much is given back first."""
        if most < self.most:
            self.lowered = True
            self.lease.until = 0.0
        self.limit = limit
        self.told = None
        if most != self.most:
            self.left += most - self.most
            self.most = most
            self.ceiling_until = 0.0

    def remaining(self) -> int:
        """What is left, as far as this worker knows."""
        return max(0, self.left) + max(0, self.lease.free)

    def want(self, needs: Sequence[int], now: float, *, giving: bool = False) -> Want:
        """Say what is asked for calls that wait, with the need of each. What is given back is not free any more."""
        lease = self.lease
        back = 0
        if (giving or self.lowered) and lease.free > 0:
            back, lease.free = lease.free, 0
        self.lowered = False
        want = Want(
            account=self,
            number=lease.number,
            epoch=lease.epoch,
            taken=lease.taken,
            settled=lease.settled,
            back=back,
        )
        if needs:
            # what is free here is not counted on: until the answer comes, others may take it
            want.need = max(0, min(needs) - lease.free)
            want.total = max(0, sum(needs) - lease.free)
            self.usual = max(1, *needs)
            want.extra = self._block(now) * self.usual
        return want

    def top_up(self, now: float) -> Want:
        """Ask for another block before the last one is spent, if there is plenty."""
        want = self.want((), now)
        want.need = want.total = self.usual
        want.extra = self._block(now) * self.usual
        return want

    def _block(self, now: float) -> int:
        if now - self.exchanged_at < _QUICKLY_SPENT:
            self.block = min(_LARGEST_BLOCK, self.block * 2)
        else:
            self.block = max(_FIRST_BLOCK, self.block // 2)
        self.exchanged_at = now
        return self.block

    def answered(self, want: Want, answer: Answer, sent_at: float) -> Lease | None:
        """Take over an answer; returns a lease that it ended, whose window is over."""
        lease, ended = self.lease, None
        if lease.number and answer.epoch != lease.epoch:
            lease, ended = Lease(), lease
            self.lease = lease
        elif lease.number and answer.number != lease.number:
            # PostgreSQL had taken the lease from us, and has given one anew for what was reserved
            lease.settled -= want.settled
        lease.allowance, lease.number, lease.epoch = answer.allowance, answer.number, answer.epoch
        lease.free = answer.granted - lease.taken
        lease.until = FOREVER if answer.seconds_left is None else sent_at + answer.seconds_left
        lease.low = lease.free // _LOW if lease.free > 2 * _LOW * self.usual else 0
        self.left = self.most - answer.used - answer.held - answer.lost
        self.ceiling = self.most - answer.used - answer.lost
        self.ends_at = answer.ends_at
        return ended


class Hold:
    """What one call has reserved.

    It is settled once, with the call's final entry, or released. After `settle`, the entry is written to the
    journal, and then `written` says so; if it could not be, nobody says so, and the money counts as lost.
    """

    __slots__ = ("_claims", "_unwritten")

    def __init__(self, claims: list[tuple[Account, Lease, int]]) -> None:
        self._claims = claims
        self._unwritten: list[tuple[Lease, int]] = []

    @property
    def accounts(self) -> list[Account]:
        return [account for account, _, _ in self._claims]

    def release(self) -> None:
        """Give everything back: the call was not made."""
        claims, self._claims = self._claims, []
        for _, lease, amount in claims:
            lease.reserved -= amount
            lease.free += amount
            lease.cells[lease.slot] -= amount

    def settle(self, entry: Entry) -> None:
        """Charge what the call has used, and free the rest. Money is written into the entry, for the ledger."""
        if entry.outcome == "refused":
            self.release()
            return
        claims, self._claims = self._claims, []
        for account, lease, amount in claims:
            if account.kind == Kind.MONEY:
                used = _settle_money(lease, amount, entry)
                self._unwritten.append((lease, amount))
            else:
                used = _used(account.kind, amount, entry)
                lease.cells[lease.slot] -= amount - used
            lease.reserved -= amount
            lease.settled += used
            lease.free += amount - used

    def written(self) -> None:
        """The entry is in the journal: what it charges is remembered there, and no longer in the book."""
        for lease, amount in self._unwritten:
            lease.cells[lease.slot] -= amount
        self._unwritten = []


def _used(kind: int, amount: int, entry: Entry) -> int:
    if kind == Kind.CONCURRENCY:
        return 0
    if kind == Kind.REQUESTS:
        return 1
    if not amount:
        return 0  # an operation that only counts tokens uses none
    counts = (entry.input_tokens, entry.output_tokens, entry.cache_read_tokens, entry.cache_write_tokens)
    if any(count is not None for count in counts):
        return sum(count or 0 for count in counts)
    return amount if _answered_without_figures(entry) else 0


def _settle_money(lease: Lease, amount: int, entry: Entry) -> int:
    """Note the charge in the entry. A call that was answered at a price nobody knows is charged its bound."""
    if entry.cost is not None:
        used, lost = picodollars_up(entry.cost), False
    elif _answered_without_figures(entry):
        used, lost = amount, True
    else:
        used, lost = 0, False
    if lease.number and used:
        entry.charges = (*entry.charges, (lease.allowance, lease.number, lease.epoch, used, lost))
    return used


def _answered_without_figures(entry: Entry) -> bool:
    """Whether AWS has worked for the call, and nobody can say how much: a cut stream, an answer without usage."""
    return 200 <= entry.status < 300  # noqa: PLR2004  # answered as asked, at least so far


class Unlimited(Hold):
    """The hold of a call that nothing limits; one serves all."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__([])

    def settle(self, entry: Entry) -> None:
        pass

    def written(self) -> None:
        pass

    def release(self) -> None:
        pass


UNLIMITED: Final = Unlimited()


def reserve(accounts: Sequence[Account], needs: Needs, now: float) -> Hold | None:
    """Reserve on all accounts, or on none and return None: then PostgreSQL has to be asked."""
    for account in accounts:
        lease = account.lease
        amount = needs[account.kind]
        if amount and (lease.free < amount or lease.until <= now):
            return None
    return force(accounts, needs)


def force(accounts: Sequence[Account], needs: Needs) -> Hold:
    """Reserve whether there is enough or not; what was not there is a debt."""
    claims = []
    for account in accounts:
        lease = account.lease
        amount = needs[account.kind]
        lease.free -= amount
        lease.reserved += amount
        lease.cells[lease.slot] += amount
        claims.append((account, lease, amount))
    return Hold(claims)
