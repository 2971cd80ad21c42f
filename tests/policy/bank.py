"""PostgreSQL's side of allowances as a model: the functions of migration 0003, word for word, in memory.

`tests/storage/test_allowance_functions.py` holds both to the same answers.
"""

from dataclasses import dataclass, field

from passthrough.policy.allowance_leases import Answer, Want
from passthrough.policy.allowances import Kind

SPAN = 60.0


@dataclass
class Lease:
    """A row of allowance_leases."""

    number: int
    granted: int = 0
    consumed: int = 0

    @property
    def outstanding(self) -> int:
        return max(0, self.granted - self.consumed)


@dataclass
class Row:
    """A row of allowances with its leases."""

    kind: Kind
    ends_at: float | None = None
    epoch: int = 0
    used: int = 0
    held: int = 0
    lost: int = 0
    leases: dict[str, Lease] = field(default_factory=dict)


class Bank:
    """One allowance. `now` is PostgreSQL's clock."""

    def __init__(self, kind: Kind, *, windowed: bool) -> None:
        self.row = Row(kind)
        self.windowed = windowed
        self.numbers = 0
        self.ends: dict[int, float] = {}

    def lease(self, asker: str, want: Want, now: float) -> Answer:  # noqa: C901, PLR0912, PLR0915  # one function there, too
        row = self.row
        if self.windowed and (row.ends_at is None or row.ends_at <= now):
            if row.ends_at is not None:
                row.epoch += 1
                row.leases.clear()
                row.used = row.held = row.lost = 0
            row.ends_at = self.ends[row.epoch] = now + SPAN
        lease = row.leases.get(asker)
        number = lease.number if lease else None
        lease = lease or Lease(0)
        taken, settled, back = want.taken, want.settled, want.back
        if want.number and want.epoch != row.epoch:
            taken = settled = back = 0
        elif want.number and want.number != number:
            taken, settled, back = taken - settled, 0, 0
        before = lease.outstanding
        if row.kind < Kind.CONCURRENCY and settled > lease.consumed:
            row.used += settled - lease.consumed
            lease.consumed = settled
        elif row.kind == Kind.MONEY and not want.number and settled > lease.consumed:
            row.lost += settled - lease.consumed
            lease.consumed = settled
        lease.granted = max(lease.granted - back, taken)
        row.held += lease.outstanding - before
        most = want.account.most
        spare = most - row.used - row.held - row.lost
        given = 0
        if want.total > 0:
            if spare >= want.total:
                given = want.total + int(min(want.extra, (spare - want.total) / 8))
            elif spare >= want.need:
                given = max(0, spare)
        lease.granted += given
        row.held += given
        others: tuple[str, ...] = ()
        if spare < want.total and want.ask:
            others = tuple(sorted(h for h, it in row.leases.items() if h != asker and it.granted > it.consumed))
        if want.close and lease.granted <= lease.consumed:
            row.leases.pop(asker, None)
            answered = 0
        else:
            if number is None:
                self.numbers += 1
                lease.number = self.numbers
            row.leases[asker] = lease
            answered = lease.number
        return Answer(
            allowance=1,
            number=answered,
            epoch=row.epoch,
            granted=lease.granted,
            used=row.used,
            held=row.held,
            lost=row.lost,
            seconds_left=None if row.ends_at is None else row.ends_at - now,
            ends_at=row.ends_at,
            others=others,
        )

    def settle(self, number: int, epoch: int, units: int, cost: int, *, lost: bool) -> None:
        """What the ledger charges for one call."""
        row = self.row
        for lease in row.leases.values():
            if lease.number == number:
                before = lease.outstanding
                lease.consumed += units
                row.held += lease.outstanding - before
        if epoch == row.epoch:
            row.used += 0 if lost else cost
            row.lost += units if lost else 0

    def bury(self, dead: str, figures: dict[int, int], *, with_money: bool) -> None:
        row = self.row
        lease = row.leases.get(dead)
        if lease is None or (row.kind == Kind.MONEY and not with_money):
            return
        figure = figures.get(lease.number, 0)
        if row.kind == Kind.MONEY:
            row.lost += min(figure, lease.outstanding)
        elif row.kind != Kind.CONCURRENCY:
            row.used += max(0, figure - lease.consumed)
        row.held -= lease.outstanding
        del row.leases[dead]
