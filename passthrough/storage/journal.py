"""The journal: finished calls on disk until they are in the database.

`append` writes a frame with one write(2) before it returns, so a call that was appended survives the death of
this process at any moment after. It survives the death of the machine once `sync` has run, which its owner
does every `journal_fsync_seconds` in a thread: fsync costs milliseconds, a call has microseconds.

A segment is closed when it is large, or old and wholly shipped, or when what a failed write left in it cannot be cut
off: it is then at a segment's end, where the decoder expects it. After a failed write no other segment is begun
before `inspect` has found that the disk takes writes again. One thread appends; `sync` and `inspect` run in others.
"""

import errno
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from passthrough.errors import Unavailable
from passthrough.storage import ledger_frames, ledger_owner

MIB = 1024 * 1024
SEGMENT_BYTES = 8 * MIB  # about 15,000 calls: a replay after a crash sends no more than that again
NOT_NOW = "The proxy cannot record calls at the moment; try again later."
_SEGMENTS = 8  # a small journal has small segments: what is shipped of the growing one counts as its size
# Calls that are open when the journal becomes full must still find room: 16 MiB is some 30,000 of them,
# or 256 that say as much of themselves as they may.
HEADROOM_BYTES = 16 * MIB


@dataclass(slots=True)
class Segment:
    """A file of frames. `size` is the end of its last whole frame; a `sealed` one does not grow any more."""

    path: Path
    size: int
    sealed: bool


