"""The ledger's door: finished calls go in, synchronously; a task of this process carries them to PostgreSQL.

A call is on its way once it is appended: in a file that outlives this process (`journal`), from where
its owner, a sibling or a successor ships it (`ledger_shipper`), each call once (`ledger_writer`).
"""

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from passthrough.errors import Unavailable, UserError
from passthrough.policy.ledger import CallIds, Entry
from passthrough.storage.database import reachable
from passthrough.storage.journal import MIB, NOT_NOW, Journal
from passthrough.storage.ledger_payloads import payload_of
from passthrough.storage.ledger_shipper import Shipper
from passthrough.storage.ledger_writer import LedgerWriter

_log = logging.getLogger(__name__)

Then = Callable[[Unavailable | None], None]
Connect = Callable[[], Awaitable[asyncpg.Connection]]

SHIP_SECONDS = 0.5  # how long a call waits for company: 8 workers then need about 32 transactions a second
_ADOPT_SECONDS = 5.0
_INSPECT_SECONDS = 2.0
_SHORTEST_PAUSE_SECONDS = 0.1  # between two attempts to reach the database
_LONGEST_PAUSE_SECONDS = 5.0
# No fault of ours either: it is not for us (user, password, name), or has no room (disk, memory).
_ENVIRONMENT = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
)
_LAST_SHIPMENT_SECONDS = 5.0  # at the end; what is not shipped by then is shipped by whoever comes next


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """What an operator wants to know; the counts are this process's since it started.

    `journal_bytes` is this process's part of what all have on the disk. `rejected_calls` were put aside, because the
    database refused what is in them. `database_problem` is why nothing can be shipped at the moment.
    """

    journal_bytes: int
    stored_calls: int
    adopted_calls: int
    rejected_calls: int
    damaged_bytes: int
    database_problem: str | None


