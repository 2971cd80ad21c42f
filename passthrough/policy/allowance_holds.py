"""What one call holds: something of each of its accounts, or of none.

A call reserves on all of its accounts at once, without an `await` between looking and taking. It holds that until it is
over, and then pays what it has used.
"""

from collections.abc import Sequence
from typing import Final

from passthrough.policy.allowance_leases import Account, Lease
from passthrough.policy.allowances import Kind, picodollars_up
from passthrough.policy.ledger import Entry

# Plain integers: to compare with members of an enumeration costs three times as much, a dozen times a call.
_REQUESTS: Final = int(Kind.REQUESTS)
_TOKENS: Final = int(Kind.TOKENS)
_CONCURRENCY: Final = int(Kind.CONCURRENCY)

Needs = tuple[int, int, int, int]
"""What a call needs of each `Kind`, in the order of their numbers."""


class Hold:
    """What one call has reserved.

    It is settled once, with the call's final entry, or released. After `settle`, the entry is written to the
    journal, and then `written` says so; if it could not be, nobody says so, and the money counts as lost.
    """

    __slots__ = ("_leases", "_unwritten", "accounts", "needs")

    def __init__(self, accounts: Sequence[Account], needs: Needs, leases: list[Lease]) -> None:
        self.accounts = accounts
        self.needs = needs
        self._leases = leases
        self._unwritten: list[tuple[Lease, int]] = []

    def release(self) -> None:
        """Give everything back: the call was not made."""
        leases, self._leases = self._leases, []
        for account, lease in zip(self.accounts, leases, strict=False):  # none are left the second time
            amount = self.needs[account.kind]
            lease.reserved -= amount
            lease.free += amount
            lease.cells[lease.slot] -= amount

    def settle(self, entry: Entry, *, unheard: bool = False, partial: bool = False) -> None:
        """Charge what the call has used, and free the rest. Money is written into the entry, for the ledger.

        `unheard`: it went up, and nobody knows what became of it; AWS may have served and billed it. `partial`: the
        entry's figures are of the part of the answer that was heard; the bound counts, where it is more.
        """
        if entry.outcome == "refused" and not unheard and entry.cost is None:
            self.release()
            return
        unknown = unheard or _answered_without_figures(entry)
        leases, self._leases = self._leases, []
        for account, lease in zip(self.accounts, leases, strict=False):  # as above
            kind = account.kind
            amount = self.needs[kind]
            if kind == _REQUESTS:
                used = amount
            elif kind == _CONCURRENCY:
                used = 0
                lease.cells[lease.slot] -= amount
            elif kind == _TOKENS:
                used = _tokens(amount, entry, unknown=unknown, partial=partial)
                lease.cells[lease.slot] -= amount - used
            else:
                used = _settle_money(lease, amount, entry, unknown=unknown, partial=partial)
                self._unwritten.append((lease, amount))
            lease.reserved -= amount
            lease.settled += used
            lease.free += amount - used

    def written(self) -> None:
        """The entry is in the journal: what it charges is remembered there, and no longer in the book."""
        for lease, amount in self._unwritten:
            lease.cells[lease.slot] -= amount
        self._unwritten = []


def _tokens(amount: int, entry: Entry, *, unknown: bool, partial: bool) -> int:
    if not amount:
        return 0  # an operation that only counts tokens uses none
    total, known = 0, False
    for count in (entry.input_tokens, entry.output_tokens, entry.cache_read_tokens, entry.cache_write_tokens):
        if count is not None:
            total += count
            known = True
    if entry.units and not known:
        return 0  # it is charged by the piece
    if not known:
        return amount if unknown else 0
    return max(total, amount) if partial else total


def _settle_money(lease: Lease, amount: int, entry: Entry, *, unknown: bool, partial: bool) -> int:
    """Note the charge in the entry. A call that was served at a price nobody knows is charged its bound."""
    cost = None if entry.cost is None else picodollars_up(entry.cost)
    if cost is not None and not (partial and cost < amount):
        used, lost = cost, False
    elif unknown or partial:
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
        super().__init__((), (0, 0, 0, 0), [])

    def settle(self, entry: Entry, *, unheard: bool = False, partial: bool = False) -> None:
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
    leases: list[Lease] = []
    try:
        for account in accounts:
            lease = account.lease
            amount = needs[account.kind]
            lease.cells[lease.slot] += amount  # first: it has 64 bits, and fails where they are not enough
            lease.free -= amount
            lease.reserved += amount
            leases.append(lease)
    except BaseException:
        Hold(accounts, needs, leases).release()
        raise
    return Hold(accounts, needs, leases)
