"""Hears of changes from PostgreSQL (`LISTEN`), which sends them from the transaction that makes them.

A connection that is cut is noticed at once, one that is silently gone by a question every few seconds. One that
lets us listen and passes nothing on, as poolers do that lend a connection for a transaction, is found out by a word
of our own. Whoever depends on hearing is told when it ends and when it begins again.
"""

import asyncio
import contextlib
import logging
import secrets
from typing import Any, Final, Protocol

import asyncpg
from sqlalchemy import text

from passthrough.errors import Unavailable
from passthrough.storage.database import UNREACHABLE, Database, reachable
from passthrough.storage.schema import CHANGES

_HEARTBEAT_SECONDS: Final = 2.0  # how long a silent network may hide a change, plus as much to give up waiting
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0  # so that a PostgreSQL that is back is used within about a second

_CATCH_UP_SECONDS: Final = (
    0.5  # a notification takes a millisecond; who has to wait longer is better off with an answer
)

_OWN: Final = "heard:"  # what we say to ourselves begins so; no subject of a change does
_MUTE: Final = (
    "PostgreSQL's notifications do not arrive; let DATABASE_URL lead to PostgreSQL itself, or to a pooler that "
    "lends connections for a session"
)

_SAY: Final = text("SELECT pg_notify(:channel, :word)")

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who depends on changes."""

    def changed(self, subject: str) -> None: ...

    def regained(self) -> None: ...

    def lost(self) -> None: ...


class Changes:
    """The one listening connection of a process; `run` holds it for as long as it is let."""

    def __init__(self, database: Database, *listeners: Listener) -> None:
        self._database = database
        self._listeners = listeners
        self.listening = asyncio.Event()
        self._words: dict[str, asyncio.Event] = {}  # said by us, and not yet heard

    async def run(self) -> None:
        """Listen, and again after every loss; the owner cancels it."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                with reachable():
                    await self._listen()
            except Unavailable as error:
                _log.warning("not hearing of key changes: every key is looked up (%s)", error.cause)
            except Exception as error:  # noqa: BLE001  # whatever it is, calls are served without, and it is tried again
                _log.error("not hearing of key changes: every key is looked up", exc_info=error)
            if self.listening.is_set():
                pause = _FIRST_PAUSE_SECONDS
                self._lost()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def caught_up(self) -> None:
        """Return when all that was committed before is heard here, or soon when it cannot be.

        PostgreSQL passes notifications on in the order of their commits (its documentation of NOTIFY), so whoever
        hears a word of now has heard what was said before.
        """
        if self.listening.is_set():
            with contextlib.suppress(Unavailable):
                await self._hear_a_word(_CATCH_UP_SECONDS)

    async def _listen(self) -> None:
        connection = await self._database.connect()
        try:
            closed = asyncio.Event()
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(CHANGES, self._heard)
            await self._hear_a_word(_HEARTBEAT_SECONDS)
            self.listening.set()
            for listener in self._listeners:
                listener.regained()
            await self._stay(connection, closed)
        finally:
            connection.terminate()

    async def _hear_a_word(self, seconds: float) -> None:
        """Say something on another connection and wait until it is heard here; `Unavailable` when it is not."""
        word, heard = _OWN + secrets.token_hex(8), asyncio.Event()
        self._words[word] = heard
        try:
            with reachable():
                async with asyncio.timeout(seconds), self._database.engine.begin() as connection:
                    await connection.execute(_SAY, {"channel": CHANGES, "word": word})
            async with asyncio.timeout(seconds):
                await heard.wait()
        except TimeoutError:
            raise Unavailable(UNREACHABLE, cause=_MUTE) from None
        finally:
            del self._words[word]

    async def _stay(self, connection: asyncpg.Connection, closed: asyncio.Event) -> None:
        while not closed.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), _HEARTBEAT_SECONDS)
                raise ConnectionResetError("PostgreSQL closed the listening connection")
            await connection.fetchval("SELECT 1", timeout=_HEARTBEAT_SECONDS)

    def _heard(self, _connection: Any, _process: int, _channel: str, subject: str) -> None:  # asyncpg's signature
        if subject.startswith(_OWN):
            if (heard := self._words.get(subject)) is not None:
                heard.set()
            return
        for listener in self._listeners:
            listener.changed(subject)

    def _lost(self) -> None:
        self.listening.clear()
        for listener in self._listeners:
            listener.lost()
