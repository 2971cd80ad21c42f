"""What a worker holds: its accounts by the numbers of their allowances, and each lease's line in the book.

Whatever gives a worker a lease, or ends one, goes through here, so that the book names the leases that are held.
"""

from collections.abc import Callable, Mapping
from typing import Final

from passthrough.policy.allowance_leases import Account, Answer, Lease, Want
from passthrough.policy.allowances import Kind
from passthrough.storage.allowances_book import Book
from passthrough.storage.allowances_exchange import Exchanged

_KNOWN_SECONDS: Final = 1.0  # for how long a budget is known to be spent: counters may be reset by hand


class Held:
    """Leases of a worker. `closed` is called with each account of which nothing is held any more."""

    def __init__(self, book: Book, *, closed: Callable[[Account], None], monotonic: Callable[[], float]) -> None:
        self._book = book
        self._closed = closed
        self._monotonic = monotonic
        self._by_id: dict[int, Account] = {}
        self._heard_at = 0.0

    def get(self, allowance: int) -> Account | None:
        return self._by_id.get(allowance)

    def take(self, wants: Mapping[Account, Want], exchanged: Exchanged) -> None:
        """Take over what PostgreSQL has answered."""
        now = self._monotonic()
        for account, answer in exchanged.answers.items():
            self._follow(account, answer)
            number = account.lease.number
            ended = account.answered(wants[account], answer, exchanged.sent_at, self._heard_at)
            if ended is not None:
                self._end(ended)
            if not answer.number:
                self._by_id.pop(answer.allowance, None)
                self._closed(account)
                continue
            lease = account.lease
            self._by_id[lease.allowance] = account
            if account.kind != Kind.CONCURRENCY:
                self._note(account, renamed=ended is None and number not in {0, lease.number})
            account.ceiling_until = now + _KNOWN_SECONDS if account.kind == Kind.MONEY else lease.until

    def drop(self, account: Account) -> None:
        """Let go of a lease that is over, or was never given."""
        self._by_id.pop(account.lease.allowance, None)
        self._end(account.lease)
        self._closed(account)

    def grant_ourselves(self, account: Account, share: int, now: float, seconds: float) -> None:
        """Let a worker that cannot ask go on with its share."""
        ended = account.grant_ourselves(share, now, seconds)
        if ended is not None:
            self._end(ended)

    def alive(self, at: float) -> None:
        """PostgreSQL was told at `at` that this worker lives."""
        self._heard_at, now = at, self._monotonic()
        for account in self._by_id.values():
            account.heard(at, now)

    def _follow(self, account: Account, answer: Answer) -> None:
        """Let an account go on with the lease that another had for it.

        Of a rotated key, the one under its former name; of a call that came while a lease was closed, the one that was
        closed, and got a lease again.
        """
        former = self._by_id.get(answer.allowance)
        if former is None or former is account or account.lease.number or former.lease.number != answer.number:
            return
        account.lease = former.lease
        former.lease = Lease()
        self._closed(former)

    def _note(self, account: Account, *, renamed: bool) -> None:
        lease = account.lease
        if not lease.slot:
            figure = lease.reserved if account.kind == Kind.MONEY else lease.taken
            lease.cells, lease.slot = self._book.place(lease.number, figure)
        elif renamed:
            self._book.rename((lease.cells, lease.slot), lease.number)

    def _end(self, lease: Lease) -> None:
        if lease.slot:
            self._book.clear((lease.cells, lease.slot))
            lease.cells, lease.slot = [0], 0
