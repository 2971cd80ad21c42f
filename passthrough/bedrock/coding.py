"""Content codings of a body (RFC 9110 §8.4.1), undone piece by piece and within bounds."""

import zlib
from collections.abc import Iterator

COMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})

# A decompression bomb; the largest honest answer is a batch of images, and images hardly compress.
MAX_INFLATED_BYTES = 256 * 1024 * 1024
_STEP_BYTES = 64 * 1024
_GZIP_OR_ZLIB, _RAW_DEFLATE = 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS  # wbits of zlib.decompressobj


class Inflater:
    """Undoes gzip and deflate, whichever it is: many send bare deflate (RFC 1951) where zlib's is meant."""

    def __init__(self, limit: int = MAX_INFLATED_BYTES) -> None:
        self._inflate: zlib._Decompress | None = None
        self._start = b""
        self._limit = self._room = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` inflates to, in pieces; raise `zlib.error` for garbage, ValueError for too much."""
        if self._inflate is None:
            data = self._start + data
            if len(data) < 2:  # noqa: PLR2004  # two bytes tell which of the formats it is
                self._start = data
                return
            self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB if _has_header(data) else _RAW_DEFLATE)
        while data:
            piece = self._inflate.decompress(data, _STEP_BYTES)
            self._room -= len(piece)
            if self._room < 0:
                raise ValueError(f"A body inflates to more than {self._limit} bytes.")
            yield piece
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:  # gzip may have further members, RFC 1952 §2.2
                data = self._inflate.unused_data
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)


def _has_header(data: bytes) -> bool:
    gzip = data.startswith(b"\x1f\x8b")  # RFC 1952 §2.3.1
    return gzip or (data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0)  # noqa: PLR2004  # RFC 1950 §2.2
