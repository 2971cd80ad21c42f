"""Calls that end in one turn of the event loop are written together, and none of their clients hears of it before."""

import asyncio
from functools import partial
from pathlib import Path

import msgspec
import pytest

from passthrough.errors import Unavailable
from passthrough.policy.ledger import Entry, uuid7
from passthrough.storage.database import Database
from passthrough.storage.journal import Journal
from passthrough.storage.ledger import Ledger
from tests.storage.disk import files_limited_to, in_order

decode = msgspec.msgpack.Decoder(Entry).decode


def call(end_user: str = "somebody") -> Entry:
    return Entry(call_id=uuid7(1_770_000_000.0), started_at=1_770_000_000.0, end_user=end_user)


def recorded(folder: Path) -> list[str]:
    return [decode(payload).call_id for payload in in_order(folder)]


class Told:
    """What was said of calls, and what stood in the journal when it was said."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: dict[str, Unavailable | None] = {}
        self.found: list[list[str]] = []

    def of(self, entry: Entry, problem: Unavailable | None) -> None:
        self.problems[entry.call_id] = problem
        self.found.append(recorded(self._folder))

    def append(self, ledger: Ledger, *entries: Entry) -> None:
        for entry in entries:
            ledger.append_soon(entry, partial(self.of, entry))


class NoMemory:
    """A journal that fails as nobody foresaw."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def append(self, *payloads: bytes) -> None:
        if len(payloads) > 1:
            raise MemoryError
        self._journal.append(*payloads)

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)


async def test_whatever_fails_in_a_write_no_call_waits_for_ever(tmp_path: Path, database: Database) -> None:
    told, calls = Told(tmp_path), [call() for _ in range(3)]
    async with Ledger(tmp_path, database.connect) as ledger:
        ledger._journal = NoMemory(ledger._journal)  # type: ignore[assignment]  # a fake
        told.append(ledger, *calls)
        await asyncio.sleep(0)
        assert told.problems == {entry.call_id: None for entry in calls}  # one by one there was room
        await ledger.flush(10)


@pytest.mark.parametrize("fsync_seconds", [0.0, 1.0])
async def test_calls_of_one_turn_are_all_recorded_before_the_first_is_told(
    tmp_path: Path, database: Database, fsync_seconds: float
) -> None:
    told, calls = Told(tmp_path), [call() for _ in range(3)]
    async with Ledger(tmp_path, database.connect, fsync_seconds=fsync_seconds) as ledger:
        told.append(ledger, *calls)
        assert not told.problems
        await asyncio.sleep(0)
        written = [entry.call_id for entry in calls]
        assert told.problems == dict.fromkeys(written)
        assert told.found == [written] * 3
        later = call()
        told.append(ledger, later)
        await asyncio.sleep(0)
        assert told.found[3] == [*written, later.call_id]
        await ledger.flush(10)
        assert ledger.state().stored_calls == 4


async def test_what_ends_after_the_last_turn_is_recorded_too(tmp_path: Path, database: Database) -> None:
    told, last = Told(tmp_path), call()
    async with Ledger(tmp_path, database.connect) as ledger:
        told.append(ledger, last)
    assert told.problems == {last.call_id: None}
    assert ledger.state().stored_calls == 1


async def test_a_disk_without_room_for_all_of_them_has_it_for_some(tmp_path: Path, database: Database) -> None:
    told = Told(tmp_path)
    small, large, other = call(), call("x" * 3000), call()
    async with Ledger(tmp_path, database.connect) as ledger:
        with files_limited_to(1000):
            told.append(ledger, small, large, other)
            await asyncio.sleep(0)
        assert told.problems[small.call_id] is told.problems[other.call_id] is None
        assert isinstance(told.problems[large.call_id], Unavailable)
        assert recorded(tmp_path) == [small.call_id, other.call_id]
        await ledger.flush(10)
        assert ledger.state().stored_calls == 2


async def test_a_call_that_is_too_large_for_the_journal_is_told_so(tmp_path: Path, database: Database) -> None:
    told, large = Told(tmp_path), call()
    large.charges = ((2**63, 2**63, 2**63, 2**63, True),) * 3000
    async with Ledger(tmp_path, database.connect) as ledger:
        told.append(ledger, large)
        assert isinstance(told.problems[large.call_id], Unavailable)


async def test_a_client_that_cannot_be_told_keeps_no_other_waiting(
    tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: Unavailable | None) -> None:
        raise RuntimeError("a bug in ending")

    told, other = Told(tmp_path), call()
    async with Ledger(tmp_path, database.connect) as ledger:
        ledger.append_soon(call(), failing)
        told.append(ledger, other)
        await asyncio.sleep(0)
        assert told.problems == {other.call_id: None}
    assert "a recorded call could not be ended" in caplog.text
