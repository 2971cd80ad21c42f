"""What a worker must not be forgotten to owe: a file in memory that outlives the process, one number for each lease.

Written with one store into mapped memory for each reservation, so it costs nothing, and is as true as can be when
the process dies at any moment (kill -9): the kernel keeps the page. Of money it holds what calls under way have
reserved, of requests and tokens all that was taken. A machine that dies takes the file along, or leaves an old one:
what its workers held then stays held, until their windows end or an administrator forgives it.

The file is locked for as long as its worker lives, and named after it. Who gets the lock of another worker's file knows
that this worker is dead.
"""

import contextlib
import fcntl
import mmap
import os
import struct
import uuid
from collections.abc import Iterator, MutableSequence
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".leases"
_PAIR: Final = struct.Struct("<qq")  # a lease's number, 0 for none, and its figure
_CHUNK_BYTES: Final = 16 * mmap.PAGESIZE
_PAIRS_PER_CHUNK: Final = _CHUNK_BYTES // _PAIR.size


class Book:
    """A worker's own book. Make it after a fork. Raises OSError when the directory cannot be written."""

    def __init__(self, directory: Path, holder: str) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = directory / f"{holder}{_SUFFIX}"
        unborn = directory / f".new-{uuid.uuid4().hex}"
        self._file = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unborn.rename(self.path)  # nobody sees it unlocked
        self._chunks: list[mmap.mmap] = []
        self._free: list[tuple[memoryview, int]] = []

    def place(self, number: int, figure: int) -> tuple[MutableSequence[int], int]:
        """Give a lease its line; returns where its figure is to be kept."""
        if not self._free:
            self._grow()
        cells, slot = self._free.pop()
        cells[slot] = figure
        cells[slot - 1] = number
        return cells, slot  # type: ignore[return-value]  # a memoryview of integers is a mutable sequence of them

    def rename(self, place: tuple[MutableSequence[int], int], number: int) -> None:
        cells, slot = place
        cells[slot - 1] = number

    def clear(self, place: tuple[MutableSequence[int], int]) -> None:
        """Take a lease's line away."""
        cells, slot = place
        cells[slot - 1] = 0
        self._free.append((cells, slot))  # type: ignore[arg-type]  # it came from `place`

    def figures(self) -> dict[int, int]:
        """Return the figure of each lease, by its number, as heirs would find it."""
        return _figures(self._file)

    def close(self, *, remove: bool) -> None:
        """Unlock the book; what is in it, unless removed, is for whoever adopts it."""
        if remove:
            self.path.unlink(missing_ok=True)
        fcntl.flock(self._file, fcntl.LOCK_UN)  # the mappings hold it too, and live as long as somebody's figures
        os.close(self._file)

    def _grow(self) -> None:
        start = len(self._chunks) * _CHUNK_BYTES
        os.ftruncate(self._file, start + _CHUNK_BYTES)
        chunk = mmap.mmap(self._file, _CHUNK_BYTES, offset=start)
        self._chunks.append(chunk)
        cells = memoryview(chunk).cast("q")
        self._free += [(cells, 2 * pair + 1) for pair in reversed(range(_PAIRS_PER_CHUNK))]


class Orphan:
    """The book of a worker that is dead; locked until it is released."""

    def __init__(self, path: Path, file: int) -> None:
        self.holder = path.name.removesuffix(_SUFFIX)
        self._path = path
        self._file = file

    def figures(self) -> dict[int, int]:
        """Return the figure of each lease, by its number."""
        return _figures(self._file)

    def release(self, *, remove: bool) -> None:
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._file)


def _figures(file: int) -> dict[int, int]:
    data = os.pread(file, os.fstat(file).st_size, 0)
    return {number: figure for number, figure in _PAIR.iter_unpack(data) if number}


def orphans(directory: Path) -> Iterator[Orphan]:
    """Lock and return each book whose worker is dead; release every one."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(directory.glob(f"*{_SUFFIX}")):
            file = _lock(path)
            if file is not None:
                yield Orphan(path, file)


def _lock(path: Path) -> int | None:
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    if not os.fstat(file).st_nlink:  # somebody dealt with it in between
        os.close(file)
        return None
    return file
