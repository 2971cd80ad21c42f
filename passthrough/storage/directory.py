"""What is looked up on the path of a call, kept in the process for as long as it is known to be right.

Rules: an entry may be used without asking only while somebody listens for changes (`changes.py`), and goes the
moment its subject is named there. Who does not listen asks PostgreSQL each time. If PostgreSQL cannot be asked
either, what was last known to be right less than `outage_seconds` ago is used, and nothing else.

Misses of one id share one question, misses at the same time share one query, and what does not exist is
remembered for a moment too: ten thousand wrong keys a second are some twenty queries. Everything is bounded,
by number and by weight.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from passthrough.errors import Unavailable
from passthrough.storage.database import UNREACHABLE

_BATCH: Final = 500  # ids a query; PostgreSQL answers it from the index in some 5 ms
_MOST_WAITING: Final = 20_000  # ids; at 100,000 a second that is what one slow query lets come together
_RETRY_SECONDS: Final = 1.0  # after a failed query the next second's calls do not each wait for another failure
_DEAF: Final = 0  # number of no session: nobody listens
_UNHEARD: Final = -1  # session of an entry that was loaded while nobody listened

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Found(Generic[Value]):
    """What a loader found: the value, and the subjects whose change makes it stale (`key:…`, `team:…`).

    `hidden` is the size of what the value holds and its `repr` does not show, in letters.
    """

    value: Value
    subjects: tuple[str, ...]
    hidden: int = 0


@dataclass(slots=True)
class Counts:
    """How often what happened since the start, for metrics."""

    queries: int = 0
    loaded: int = 0
    absent: int = 0
    absent_remembered: int = 0
    stale_served: int = 0
    unavailable: int = 0


@dataclass(slots=True)
class _Entry(Generic[Value]):
    value: Value
    subjects: tuple[str, ...]
    session: int
    confirmed_at: float
    weight: int


class Directory(Generic[Value]):
    """Values by id. `load` answers for many ids at once and raises `Unavailable` when nobody can tell.

    `kind` is the subject prefix of an id. `run` must be running for `find` to be answered. The seconds are
    those of `clock`, a monotonic one.
    """

    def __init__(
        self,
        kind: str,
        load: Callable[[list[str]], Awaitable[Mapping[str, Found[Value]]]],
        *,
        clock: Callable[[], float] = time.monotonic,
        outage_seconds: float = 3600.0,
        size: int = 20_000,
        most_bytes: int = 64 * 1024 * 1024,
        absent_size: int = 50_000,
        absent_seconds: float = 5.0,
    ) -> None:
        self.counts = Counts()
        self._kind = kind
        self._load = load
        self._clock = clock
        self._outage_seconds = outage_seconds
        self._size, self._most_bytes = size, most_bytes
        self._absent_size, self._absent_seconds = absent_size, absent_seconds
        self._entries: OrderedDict[str, _Entry[Value]] = OrderedDict()
        self._weight = 0
        self._by_subject: dict[str, set[str]] = {}
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._asked: dict[str, asyncio.Future[Value | None]] = {}
        self._queue: deque[str] = deque()
        self._to_confirm: deque[str] = deque()
        self._wanted = asyncio.Event()
        self._loading = False
        self._changed_meanwhile: set[str] = set()
        self._session = self._live = _DEAF
        self._lost_at: dict[int, float] = {}
        self._away = False
        self._away_until = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def cached(self, identifier: str) -> Value | None:
        """Give what is known to be right at this moment; None says only that `find` must be asked."""
        entry = self._entries.get(identifier)
        if entry is None or entry.session != self._live:
            return None
        self._entries.move_to_end(identifier)
        return entry.value

    async def find(self, identifier: str) -> Value | None:
        """Give the value, or None where there is none; raises `Unavailable` when nobody can tell."""
        value = self.cached(identifier)
        if value is not None:
            return value
        now = self._clock()
        if self._absent.get(identifier, 0.0) > now:
            self.counts.absent_remembered += 1
            return None
        if self._away and self._was_known(identifier):
            if now >= self._away_until and not self._asked:
                _ = self._ask(identifier)  # to find out whether it is back; nobody waits for that
            return self._last_known(identifier)
        if now < self._away_until:
            return self._last_known(identifier)
        try:
            # Shielded: the question is everybody's who asks it, and one who leaves must not take it along.
            return await asyncio.shield(self._ask(identifier))
        except Unavailable:
            return self._last_known(identifier)

    def changed(self, subject: str) -> None:
        """Forget whatever depends on `subject`; a query under way is asked again for it."""
        if self._loading:
            self._changed_meanwhile.add(subject)
        for identifier in tuple(self._by_subject.get(subject, ())):
            self._drop(identifier)
        kind, _, identifier = subject.partition(":")
        if kind == self._kind:
            self._absent.pop(identifier, None)

    def regained(self) -> None:
        """Somebody listens again: from now on entries hold, and those of before are asked for once more."""
        self._session += 1
        self._live = self._session
        self._absent.clear()
        self._returned()
        self._to_confirm.extend(self._entries)
        self._wanted.set()

    def lost(self) -> None:
        """Nobody listens: what is known may be wrong from now on."""
        now = self._clock()
        self._lost_at = {s: at for s, at in self._lost_at.items() if now - at < self._outage_seconds}
        self._lost_at[self._live] = now
        self._live = _DEAF
        self._to_confirm.clear()

    async def run(self) -> None:
        """Answer questions for as long as it is let; the owner cancels it."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                while batch := self._next_batch():
                    await self._answer(batch)
        finally:
            for future in self._asked.values():
                future.cancel()

    def _ask(self, identifier: str) -> asyncio.Future[Value | None]:
        future = self._asked.get(identifier)
        if future is None:
            if len(self._asked) >= _MOST_WAITING:
                raise Unavailable(UNREACHABLE, cause="too many lookups are waiting for PostgreSQL")
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, even if nobody waits
            self._asked[identifier] = future
            self._queue.append(identifier)
            self._wanted.set()
        return future

    def _next_batch(self) -> list[str]:
        source = self._queue or self._to_confirm
        return [source.popleft() for _ in range(min(_BATCH, len(source)))]

    async def _answer(self, batch: list[str]) -> None:
        session = self._live
        self.counts.queries += 1
        self._loading = True
        try:
            found = await self._load(batch)
        except Unavailable as error:
            self._away, self._away_until = True, self._clock() + _RETRY_SECONDS
            self._to_confirm.clear()
            self._fail(batch, error)
        except Exception as error:  # noqa: BLE001  # a bug with one row is its askers' answer, not everybody's end
            self._fail(batch, error)
        else:
            self._returned()
            for identifier in batch:
                self._take(identifier, found.get(identifier), session)
        finally:
            self._loading = False
            self._changed_meanwhile.clear()

    def _take(self, identifier: str, found: Found[Value] | None, session: int) -> None:
        subjects = found.subjects if found else (f"{self._kind}:{identifier}",)
        if not self._changed_meanwhile.isdisjoint(subjects):
            self._queue.append(identifier)
            return
        self._drop(identifier)
        if found is not None:
            self.counts.loaded += 1
            self._store(identifier, found, session if session == self._live != _DEAF else _UNHEARD)
        else:
            self.counts.absent += 1
            self._absent[identifier] = self._clock() + self._absent_seconds
            if len(self._absent) > self._absent_size:
                self._absent.popitem(last=False)
        future = self._asked.pop(identifier, None)
        if future is not None and not future.done():
            future.set_result(found.value if found else None)

    def _fail(self, batch: Iterable[str], error: Exception) -> None:
        for identifier in batch:
            future = self._asked.pop(identifier, None)
            if future is not None and not future.done():
                future.set_exception(error)

    def _store(self, identifier: str, found: Found[Value], session: int) -> None:
        weight = len(repr(found.value)) + found.hidden
        self._entries[identifier] = _Entry(found.value, found.subjects, session, self._clock(), weight)
        self._weight += weight
        for subject in found.subjects:
            self._by_subject.setdefault(subject, set()).add(identifier)
        while len(self._entries) > self._size or self._weight > self._most_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, identifier: str) -> None:
        entry = self._entries.pop(identifier, None)
        if entry is None:
            return
        self._weight -= entry.weight
        for subject in entry.subjects:
            holders = self._by_subject[subject]
            holders.discard(identifier)
            if not holders:
                del self._by_subject[subject]

    def _returned(self) -> None:
        self._away, self._away_until = False, 0.0

    def _last_known(self, identifier: str) -> Value:
        if not self._was_known(identifier):
            self.counts.unavailable += 1
            raise Unavailable(UNREACHABLE)
        self.counts.stale_served += 1
        return self._entries[identifier].value

    def _was_known(self, identifier: str) -> bool:
        """Whether it was known to be right less than `outage_seconds` ago."""
        entry = self._entries.get(identifier)
        if entry is None:
            return False
        confirmed = entry.confirmed_at if entry.session == _UNHEARD else self._lost_at.get(entry.session, 0.0)
        return self._clock() - confirmed < self._outage_seconds