class Ledger:
    """Records calls. An async context manager: it owns the journal and the task that ships it.

    `directory` is shared by all processes of one data directory; `connect` opens a bare connection. Opening
    raises `UserError` when the directory cannot be written. Make it after a fork, not before. `name` is a
    UUIDv7 that names the journal; who holds leases under the same name is buried after the journal is shipped.
    """

    def __init__(
        self,
        directory: Path,
        connect: Connect,
        *,
        name: str | None = None,
        max_bytes: int = 1024 * MIB,
        fsync_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._connect = connect
        self._name = name
        self._max_bytes = max_bytes
        self._fsync_seconds = fsync_seconds
        self._clock = clock
        self._appended = 0
        self._gathered: list[tuple[bytes, Then]] = []
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._database_problem: str | None = None
        self._pause = _SHORTEST_PAUSE_SECONDS

    async def __aenter__(self) -> Self:
        name = self._name or CallIds()(self._clock())
        try:
            self._journal = Journal(
                self._directory, name=name, max_bytes=self._max_bytes, sync_each=self._fsync_seconds == 0
            )
        except OSError as error:
            raise UserError(
                f"The journal directory {self._directory} cannot be written ({error.strerror}): "
                "correct its permissions or choose another data directory."
            ) from error
        self._shipper = Shipper(self._journal, self._directory, self._clock)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())  # noqa: TID251  # owned: __aexit__ cancels and awaits it
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commit()
        self._journal.seal()
        try:
            with contextlib.suppress(TimeoutError):
                await self.flush(_LAST_SHIPMENT_SECONDS)
        finally:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._shipper.close()
            await asyncio.to_thread(self._journal.close)

    def append(self, entry: Entry) -> None:
        """Record a finished call at once. Raises `Unavailable` when the journal is full or the disk refuses."""
        self._journal.append(payload_of(entry))
        self._appended += 1

    def append_soon(self, entry: Entry, then: Then) -> None:
        """Record a finished call together with the others that end in this turn of the event loop.

        Databases call it a group commit: they share one write and, where each call is synced, one sync. `then` is
        called behind it, with what `append` would have raised or None.
        """
        try:
            payload = payload_of(entry)
        except Unavailable as error:
            then(error)
            return
        if not self._gathered:
            self._loop.call_soon(self._commit)
        self._gathered.append((payload, then))

    def _commit(self) -> None:
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        problems = self._written([payload for payload, _ in gathered])
        for (_, then), problem in zip(gathered, problems, strict=True):
            try:
                then(problem)
            except Exception:  # noqa: BLE001  # one call's trouble is no other's
                _log.exception("a recorded call could not be ended")

    def _written(self, payloads: Sequence[bytes]) -> Iterable[Unavailable | None]:
        """Write calls, and say of each what kept it from being written."""
        try:
            self._journal.append(*payloads)
        except Exception as error:  # noqa: BLE001  # whatever it is, none of them may wait for ever
            if not isinstance(error, Unavailable):
                _log.exception("calls could not be written")
                error = Unavailable(NOT_NOW, cause=f"{type(error).__name__}: {error}")
            if len(payloads) == 1:
                return (error,)
            return [
                problem for payload in payloads for problem in self._written((payload,))
            ]  # there may be room for some
        self._appended += len(payloads)
        return itertools.repeat(None, len(payloads))

    def writable(self) -> bool:
        """Say whether a call that begins now could be recorded; costs nothing."""
        return self._journal.writable() and not self._task.done()

    def problem(self) -> str | None:
        """Say in one sentence why calls cannot be recorded, or None; for readiness."""
        return self._journal.problem() or ("The ledger's task has ended; restart." if self._task.done() else None)

    def state(self) -> LedgerState:
        return LedgerState(
            journal_bytes=self._journal.share,
            stored_calls=self._shipper.stored,
            adopted_calls=self._shipper.adopted,
            rejected_calls=self._shipper.rejected,
            damaged_bytes=self._shipper.damaged_bytes,
            database_problem=self._database_problem,
        )

    async def flush(self, timeout_seconds: float) -> None:
        """Wait until every call appended so far is in the database. Raises `TimeoutError`."""
        wanted = self._appended
        async with asyncio.timeout(timeout_seconds):
            while self._shipper.shipped < wanted or any(segment.sealed for segment in self._journal.segments):
                self._progress.clear()
                self._wake.set()
                await self._progress.wait()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_every(self._fsync_seconds or 1.0, self._journal.sync))
            tasks.create_task(_every(_INSPECT_SECONDS, self._journal.inspect))
            tasks.create_task(self._ship())

    async def _ship(self) -> None:
        while True:
            try:
                with reachable():
                    async with _connected(self._connect) as writer:
                        await self._ship_to(writer)
            except (Unavailable, *_ENVIRONMENT) as error:
                problem = error.cause if isinstance(error, Unavailable) else str(error)
                if self._database_problem is None:
                    _log.warning("the ledger cannot reach the database, calls wait on disk", extra={"cause": problem})
                self._database_problem = problem
            except Exception as error:  # noqa: BLE001  # whatever it is, the calls wait on disk and it is tried again
                problem = f"{type(error).__name__}: {error}"
                if problem != self._database_problem:
                    _log.error("the ledger fails for a reason of ours, calls wait on disk", exc_info=error)
                self._database_problem = problem
            # Not all workers at once when it comes back.
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads load, hides nothing
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _ship_to(self, writer: LedgerWriter) -> None:
        """Ship for as long as the connection lasts."""
        adopted_at = -_ADOPT_SECONDS
        while True:
            self._wake.clear()
            await self._shipper.ship_own(writer)
            self._database_problem = None  # not before: one that takes connections may still take no calls
            self._progress.set()
            if time.monotonic() - adopted_at >= _ADOPT_SECONDS:
                await self._shipper.ship_orphans(writer)
                adopted_at = time.monotonic()
            self._pause = _SHORTEST_PAUSE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHIP_SECONDS):
                    await self._wake.wait()


@contextlib.asynccontextmanager
async def _connected(connect: Connect) -> AsyncIterator[LedgerWriter]:
    connection = await connect()
    try:
        writer = LedgerWriter(connection)
        await writer.prepare()
        yield writer
    finally:
        connection.terminate()  # a batch in the middle is rolled back, and nobody waits for a dead server


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(work)
        except OSError as error:  # the disk's trouble of this moment; the journal says so if calls suffer by it
            _log.warning("the journal's disk failed", extra={"cause": str(error)})
