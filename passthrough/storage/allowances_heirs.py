"""What a worker held that is no more: given back exactly, as soon as that is safe.

Why each case is safe, for a worker that died at any moment (kill -9):

* *Between lease and use.* PostgreSQL has granted and the worker never knew, or knew and had not used it: the book does
  not name it, so all of it goes back.
* *A call under way.* Reserved, noted in the book, no row in the journal. AWS may bill it whole, and nobody will ever
  know: requests and tokens count as used, money goes to `lost`, at the bound that was reserved. A call at a time is
  over with its worker.
* *Settled, and not or only just in the journal.* The book is changed after the journal: for these microseconds a call
  is in both, and counts with its bound as well as with its cost. Once too often, never once too few.
* *In the journal, not yet in PostgreSQL.* Counts as held until the journal is adopted and shipped; that moves it to
  `used`. Money is therefore not given back before the journal's directory is gone.
* *In PostgreSQL.* Is in `used` by the same transaction.
* *While it is being buried.* One function call, one transaction; the book is removed after it, and burying twice finds
  no leases.
* *The machine is gone* with book and journal. Calls at a time come back when nobody has heard of the worker for a
  while; requests and tokens with their windows; money stays held, because the journal may come back and has to find
  its place. `/…/reset_spend` forgives it.
"""

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Final

from passthrough.errors import Unavailable
from passthrough.policy.allowance_leases import SILENT_SECONDS
from passthrough.storage.allowances_book import Orphan, orphans
from passthrough.storage.allowances_desk import Desk

_log = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 2.0
_BURY: Final = "SELECT passthrough_bury($1, $2::jsonb, $3) AS leases"
_EXPIRE: Final = "SELECT passthrough_expire(make_interval(secs => $1)) AS ended"
_FORGET_SECONDS: Final = 600.0
# What says nothing any more: a window that is long over, slots that nobody holds. Callers make up end users, and where
# all of these are limited, each leaves a row. Whoever comes back finds a new one.
_FORGET: Final = """
DELETE FROM allowances WHERE id IN (
    SELECT id FROM allowances old
    WHERE (ends_at < now() - interval '1 day' OR (kind = 2 AND held = 0 AND created_at < now() - interval '1 day'))
    AND NOT EXISTS (SELECT FROM allowance_leases lease WHERE lease.allowance = old.id)
    ORDER BY subject COLLATE "C", name COLLATE "C", kind, period COLLATE "C", model COLLATE "C"
    LIMIT 10000 FOR UPDATE SKIP LOCKED
)
"""


class Heirs:
    """Looks for dead workers in `directory`; their journals are in `journals`."""

    def __init__(self, desk: Desk, directory: Path, journals: Path) -> None:
        self._desk = desk
        self._directory = directory
        self._journals = journals
        self._sweeping = asyncio.Lock()
        self.buried = 0

    async def run(self) -> None:
        """Look now and then; the owner cancels it."""
        loop = asyncio.get_running_loop()
        forgotten_at = loop.time()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await self.sweep()
            await self._expire()
            if loop.time() - forgotten_at >= _FORGET_SECONDS:
                forgotten_at = loop.time()
                await self.forget()

    async def sweep(self) -> set[str]:
        """Bury whoever is dead; names them. Never raises what PostgreSQL's absence raises: it is tried again."""
        dead = set()
        async with self._sweeping:
            for orphan in await asyncio.to_thread(lambda: list(orphans(self._directory))):
                dead.add(orphan.holder)
                done = False
                try:
                    done = await self.bury(orphan.holder, orphan.figures())
                except Unavailable:
                    pass
                finally:
                    self._release(orphan, done=done)
        return dead

    async def bury(self, holder: str, figures: dict[int, int]) -> bool:
        """Give back what a worker held; True if nothing is left to wait for."""
        shipped = not await asyncio.to_thread((self._journals / holder).exists)
        noted = json.dumps({str(number): figure for number, figure in figures.items()})
        (row,) = await self._desk.fetch(_BURY, holder, noted, shipped)
        return shipped and not row["leases"]

    async def forget(self) -> None:
        """Remove the rows of allowances that say nothing any more."""
        with contextlib.suppress(Unavailable):
            await self._desk.fetch(_FORGET)

    def _release(self, orphan: Orphan, *, done: bool) -> None:
        if done:
            self.buried += 1
            _log.info("what a worker that died had leased was given back", extra={"holder": orphan.holder})
        orphan.release(remove=done)

    async def _expire(self) -> None:
        """End the calls of workers that were silent for long, if we would have heard them."""
        if not self._desk.open or asyncio.get_running_loop().time() - self._desk.since < SILENT_SECONDS:
            return
        try:
            (row,) = await self._desk.fetch(_EXPIRE, SILENT_SECONDS)
        except Unavailable:
            return
        if row["ended"]:
            _log.warning("workers fell silent, their open calls do not count any more", extra={"leases": row["ended"]})
