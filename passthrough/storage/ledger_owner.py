"""Who may ship which segments: one directory per process, locked for as long as the process lives.

The kernel drops the lock when a process dies, however it dies; then exactly one sibling or successor can take
it and adopt what was left. The lock is flock(2)'s: it belongs to the open file, so a journal must be opened
after a fork, never before.
"""

import fcntl
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

_LOCK = "lock"
_UNBORN = ".new-"
SEGMENT_SUFFIX = ".calls"


class OwnedDirectory:
    """A directory of segments that this process, and no other, reads and removes."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def segments(self) -> list[Path]:
        """Return the segments, oldest first."""
        return sorted(self.path.glob(f"*{SEGMENT_SUFFIX}"))

    def release(self) -> None:
        """Let others adopt what is left; if nothing is, remove the directory."""
        if not self.segments():
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def create(parent: Path, name: str) -> OwnedDirectory:
    """Make a directory that is locked before anybody else can see it under its name. Raises OSError."""
    unborn = parent / f"{_UNBORN}{uuid.uuid4().hex}"
    unborn.mkdir(parents=True, mode=0o700)
    lock = _lock(unborn, create=True)
    if lock is None:  # nobody knows this name
        raise BlockingIOError(f"{unborn} is locked by another process")
    try:
        unborn.rename(parent / name)
    except OSError:
        os.close(lock)
        raise
    return OwnedDirectory(parent / name, lock)


def adopt(parent: Path) -> list[OwnedDirectory]:
    """Take over the directories whose process is gone, oldest first; release each when it is done with."""
    locked = ((path, _lock(path, create=False)) for path in _candidates(parent))
    return [OwnedDirectory(path, lock) for path, lock in locked if lock is not None]


def abandoned(parent: Path) -> dict[Path, bool]:
    """Tell of each directory whether its process is gone and nobody has adopted it yet.

    Who looks at once with others hinders none of them; an adoption that meets a look is tried again.
    """
    return {path: _is_free(path) for path in _candidates(parent)}


def _candidates(parent: Path) -> list[Path]:
    with suppress(FileNotFoundError):
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(_UNBORN))
    return []


def _lock(directory: Path, *, create: bool) -> int | None:
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None  # its owner removed it just now
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_free(directory: Path) -> bool:
    try:
        lock = os.open(directory / _LOCK, os.O_RDONLY)
    except OSError:  # its owner has just removed it, or it is not for us to look at
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(lock)
