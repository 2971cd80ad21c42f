"""From segments into the database, in order, for as long as there are any; the journal's way out.

The database may be away for an hour: then this waits and tries again, and the journal grows. It may refuse one
call for what is in it: then that call is cleaned, or put aside, and the others go on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg
import msgspec

from passthrough.policy.ledger import Entry, storable
from passthrough.storage import ledger_owner
from passthrough.storage.journal import Journal, Segment
from passthrough.storage.ledger_backlog import BATCH, SegmentReader, decode, put_aside
from passthrough.storage.ledger_writer import LedgerWriter

_log = logging.getLogger(__name__)

# What is in a batch, not what the database is going through: data exceptions (class 22, and asyncpg's own before
# sending), a violated constraint (23), an index entry too long (54).
_UNACCEPTABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    OverflowError,
)
_RENEW_SECONDS = 60  # an idle segment that is wholly shipped is removed after so long


class Shipper:
    """Ships one process's journal, and whatever orphans it finds beside it.

    `shipped` counts the calls of this journal that are dealt with, `stored` the rows that were new, `rejected`
    those put aside.
    """

    def __init__(self, journal: Journal, parent: Path, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._parent = parent
        self._clock = clock
        self._readers: dict[Path, SegmentReader] = {}
        self._renewed = clock()
        self.shipped = 0
        self.stored = 0
        self.rejected = 0
        self.adopted = 0
        self.damaged_bytes = 0

    async def ship_own(self, writer: LedgerWriter) -> None:
        """Ship what the journal holds now, oldest first, and remove what is done with."""
        for segment in self._journal.segments:
            reader = self._readers.get(segment.path)
            if reader is None:
                reader = self._readers[segment.path] = SegmentReader(segment.path)
            self.shipped += await self._ship(reader, writer, segment)
            if segment.sealed and reader.offset >= segment.size:
                self._dispose(reader)
                del self._readers[segment.path]
                self._journal.discard(segment)
        self._renew()

    async def ship_orphans(self, writer: LedgerWriter) -> None:
        """Adopt what dead processes left, and ship it."""
        orphans = await asyncio.to_thread(ledger_owner.adopt, self._parent)
        self._journal.adopted = frozenset(orphan.path for orphan in orphans)
        try:
            for orphan in orphans:
                for path in orphan.segments():
                    await self._ship_orphan(path, writer)
        finally:
            self._journal.adopted = frozenset()
            for orphan in orphans:
                orphan.release()

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    async def _ship_orphan(self, path: Path, writer: LedgerWriter) -> None:
        reader = SegmentReader(path)
        try:
            segment = Segment(path, reader.file_size(), sealed=True)
            count = await self._ship(reader, writer, segment)
        except BaseException:
            reader.close()
            raise
        self.adopted += count
        _log.info("calls of a process that ended were shipped", extra={"calls": count, "segment": str(path)})
        self._dispose(reader)

    async def _ship(self, reader: SegmentReader, writer: LedgerWriter, segment: Segment) -> int:
        count = 0
        while batch := await reader.batch(segment.size, sealed=segment.sealed):
            began = time.thread_time()
            await self._store(self._decoded(batch), writer)
            reader.confirm(len(batch))
            count += len(batch)
            if len(batch) == BATCH:
                # A backlog: leave as much CPU to live calls as it takes, most of which is theirs anyway when busy.
                await asyncio.sleep(time.thread_time() - began)
        return count

    async def _store(self, entries: Sequence[tuple[bytes, Entry]], writer: LedgerWriter) -> None:
        """Store calls at once; of those that are refused, each half by itself, until the one is found that is to blame.

        So it costs a few transactions more and no other call anything: clients have ways to be refused.
        """
        try:
            self.stored += await writer.write([entry for _, entry in entries], self._clock())
        except _UNACCEPTABLE as error:
            if len(entries) > 1:
                half = len(entries) // 2
                await self._store(entries[:half], writer)
                await self._store(entries[half:], writer)
            else:
                _log.warning("a call was not accepted, cleaning it", extra={"cause": str(error)})
                await self._store_cleaned(*entries[0], writer)

    async def _store_cleaned(self, payload: bytes, entry: Entry, writer: LedgerWriter) -> None:
        try:
            self.stored += await writer.write([storable(entry)], self._clock())
        except _UNACCEPTABLE as error:
            self._reject(payload, str(error))

    def _decoded(self, batch: Sequence[bytes]) -> list[tuple[bytes, Entry]]:
        entries = []
        for payload in batch:
            try:
                entries.append((payload, decode(payload)))
            except msgspec.MsgspecError as error:
                self._reject(payload, str(error))
        return entries

    def _reject(self, payload: bytes, reason: str) -> None:
        self.rejected += 1
        _log.error("a call cannot be stored and was put aside in rejected.jsonl", extra={"cause": reason})
        put_aside(self._parent, payload, reason)

    def _dispose(self, reader: SegmentReader) -> None:
        """Close and remove a segment; one with damage is kept, under a name that nobody ships."""
        reader.close()
        if reader.damaged_bytes:
            self.damaged_bytes += reader.damaged_bytes
            kept = self._parent / f"{reader.path.parent.name}-{reader.path.name}.damaged"
            reader.path.rename(kept)
            _log.error("a segment was damaged", extra={"bytes": reader.damaged_bytes, "kept": str(kept)})
        else:
            reader.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        """Begin a new segment now and then, so that shipped calls do not stay on the disk for long."""
        if self._clock() - self._renewed >= _RENEW_SECONDS:
            self._renewed = self._clock()
            self._journal.seal()
