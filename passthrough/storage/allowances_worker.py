"""Everything behind `Allowances` in one worker: made, run and ended together."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import asyncpg

from passthrough.errors import Unavailable, UserError
from passthrough.policy.allowance_leases import Account
from passthrough.policy.allowances import Kind
from passthrough.policy.estimates import Estimates
from passthrough.storage.allowances import Allowances, Choices, tell_spared
from passthrough.storage.allowances_book import Book
from passthrough.storage.allowances_desk import Desk
from passthrough.storage.allowances_events import Events, Send
from passthrough.storage.allowances_exchange import Exchange
from passthrough.storage.allowances_heirs import Heirs
from passthrough.storage.allowances_held import Held
from passthrough.storage.allowances_plans import Plans
from passthrough.storage.allowances_rounds import Rounds

_log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0
_RENEW_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 60.0  # who called within the last minute has the next window's lease fetched ahead of the call
_IDLE_SECONDS: Final = 600.0  # who did not call for so long holds nothing any more
_FIRST_SECONDS: Final = 3.0
_LAST_SECONDS: Final = 3.0  # at the end; what is not given back by then is dealt with by the heirs


class Counters(Protocol):
    """What is counted, for metrics."""

    def limit_refused(self, field: str, *, shadow: bool) -> None: ...

    def limit_crossed(self, threshold: str) -> None: ...


@asynccontextmanager
async def open_allowances(
    connect: Callable[[], Awaitable[asyncpg.Connection]],
    holder: str,
    data_dir: Path,
    *,
    estimates: Estimates,
    choices: Choices,
    counters: Counters,
    send: Send | None = None,
    stands_for: Callable[[str], str | None] = lambda _: None,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Allowances]:
    """Own a worker's allowances. `holder` is the name of its journal, which has to be closed before this is.

    `stands_for` gives the model of an application inference profile, once it is known.

    Raises `UserError` when the data directory cannot be written. Nothing waits for PostgreSQL.
    """
    try:
        book = Book(data_dir / "leases", holder)
    except OSError as error:
        raise UserError(
            f"The directory {data_dir / 'leases'} cannot be written ({error.strerror}): "
            "correct its permissions or choose another data directory."
        ) from error
    worker = _Worker(
        connect, holder, data_dir, book, counters, send, stands_for=stands_for, wall=wall, monotonic=monotonic
    )
    allowances = Allowances(
        estimates=estimates,
        choices=choices,
        counters=counters,
        plans=worker.plans,
        rounds=worker.rounds,
        desk=worker.desk,
        exhausted=worker.events.exhausted,
        wall=worker.exchange.now,
        monotonic=monotonic,
    )
    desk = asyncio.create_task(_kept(worker.desk.run))  # noqa: TID251  # owned: cancelled and awaited below
    others = [asyncio.create_task(_kept(run)) for run in worker.runs()]  # noqa: TID251  # as above
    try:
        await worker.begin()
        yield allowances
    finally:
        await _stopped(*others)
        await worker.end()
        await _stopped(desk)
        book.close(remove=worker.ended)


async def _kept(run: Callable[[], Awaitable[None]]) -> None:
    """Begin again what failed for a reason of ours: the other parts, and the calls, go on meanwhile."""
    while True:
        try:
            await run()
        except Exception:  # noqa: BLE001  # whatever it is, it is logged and not the end of all limits
            _log.exception("a part of the limits failed, and is begun again")
            await asyncio.sleep(_AGAIN_SECONDS)


async def _stopped(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


class _Worker:
    """The parts, and how they hear of each other."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        holder: str,
        data_dir: Path,
        book: Book,
        counters: Counters,
        send: Send | None,
        *,
        stands_for: Callable[[str], str | None],
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._holder = holder
        self._book = book
        self._monotonic = monotonic
        self.desk = Desk(
            connect,
            holder,
            heard=self._heard,
            changed=self._changed,
            connected=self._connected,
            alive=self._alive,
            monotonic=monotonic,
        )
        self.plans = Plans(self.desk, wall=wall, stands_for=stands_for)
        self.heirs = Heirs(self.desk, data_dir / "leases", data_dir / "journal")
        self.events = Events(self.desk, counters, send)
        self.exchange = Exchange(self.desk, holder, wall=wall, monotonic=monotonic)
        self.rounds = Rounds(
            self.desk,
            self.exchange,
            Held(book, closed=self.plans.forget, monotonic=monotonic),
            holder,
            monotonic=monotonic,
            silent=self.heirs.sweep,
            spared=lambda account, need: tell_spared(counters, account, need),
        )
        self.ended = False

    def runs(self) -> tuple[Callable[[], Coroutine[None, None, None]], ...]:
        """What runs besides the desk."""
        return (self.plans.run, self.rounds.run, self.heirs.run, self.events.run, self._renew)

    async def begin(self) -> None:
        """Wait a moment for PostgreSQL, so that the first calls find it, and what is shared is known to them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SECONDS):
                await self.plans.read.wait()

    async def end(self) -> None:
        """Give everything back; `ended` if nothing is left for heirs."""
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                self.ended = await self.heirs.bury(self._holder, self._book.figures())

    def _heard(self, message: str) -> None:
        if message == "event":
            self.events.heard()
        else:
            self.rounds.heard(message.split(" "))

    def _changed(self, subject: str) -> None:
        self.plans.changed(subject)

    def _alive(self, at: float) -> None:
        self.rounds.held.alive(at)

    def _connected(self, connected: bool) -> None:  # noqa: FBT001  # its one argument
        if connected:
            self.plans.regained()
            for account in list(self.plans.accounts()):
                account.come_back()
                if account.lease.taken:
                    self.rounds.top_up(account)
            self.rounds.regained()
        else:
            self.rounds.lost()

    async def _renew(self) -> None:
        """Fetch the next window's leases for whoever is busy, and return those of whoever has stopped calling."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            now = self._monotonic()
            for account in self.plans.active(now - _BUSY_SECONDS):
                if account.lease.until <= now:
                    self.rounds.top_up(account)
            active = self.plans.active(now - _IDLE_SECONDS)
            for account in list(self.plans.accounts()):
                if account not in active and not account.lease.reserved:
                    self._let_go(account, now)

    def _let_go(self, account: Account, now: float) -> None:
        lease = account.lease
        # a lease of calls at one time has no window: when it is over, PostgreSQL may still have it
        over = 0 < lease.until <= now and account.kind != Kind.CONCURRENCY
        if lease.number and not over:
            self.rounds.close(account)
        elif lease.number or not lease.taken:  # its window is over, or there never was one
            self.rounds.held.drop(account)
