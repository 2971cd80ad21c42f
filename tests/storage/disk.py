"""What a journal has left on the disk, and a disk that takes no more."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from passthrough.storage.ledger_frames import SegmentDecoder


def contents(path: Path) -> list[bytes]:
    decoder = SegmentDecoder()
    return decoder.feed(path.read_bytes()) + decoder.finish()


def in_order(parent: Path) -> list[bytes]:
    return [payload for path in sorted(parent.glob("*/*.calls")) for payload in contents(path)]


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """As a full disk does it: a write comes back short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
