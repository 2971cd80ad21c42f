"""Which customers are restricted, all of them in the process, so that an end user costs a call no query.

They are few, whoever else calls: the blocked, and those with a model list. All are read when somebody begins to
listen for changes, then one by one as they change. While PostgreSQL is away, what was read last goes on to hold.
"""

import asyncio
from typing import Final

from sqlalchemy import Select, func, or_, select, true

from passthrough.errors import Unavailable
from passthrough.policy.customers import Customer
from passthrough.storage.database import UNREACHABLE, Database, reachable
from passthrough.storage.schema import Customer as Row

_RETRY_SECONDS: Final = 1.0
_DEAF_SECONDS: Final = 10.0  # while nobody listens, all are read again this often


class RestrictedCustomers:
    """Restricted customers by id. `run` must be running for it to learn of changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, Customer] = {}
        self.read = asyncio.Event()  # set once all are known
        self._changed: set[str] = set()
        self._all = True
        self._listening = False
        self._wanted = asyncio.Event()

    def get(self, user_id: str) -> Customer | None:
        """The customer, if restricted; `Unavailable` while nobody could be asked yet who is."""
        if not self.read.is_set():
            raise Unavailable(UNREACHABLE, cause="the restricted customers have not been read yet")
        return self._known.get(user_id)

    def changed(self, subject: str) -> None:
        kind, _, user_id = subject.partition(":")
        if kind == "customer":
            self._changed.add(user_id)
            self._wanted.set()

    def regained(self) -> None:
        self._listening = self._all = True
        self._wanted.set()

    def lost(self) -> None:
        self._listening = False
        self._wanted.set()

    async def run(self) -> None:
        """Read what changed for as long as it is let; the owner cancels it."""
        while True:
            try:
                async with asyncio.timeout(None if self._listening else _DEAF_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                self._all = True
            self._wanted.clear()
            try:
                await self._refresh()
            except Unavailable:
                self._all = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _refresh(self) -> None:
        whole, self._all = self._all, False
        asked, self._changed = self._changed, set()
        if not whole and not asked:
            return
        query = restricted_query() if whole else restricted_query().where(Row.user_id.in_(asked))
        with reachable():
            async with self._database.engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        found = {row.user_id: Customer(row.user_id, row.blocked, tuple(row.models)) for row in rows}
        if whole:
            self._known = found
            self.read.set()
        else:
            for user_id in asked:
                self._known.pop(user_id, None)
            self._known.update(found)


def restricted_query() -> Select[str, bool, list[str]]:
    """All restricted customers; a partial index holds just them."""
    restricted = or_(Row.blocked == true(), func.cardinality(Row.models) > 0)
    return select(Row.user_id, Row.blocked, Row.models).where(restricted)
