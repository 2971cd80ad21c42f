"""Calls out of a segment, in batches that are given again until they are confirmed."""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from passthrough.policy.ledger import Entry
from passthrough.storage.ledger_frames import SegmentDecoder

BATCH = 256  # decoding and encoding so many keeps the event loop for about 3 ms
_READ_BYTES = 128 * 1024  # about one batch
_decode = msgspec.msgpack.Decoder(Entry).decode


class SegmentReader:
    """Reads one segment from its beginning.

    `offset` is what was read of the file, `damaged_bytes` what of that belonged to no call.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self._file = os.open(path, os.O_RDONLY)
        self._decoder = SegmentDecoder()
        self._waiting: list[bytes] = []

    @property
    def damaged_bytes(self) -> int:
        return self._decoder.damaged_bytes

    def file_size(self) -> int:
        return os.fstat(self._file).st_size

    async def batch(self, size: int, *, sealed: bool) -> Sequence[bytes]:
        """Return the next calls, at most `BATCH`, of the file's first `size` bytes; the same until `confirm`."""
        while len(self._waiting) < BATCH and self.offset < size:
            wanted = min(_READ_BYTES, size - self.offset)
            # In a thread: after an outage of the database the file is on the disk, not in memory.
            data = await asyncio.to_thread(os.pread, self._file, wanted, self.offset)
            self.offset = size if not data else self.offset + len(data)
            self._waiting += self._decoder.feed(data)
        if sealed and self.offset >= size and not self._decoder.at_boundary:
            self._waiting += self._decoder.finish()
        return self._waiting[:BATCH]

    def confirm(self, count: int) -> None:
        """Say that the first `count` calls of the batch are stored."""
        del self._waiting[:count]

    def close(self) -> None:
        os.close(self._file)


def decode(payload: bytes) -> Entry:
    """Return the entry. Raises `msgspec.MsgspecError` (of which `DecodeError` is one) for what is none."""
    return _decode(payload)


def put_aside(directory: Path, payload: bytes, reason: str) -> None:
    """Keep a call that cannot be stored where a person finds it: a line of JSON with its bytes in hex."""
    line = {"at": time.time(), "reason": reason, "entry_hex": payload.hex()}
    file = os.open(directory / "rejected.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)
