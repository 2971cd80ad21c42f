"""The one connection of a worker on which leases are asked for, questions of others heard, and life is shown.

One statement at a time, each of some hundred microseconds; whoever has many questions asks them together. When the
connection is lost, everything that waits is told so at once, and a new one is sought until it is found.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import asyncpg

from passthrough.errors import Unavailable
from passthrough.storage.database import UNREACHABLE, reachable
from passthrough.storage.schema import CHANGES

CHANNEL: Final = "passthrough_allowances"

_HEARTBEAT_SECONDS: Final = 2.0
_COMMAND_SECONDS: Final = 5.0  # a PostgreSQL that is slower than this counts as away
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
ALIVE_SECONDS: Final = 4 * _HEARTBEAT_SECONDS  # who was not heard of for so long is not asked any more

_SESSION: Final = "SET statement_timeout = '5s'; SET timezone = 'UTC'; SET jit = off"
_SIGN_IN: Final = (
    "INSERT INTO allowance_holders (holder) VALUES ($1) ON CONFLICT (holder) DO UPDATE SET seen_at = now()"
)
_SHOW_LIFE: Final = f"""
WITH mine AS ({_SIGN_IN} RETURNING holder)
SELECT 1 + count(*) FROM allowance_holders, mine
WHERE allowance_holders.holder <> $1 AND seen_at > now() - make_interval(secs => {ALIVE_SECONDS})
"""  # noqa: S608  # our own text

_SAY: Final = f"SELECT pg_notify('{CHANNEL}', word) FROM unnest($1::text[]) AS word"  # noqa: S608  # our own text

_log = logging.getLogger(__name__)

# One row of somebody else's deadlock, which is over by now; or the server ended our statement.
_AGAIN: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

_Result = TypeVar("_Result")


class Desk:
    """`heard` is told what other workers say, `changed` who was changed by an administrator.

    `connected` hears when the connection is there (True), and when it is lost; `alive` hears the moment, by
    `monotonic`, before which PostgreSQL was told for the last time that this worker lives.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        holder: str,
        *,
        heard: Callable[[str], None],
        changed: Callable[[str], None],
        connected: Callable[[bool], None],
        alive: Callable[[float], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._holder = holder
        self._heard = heard
        self._changed = changed
        self._connected = connected
        self._alive = alive
        self._monotonic = monotonic
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self.holders = 1
        self.since = 0.0
        self.round_trips = 0

    @property
    def open(self) -> bool:
        return self._connection is not None

    async def run(self) -> None:
        """Keep a connection; the owner cancels it."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                with reachable():
                    await self._stay()
            except Unavailable as error:
                _log.warning("limits cannot be asked for, what is leased goes on", extra={"cause": error.cause})
            if self._connection is not None:
                pause = _FIRST_PAUSE_SECONDS
                self._lost()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement. Raises `Unavailable` when PostgreSQL is away or does not answer in time."""
        rows: list[Any] = await self.use(lambda it: it.fetch(statement, *values, timeout=_COMMAND_SECONDS))
        return rows

    async def use(self, work: Callable[[asyncpg.Connection], Awaitable[_Result]]) -> _Result:
        """Have the connection for oneself. Whatever loses it raises `Unavailable`, for all."""
        async with self._turn:
            connection = self._connection
            if connection is None:
                raise Unavailable(UNREACHABLE, cause="no connection for limits")
            self.round_trips += 1
            try:
                with reachable():
                    try:
                        return await work(connection)
                    except _AGAIN:
                        return await work(connection)
            except asyncpg.PostgresError:  # a bug of ours: the connection is none the worse for it
                raise
            except BaseException:
                # also when cancelled: nobody knows what the connection is in the middle of
                connection.terminate()
                if self._connection is connection:
                    self._lost()
                raise

    async def say(self, words: Sequence[str]) -> None:
        """Tell all workers."""
        await self.fetch(_SAY, list(words))

    async def _stay(self) -> None:
        connection = await self._connect()
        closed = asyncio.Event()
        try:
            await connection.execute(_SESSION)
            await connection.add_listener(CHANNEL, lambda *message: self._heard(message[3]))
            await connection.add_listener(CHANGES, lambda *message: self._changed(message[3]))
            connection.add_termination_listener(lambda _: closed.set())
            sent_at = self._monotonic()
            self.holders = await connection.fetchval(_SHOW_LIFE, self._holder)
            self._alive(sent_at)
            self._connection = connection
            self.since = asyncio.get_running_loop().time()
            self._connected(True)  # noqa: FBT003  # its one argument
            await self._beat(connection, closed)
        finally:
            connection.terminate()

    async def _beat(self, connection: asyncpg.Connection, closed: asyncio.Event) -> None:
        while not closed.is_set():
            try:
                await asyncio.wait_for(closed.wait(), _HEARTBEAT_SECONDS)
            except TimeoutError:
                sent_at = self._monotonic()
                (row,) = await self.fetch(_SHOW_LIFE, self._holder)
                self.holders = row[0]
                self._alive(sent_at)
                if self._connection is not connection:
                    break
        raise ConnectionResetError("the connection for limits was closed")

    def _lost(self) -> None:
        self._connection = None
        self._connected(False)  # noqa: FBT003  # its one argument
