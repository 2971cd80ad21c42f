"""What one worker holds of an allowance: a lease, what is taken of it, and what has to be asked of PostgreSQL.

Rules:

1. `granted = free + reserved + settled`, all three since the lease began. PostgreSQL knows `granted` and, as of the
   last report, `settled`; whatever it does not know to be settled it counts as held, so it may be told late, or
   twice, or never: nothing is given out a second time for it.
2. `granted` comes from PostgreSQL as an absolute figure, never as a difference: an answer that was lost is made good
   by the next.
3. A lease is good until its window ends by the worker's own monotonic clock, counted from before the question was
   sent; so it ends here no later than there. What is settled after that belongs to the window in which it began.
4. A lease of calls at one time has no window. It is good for `HEARD_SECONDS` from when PostgreSQL last heard that its
   worker lives: one that it does not hear of for longer loses it to others, and must not go on as if it had it.
5. `free` below zero is a debt: something was used that had not been leased (a shadow limit, an outage that is
   configured to be open, an answer dearer than its bound). It is asked for before anything else.
"""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Final

from passthrough.policy.allowances import Kind, Limit

SILENT_SECONDS: Final = 20.0  # ten heartbeats: whoever is not heard of for so long loses its calls at one time
HEARD_SECONDS: Final = 15.0  # ends here before it ends there
FOREVER: Final = float("inf")
_FIRST_BLOCK: Final = 32  # calls that a first block should last for; PostgreSQL gives an eighth of what is left at most
_LARGEST_BLOCK: Final = 4096
_QUICKLY_SPENT: Final = 1.0  # seconds; a block that lasted less is doubled
_CONCURRENCY: Final = int(Kind.CONCURRENCY)
_LOW: Final = (
    4  # a quarter of a block is left when the next one is fetched; a block of few calls is not: the limit is near
)


class Lease:
    """A part of an allowance that this worker may spend; `number` is 0 until PostgreSQL has given one.

    `cells[slot]` is where the amount is noted that must not be given back should this process die now
    (`storage.allowance_book`): of money what is reserved, of the others also what is settled.
    """

    __slots__ = (
        "allowance",
        "cells",
        "epoch",
        "free",
        "low",
        "number",
        "ourselves",
        "reserved",
        "settled",
        "slot",
        "until",
    )

    def __init__(self) -> None:
        self.allowance = 0
        self.number = 0
        self.epoch = 0
        self.free = 0
        self.reserved = 0
        self.settled = 0
        self.low = 0
        self.until = 0.0
        self.ourselves = False  # whether a share was taken while PostgreSQL was away
        self.cells: MutableSequence[int] = [0]
        self.slot = 0

    @property
    def taken(self) -> int:
        return self.reserved + self.settled


@dataclass(slots=True, kw_only=True)
class Want:
    """What a worker tells PostgreSQL of one account, and asks for.

    `need` is what the most modest of the waiting calls lacks, `total` what all lack together; `extra` would be
    welcome. `back` is given back. `ask` names a question to the other holders, should the need not be met. `close`
    ends the lease if nothing of it is outstanding.
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
    close: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What PostgreSQL says of one account after a `Want`.

    `granted` is all that the lease was ever given, less what it gave back. `used`, `held` and `lost` are of all
    holders together. `number` is 0 for a lease that was closed. `others` were asked to give back what they do not
    need. `seconds_left` of the window, None if it never ends; `ends_at` in seconds since 1970.
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
        "shared_until",
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
        self.shared_until = 0.0  # the end of the window of which a share was taken while PostgreSQL was away
        self.told: tuple[str, str, int] | None = None  # kept for `allowance_answers`

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

    def grant_ourselves(self, share: int, now: float, seconds: float) -> Lease | None:
        """Take a share without being given it, once a window; returns a lease that this ended.

        Where no window ends, once until PostgreSQL has heard of it.
        """
        lease, ended = self.lease, None
        if lease.until <= now and lease.number and self.kind != _CONCURRENCY:
            lease, ended = Lease(), lease
            self.lease = lease
        if lease.until <= now:
            lease.until = now + seconds
        if self.shared_until <= now:
            self.shared_until = lease.until
            lease.ourselves = True
            lease.free += share
        return ended

    def come_back(self) -> None:
        """PostgreSQL is there again: what was taken is to be told, and is the end of it."""
        if self.lease.ourselves:
            self.lease.ourselves = False
            self.lease.free = min(0, self.lease.free)

    def heard(self, at: float, now: float) -> None:
        """Go on with a lease of calls at one time: PostgreSQL was told at `at` that we live, and said so by `now`.

        One that was over by now is asked for anew, for somebody may have it.
        """
        lease = self.lease
        if self.kind == _CONCURRENCY and lease.number and now < lease.until < FOREVER:
            lease.until = at + HEARD_SECONDS

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

    def answered(self, want: Want, answer: Answer, sent_at: float, heard_at: float | None = None) -> Lease | None:
        """Take over an answer; returns a lease that it ended, whose window is over.

        The question was sent at `sent_at`; at `heard_at`, if that is not the same, PostgreSQL was told that we live.
        """
        lease, ended = self.lease, None
        if not answer.number:
            self.lease = Lease()
            return lease
        if lease.number and answer.epoch != lease.epoch:
            lease, ended = Lease(), lease
            self.lease = lease
        elif lease.number and answer.number != lease.number:
            # PostgreSQL had taken the lease from us, and has given one anew for what was reserved
            lease.settled -= want.settled
        lease.allowance, lease.number, lease.epoch = answer.allowance, answer.number, answer.epoch
        lease.free = answer.granted - lease.taken
        if answer.seconds_left is not None:
            lease.until = sent_at + answer.seconds_left
        else:
            self.shared_until = 0.0
            heard_at = sent_at if heard_at is None else heard_at
            lease.until = heard_at + HEARD_SECONDS if self.kind == _CONCURRENCY else FOREVER
        lease.low = lease.free // _LOW if lease.free > 2 * _LOW * self.usual else 0
        self.left = self.most - answer.used - answer.held - answer.lost
        self.ceiling = self.most - answer.used - answer.lost
        self.ends_at = answer.ends_at
        return ended
