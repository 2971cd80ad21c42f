"""Calls that have to wait for PostgreSQL, served in rounds: all questions of the moment in one round trip.

A call is refused only when nothing that it lacks can be had: when what is used for good leaves too little, or when
every other holder was asked, after the call had come, to give back what it does not need, and it was not enough.
What remains then is held by calls under way.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final

from passthrough.errors import Unavailable
from passthrough.policy.allowance_holds import Hold, Needs, force, reserve
from passthrough.policy.allowance_leases import Account, Want
from passthrough.storage.allowances_asks import Ask, Asks, Waiter
from passthrough.storage.allowances_desk import Desk
from passthrough.storage.allowances_exchange import Exchange, Exchanged
from passthrough.storage.allowances_held import Held

_log = logging.getLogger(__name__)

_MOST_A_ROUND: Final = 500  # calls; as many questions take PostgreSQL some 20 ms


class Short(Exception):  # noqa: N818  # an answer, not an error
    """There is too little of `account`; `final` until its window ends."""

    def __init__(self, account: Account, need: int, *, final: bool) -> None:
        super().__init__(f"{account.limit.field} is short of {need}")
        self.account = account
        self.need = need
        self.final = final


class Rounds:
    """Serves waiting calls.

    `silent` is called when holders do not answer, and names the dead; `spared` for each refusal by a shadow limit.
    """

    def __init__(
        self,
        desk: Desk,
        exchange: Exchange,
        held: Held,
        holder: str,
        *,
        monotonic: Callable[[], float],
        silent: Callable[[], Awaitable[Collection[str]]],
        spared: Callable[[Account, int], None],
    ) -> None:
        self._desk = desk
        self._exchange = exchange
        self.held = held
        self._holder = holder
        self._monotonic = monotonic
        self._spared = spared
        self._queue: deque[Waiter] = deque()
        self._low: set[Account] = set()
        self._closing: set[Account] = set()
        self._reports: set[Account] = set()
        self._uncertain: set[Account] = set()  # of which PostgreSQL may have granted more than was heard
        self._deferred: list[Sequence[str]] = []
        self._wake = asyncio.Event()
        self._asks = Asks(holder, ended=self._asked, silent=silent)

    async def obtain(self, accounts: Sequence[Account], needs: Needs) -> Hold:
        """Wait for a hold. Raises `Short`, or `Unavailable` when PostgreSQL is away."""
        waiter = Waiter(accounts, needs, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        self._wake.set()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().release()  # it came in the moment in which the caller left
            raise

    def top_up(self, account: Account) -> None:
        """Lease some more in the background."""
        self._low.add(account)
        self._wake.set()

    def close(self, account: Account) -> None:
        """Return what is left of a lease, in the background, and end it if nothing of it is outstanding."""
        self._closing.add(account)
        self._wake.set()

    def heard(self, words: Sequence[str]) -> None:
        """Hear another: `ask ALLOWANCE QUESTION ASKER`, `have ALLOWANCE QUESTION HOLDER AMOUNT`, `report ALLOWANCE`."""
        if words[0] == "have":
            self._asks.answered(words[2], words[3])
        elif words[0] == "report":
            self._reports |= {account for word in words[1:] if (account := self.held.get(int(word))) is not None}
            self._wake.set()
        elif words[0] == "ask" and words[3] != self._holder:
            self._hear_question(words)
            self._wake.set()

    def _hear_question(self, words: Sequence[str]) -> None:
        account = self.held.get(int(words[1]))
        if account is None and self._uncertain:
            self._deferred.append(words)  # it may be one of those of which the first answer is still to come
        elif account is not None and (account.lease.free > 0 or account in self._uncertain):
            self._asks.owe(account, words[2])
        else:
            self._asks.say_nothing_left(int(words[1]), words[2])

    def regained(self) -> None:
        """PostgreSQL is there again: find out what it granted that was not heard."""
        self._reports |= self._uncertain
        self._wake.set()

    def lost(self) -> None:
        """PostgreSQL is away: nobody will answer."""
        self._asks.abandon()
        self._deferred.clear()
        self._wake.set()

    async def run(self) -> None:
        """Serve; the owner cancels it."""
        async with asyncio.TaskGroup() as tasks:
            self._asks.tasks = tasks
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue or self._low or self._closing or self._reports or self._asks.owing:
                    try:
                        await self._round()
                    except Unavailable:
                        await asyncio.sleep(0)  # who waited was told; let them leave
                    except Exception:  # noqa: BLE001  # a bug with one account is its callers' answer, not everybody's end
                        _log.exception("a round of asking for limits failed")

    async def _round(self) -> None:
        count = min(_MOST_A_ROUND, len(self._queue))
        waiters = [self._queue.popleft() for _ in range(count)]
        waiters = [waiter for waiter in waiters if not self._serve(waiter)]
        low, self._low = self._low, set()
        closing, self._closing = self._closing, set()
        reports, self._reports = self._reports, set()
        owed, words = self._asks.take_owed(self._uncertain)
        reports |= self._asks.postponed()
        wants = self._wants(waiters, low, closing | owed.keys())
        for account in closing:
            wants[account].close = True
        for account in reports - wants.keys():
            wants[account] = account.want((), self._monotonic())
        self._uncertain |= wants.keys()
        try:
            if wants:
                exchanged = await self._exchange(list(wants.values()), {it: qs[0] for it, qs in owed.items()})
                self.held.take(wants, exchanged)
                self._uncertain -= exchanged.answers.keys()
                self._begin_asks(wants, exchanged)
                self._judge(waiters, wants, exchanged)
            words += [
                f"have {account.lease.allowance} {question} {self._holder} {wants[account].back}"
                for account, questions in owed.items()
                for question in questions[1:]
            ]
            if words:
                await self._desk.say(words)
            deferred, self._deferred = self._deferred, []
            for question in deferred:
                self._hear_question(question)
        except BaseException as error:
            self._begin_asks(wants, None)
            self._fail(waiters, error)
            raise

    def _begin_asks(self, wants: dict[Account, Want], exchanged: Exchanged | None) -> None:
        """Keep the questions that were put to somebody."""
        for account, want in wants.items():
            answer = exchanged.answers.get(account) if exchanged else None
            if want.ask:
                self._asks.begin(account, want.ask, answer.others if answer else ())

    def _fail(self, waiters: Iterable[Waiter], error: BaseException) -> None:
        for waiter in waiters:
            if not waiter.future.done():
                waiter.future.set_exception(
                    error if isinstance(error, Exception) else Unavailable("The proxy is stopping.")
                )

    def _wants(self, waiters: Iterable[Waiter], low: Iterable[Account], giving: set[Account]) -> dict[Account, Want]:
        now = self._monotonic()
        needs: dict[Account, list[int]] = {}
        for waiter in waiters:
            for account in waiter.accounts:
                need = waiter.needs[account.kind]
                if need and account not in waiter.spared:
                    needs.setdefault(account, []).append(need)
        wants = {}
        for account, amounts in needs.items():
            lease = account.lease
            if lease.until <= now or lease.free < sum(amounts) or account in giving:
                want = wants[account] = account.want(amounts, now, giving=account in giving)
                want.ask = self._asks.question(account)
        for account in giving - wants.keys():
            wants[account] = account.want((), now, giving=True)
        for account in set(low) - wants.keys():
            wants[account] = account.top_up(now)
        return wants

    def _serve(self, waiter: Waiter) -> bool:
        """Give a call its hold if there is enough; True also for a call whose client has left."""
        if waiter.future.done():
            return True
        now = self._monotonic()
        if waiter.spared:
            if waiter.lacking(now) is not None:
                return False
            hold = force(waiter.accounts, waiter.needs)
        else:
            found = reserve(waiter.accounts, waiter.needs, now)
            if found is None:
                return False
            hold = found
        for account in waiter.spared:
            self._spared(account, waiter.needs[account.kind])
        waiter.future.set_result(hold)
        return True

    def _judge(self, waiters: Iterable[Waiter], wants: dict[Account, Want], exchanged: Exchanged) -> None:
        for waiter in waiters:
            while not self._serve(waiter):
                if self._decide(waiter, wants, exchanged):
                    break

    def _decide(self, waiter: Waiter, wants: dict[Account, Want], exchanged: Exchanged) -> bool:
        """Decide what becomes of a call that lacks something; False if it may be tried again at once."""
        now = self._monotonic()
        account = waiter.lacking(now)
        if account is None:
            return False
        need = waiter.needs[account.kind]
        answer = exchanged.answers.get(account)
        if answer is None or account.lease.until <= now:
            self._again(waiter)
            return True
        final = need > account.ceiling
        alone = bool(wants[account].ask) and not self._asks.pending(account)
        if final or alone or account in waiter.asked:
            return self._refuse(waiter, account, need, final=final)
        self._asks.join(account, waiter, begun=bool(wants[account].ask))
        return True

    def _refuse(self, waiter: Waiter, account: Account, need: int, *, final: bool) -> bool:
        if account.limit.shadow:
            waiter.spared.add(account)
            return False
        waiter.future.set_exception(Short(account, need, final=final))
        return True

    def _again(self, waiter: Waiter) -> None:
        self._queue.append(waiter)
        self._wake.set()

    def _asked(self, ask: Ask) -> None:
        """All have answered, or did not: those who waited are tried again, and then it is decided."""
        for waiter in ask.waiters:
            waiter.asked.add(ask.account)
            self._again(waiter)
        for waiter in ask.later:
            self._again(waiter)