class Journal:
    """The segments of this process, in a directory of its own below `parent`.

    `max_bytes` bounds what all processes together keep below `parent`. `name` orders the directories by age.
    Raises OSError when the directory cannot be made.
    """

    def __init__(self, parent: Path, *, name: str, max_bytes: int, sync_each: bool = False) -> None:
        self._parent = parent
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // _SEGMENTS)
        self._sync_each = sync_each
        self._owned = ledger_owner.create(parent, name)
        self._segments: list[Segment] = []
        self._next_number = 1
        self._file: int | None = None
        self._salt = 0
        self._unsynced: list[int] = []
        self._dirty = False
        self._new_names = True
        self._syncing = threading.Lock()
        self._own_bytes = 0
        self._others_bytes = 0
        self._orphans_bytes = 0
        self.adopted: frozenset[Path] = frozenset()  # the directories that this process ships beside its own
        self._problem: str | None = None
        self._takes_writes = True  # what is full but for the headroom has a problem, and takes those of open calls

    @property
    def size(self) -> int:
        """Bytes that this process and, as of the last `inspect`, its siblings and orphans have on disk."""
        return self._own_bytes + self._others_bytes

    @property
    def share(self) -> int:
        """Bytes of `size` that this process answers for; those of all processes add up to what is on the disk."""
        return self._own_bytes + self._orphans_bytes

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    def problem(self) -> str | None:
        """Say in one sentence why no call can be recorded, or None."""
        if self._problem is None and self.size >= self._max_bytes:
            return f"The journal in {self._parent} is full ({self.size} bytes wait for the database)."
        return self._problem

    def writable(self) -> bool:
        return self._problem is None and self._own_bytes + self._others_bytes < self._max_bytes

    def append(self, *payloads: bytes) -> None:
        """Write payloads at once, all or none. Raises `Unavailable` when there is no room or the disk refuses."""
        if self._own_bytes + self._others_bytes >= self._max_bytes + HEADROOM_BYTES:
            raise Unavailable(NOT_NOW, cause="journal full")
        try:
            if self._file is None and not self._takes_writes:  # else each refused call would try a file of its own
                raise Unavailable(NOT_NOW, cause=self._problem or "")
            file = self._file if self._file is not None else self._open()
            data = b"".join([ledger_frames.frame(payload, self._salt) for payload in payloads])
            _write(file, data)
            if self._sync_each:
                os.fdatasync(file)
        except OSError as error:
            self._give_up(error)
            raise Unavailable(NOT_NOW, cause=self._problem or "") from error
        segment = self._segments[-1]
        segment.size += len(data)
        self._own_bytes += len(data)
        self._dirty = True
        if segment.size >= self._segment_bytes:
            self.seal()

    def seal(self) -> None:
        """Close the growing segment; the next call begins a new one."""
        if self._file is not None:
            self._segments[-1].sealed = True
            self._unsynced.append(self._file)
            self._file = None

    def discard(self, segment: Segment) -> None:
        """Remove a sealed segment, all of which is in the database."""
        segment.path.unlink(missing_ok=True)
        self._segments.remove(segment)
        self._own_bytes -= segment.size

    def sync(self) -> None:
        """Bring to the disk what was appended. Blocks: run it in a thread.

        Only this method closes files, so that the growing one stays open while it is being synced.
        """
        with self._syncing:
            self._sync()

    def _sync(self) -> None:
        sealed, self._unsynced = self._unsynced, []
        growing, self._dirty = self._file if self._dirty else None, False
        new_names, self._new_names = self._new_names, False
        try:
            for file in sealed:
                os.fdatasync(file)
            if growing is not None:
                os.fdatasync(growing)
            if new_names:  # else a power loss may take a whole new file
                _sync_directory(self._owned.path)
        except OSError as error:
            self._problem = f"The journal in {self._parent} cannot be brought to disk: {error.strerror}."
        finally:
            for file in sealed:
                os.close(file)

    def inspect(self) -> None:
        """Find out whether the disk takes writes (again), and measure the siblings. Blocks: run in a thread."""
        self._probe()
        self._measure()

    def _probe(self) -> None:
        own = self._owned.path
        try:
            probe = own / "probe"
            probe.write_bytes(b"writable")
            probe.unlink()
            free = shutil.disk_usage(own).free
        except OSError as error:
            self._takes_writes = False
            self._problem = f"The journal in {self._parent} cannot be written: {error.strerror}."
            return
        self._takes_writes = True
        full = free < HEADROOM_BYTES
        self._problem = f"The disk of the journal in {self._parent} is full." if full else None

    def _measure(self) -> None:
        own, adopted = self._owned.path, self.adopted
        sizes: dict[Path, int] = {}
        for path in self._parent.glob(f"*/*{ledger_owner.SEGMENT_SUFFIX}"):
            if path.parent != own:
                sizes[path.parent] = sizes.get(path.parent, 0) + _size(path)
        abandoned = ledger_owner.abandoned(self._parent)
        # What nobody has adopted yet is counted by one of those that live: the eldest.
        eldest = all(free or path >= own or path in adopted for path, free in abandoned.items())
        ours = {path for path, free in abandoned.items() if eldest and free} | adopted
        self._others_bytes = sum(sizes.values())
        self._orphans_bytes = sum(size for path, size in sizes.items() if path in ours)

    def close(self) -> None:
        """Sync, and leave what is not shipped to whoever adopts it. Blocks."""
        self.seal()
        self.sync()
        self._owned.release()

    def _open(self) -> int:
        path = self._owned.path / f"{self._next_number:08d}{ledger_owner.SEGMENT_SUFFIX}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._next_number += 1
        salt = ledger_frames.new_salt()
        header = ledger_frames.segment_header(salt)
        try:
            _write(file, header)
        except OSError:
            os.close(file)
            path.unlink()  # it would be damage to the decoder
            raise
        self._file, self._salt = file, salt
        self._new_names = True
        self._segments.append(Segment(path, len(header), sealed=False))
        self._own_bytes += len(header)
        return file

    def _give_up(self, error: OSError) -> None:
        """After a write that failed: cut off what it left. A smaller call may still find room there."""
        self._takes_writes = False
        self._problem = f"The journal in {self._parent} cannot be written: {error}."
        if self._file is not None:
            try:
                os.ftruncate(self._file, self._segments[-1].size)
            except OSError:  # it stays there, and is damage to the decoder
                self.seal()


def _write(file: int, data: bytes) -> None:
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # shipped just now
        return 0


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
