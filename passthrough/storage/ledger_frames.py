"""How a journal's segment is laid out, without touching a file.

A segment begins with `SEGMENT_HEADER_BYTES` bytes: a magic word and a random salt. Frames follow: the
payload's length and its CRC-32, both little-endian, then the payload. The CRC starts from salt and length, so
that neither zeros, nor blocks of an older file that a file system brings back after a power loss, nor a frame
that somebody hid inside a user agent can pass for one of ours.

A process may die in the middle of a frame, a disk may damage one. The decoder gives every frame that is
whole, and looks for the next one behind whatever is not.
"""

import os
import re
import struct
import zlib

_MAGIC = b"ptcalls\x01"
_HEADER = struct.Struct("<8sI")
_FRAME = struct.Struct("<II")
SEGMENT_HEADER_BYTES = _HEADER.size
FRAME_HEADER_BYTES = _FRAME.size
# A call takes about 500 bytes; bounds what a damaged length can claim. To a reader of another release a longer frame is
# damage, so in a rolling upgrade nobody may write one before everybody reads it.
LARGEST_PAYLOAD_BYTES = 64 * 1024
_SOMETHING = re.compile(rb"[^\x00]")


def new_salt() -> int:
    return int.from_bytes(os.urandom(4), "little")


def segment_header(salt: int) -> bytes:
    return _HEADER.pack(_MAGIC, salt)


def frame(payload: bytes, salt: int) -> bytes:
    """Return the payload framed; it must be 1 to `LARGEST_PAYLOAD_BYTES` long."""
    length = len(payload)
    return _FRAME.pack(length, zlib.crc32(payload, salt ^ length)) + payload


class SegmentDecoder:
    """Bytes of one segment in, in any chunks; payloads out.

    `damaged_bytes` counts what belonged to no whole frame, `at_boundary` is False while the last bytes are an
    incomplete one. What is not a segment at all gives no payload and is all damage.
    """

    def __init__(self) -> None:
        self.damaged_bytes = 0
        self._buffer = b""
        self._salt: int | None = None

    @property
    def at_boundary(self) -> bool:
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that `data` completes."""
        self._buffer += data
        if self._salt is None and not self._read_header():
            return []
        return self._read_frames(final=False)

    def finish(self) -> list[bytes]:
        """Say that no more bytes come: return what stands behind a frame that will never be complete."""
        payloads = self._read_frames(final=True) if self._salt is not None else []
        self.damaged_bytes += len(self._buffer)
        self._buffer = b""
        return payloads

    def _read_header(self) -> bool:
        if len(self._buffer) < SEGMENT_HEADER_BYTES:
            return False
        magic, salt = _HEADER.unpack_from(self._buffer)
        if magic != _MAGIC:
            self.damaged_bytes += len(self._buffer)
            self._buffer = b""
            return False
        self._salt = salt
        self._buffer = self._buffer[SEGMENT_HEADER_BYTES:]
        return True

    def _read_frames(self, *, final: bool) -> list[bytes]:
        buffer, salt, position = self._buffer, self._salt or 0, 0
        payloads = []
        while (room := len(buffer) - position - FRAME_HEADER_BYTES) >= 0:
            length, checksum = _FRAME.unpack_from(buffer, position)
            start = position + FRAME_HEADER_BYTES
            if 0 < length <= LARGEST_PAYLOAD_BYTES:
                if length > room and not final:
                    break
                payload = buffer[start : start + length]
                if length <= room and zlib.crc32(payload, salt ^ length) == checksum:
                    payloads.append(payload)
                    position = start + length
                    continue
            following = _after_damage(buffer, position)
            self.damaged_bytes += following - position
            position = following
        self._buffer = buffer[position:]
        return payloads


def _after_damage(buffer: bytes, position: int) -> int:
    """Return where a frame could next begin: one byte on, or behind a run of zeros."""
    something = _SOMETHING.search(buffer, position + 1)
    if something is None:
        return len(buffer)
    # A frame's own length may begin with zeros no earlier than three bytes before its first other byte.
    return max(position + 1, something.start() - 3)
