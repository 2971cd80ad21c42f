"""The frames of `application/vnd.amazon.eventstream`: written, read, and skipped over.

One frame is, big-endian,

    total length (4) | headers (4) | CRC-32 of these 8 bytes (4) | headers | payload | CRC-32 of all (4)

and a header is `name length (1) | name | type (1) | value`. Frames are aligned neither to HTTP chunks nor to
TCP reads, so both readers take bytes as they come:

* `FrameDecoder` hands out every frame, verified. The sandbox, the probes and the tests read with it.
* `FrameScanner` follows the boundaries and hands out only the events that somebody wants. It stands beside a
  relay: it verifies the prelude alone (a wrong length would lose it for good, a wrong payload is the client's
  to notice) and never holds a payload that nobody wants.

Sources: botocore/eventstream.py (limits, header types), https://smithy.io/2.0/aws/amazon-eventstream.html.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import msgspec

HeaderValue = bool | int | bytes | str

PRELUDE_BYTES = 12
OVERHEAD_BYTES = 16  # the prelude and the trailing checksum
MAX_HEADERS_BYTES = 128 * 1024  # botocore/eventstream.py, _MAX_HEADERS_LENGTH
MAX_PAYLOAD_BYTES = 24 * 1024 * 1024  # botocore/eventstream.py, _MAX_PAYLOAD_LENGTH
MAX_WANTED_BYTES = 1024 * 1024  # FrameScanner holds a wanted frame whole; agents' traces have tens of KB

_PRELUDE = struct.Struct(">III")
_unpack_prelude = _PRELUDE.unpack_from  # bound once: it runs for every streamed frame
_PRELUDE_SUM = struct.Struct(">II")
_WORD = struct.Struct(">I")
_HALF = struct.Struct(">H")
_STRING_TYPE = 7
_CONSTANTS = {0: True, 1: False}
# byte, short, integer, long, and the timestamp in milliseconds
_INTEGERS = {kind: struct.Struct(">" + code) for kind, code in ((2, "b"), (3, "h"), (4, "i"), (5, "q"), (8, "q"))}
_UUID_TYPE, _UUID_BYTES = 9, 16
_BYTES_TYPE = 6


class EventStreamError(ValueError):
    """The bytes are no event stream; `frames` are the good ones that came before them in the same `feed`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.frames: list[Frame] = []


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: its headers (timestamps in milliseconds, uuids as 16 bytes) and its payload."""

    headers: Mapping[str, HeaderValue]
    payload: bytes

    @property
    def event_type(self) -> str | None:
        """The event's name; None for an exception or an error."""
        name = self.headers.get(":event-type")
        return name if isinstance(name, str) else None


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Write one frame with string headers, the only type that Bedrock uses."""
    block = b"".join(_string_header(name, value) for name, value in headers.items())
    lengths = _PRELUDE_SUM.pack(OVERHEAD_BYTES + len(block) + len(payload), len(block))
    message = b"".join((lengths, _WORD.pack(crc32(lengths)), block, payload))
    return message + _WORD.pack(crc32(message))


def exception_frame(exception_type: str, message: str) -> bytes:
    """Write the frame that SDKs raise as their modelled exception, e.g. `internalServerException`."""
    headers = {
        ":exception-type": exception_type,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode(headers, msgspec.json.encode({"message": message}))


def _string_header(name: str, value: str) -> bytes:
    raw_name, raw_value = name.encode(), value.encode()
    return b"".join((bytes((len(raw_name),)), raw_name, bytes((_STRING_TYPE,)), _HALF.pack(len(raw_value)), raw_value))


def parse_headers(block: bytes) -> dict[str, HeaderValue]:
    """Read a headers block; raise `EventStreamError` if it is cut, repeats a name or has an unknown type."""
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(block):
            name_end = at + 1 + block[at]
            name = block[at + 1 : name_end].decode()
            if name in headers:
                raise EventStreamError(f"The header {name!r} comes twice in one frame.")
            headers[name], at = _header_value(block, name_end)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise EventStreamError("The headers of a frame are cut or garbled.") from error
    if at != len(block):
        raise EventStreamError("The headers of a frame are longer than they say.")
    return headers


def _header_value(block: bytes, at: int) -> tuple[HeaderValue, int]:
    """Read the value whose type byte is at `at`, and say where the next header begins."""
    kind = block[at]
    at += 1
    if kind in {_STRING_TYPE, _BYTES_TYPE}:
        (length,) = _HALF.unpack_from(block, at)
        raw = block[at + 2 : at + 2 + length]
        return (raw.decode() if kind == _STRING_TYPE else raw), at + 2 + length
    if kind in _INTEGERS:
        return int(_INTEGERS[kind].unpack_from(block, at)[0]), at + _INTEGERS[kind].size
    if kind == _UUID_TYPE:
        return block[at : at + _UUID_BYTES], at + _UUID_BYTES
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    raise EventStreamError(f"A header has the unknown type {kind}.")


class FrameDecoder:
    """Every frame of a stream, verified. After an `EventStreamError` it is of no more use."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def at_boundary(self) -> bool:
        """False while part of a frame has come."""
        return not self._held

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes; raise `EventStreamError` on a wrong length or checksum."""
        self._held += data
        frames: list[Frame] = []
        try:
            while (frame := self._next()) is not None:
                frames.append(frame)
        except EventStreamError as error:
            error.frames = frames
            raise
        return frames

    def _next(self) -> Frame | None:
        held = self._held
        if len(held) < PRELUDE_BYTES:
            return None
        total, headers_length, checksum = _PRELUDE.unpack_from(held)
        _verify(held[:8], checksum, "prelude")
        payload_length = total - headers_length - OVERHEAD_BYTES
        if headers_length > MAX_HEADERS_BYTES or not 0 <= payload_length <= MAX_PAYLOAD_BYTES:
            raise EventStreamError(f"A frame of {total} bytes with {headers_length} of headers is not possible.")
        if len(held) < total:
            return None
        _verify(held[: total - 4], _WORD.unpack_from(held, total - 4)[0], "message")
        headers_end = PRELUDE_BYTES + headers_length
        headers = parse_headers(bytes(held[PRELUDE_BYTES:headers_end]))
        payload = bytes(held[headers_end : total - 4])
        del held[:total]
        return Frame(headers, payload)


def _verify(covered: bytearray, checksum: int, part: str) -> None:
    computed = crc32(covered)
    if computed != checksum:
        raise EventStreamError(f"The {part} checksum is {checksum:#010x}, its bytes give {computed:#010x}.")


class FrameScanner:
    """Where the frames of a stream end, and the payloads of the wanted events.

    `at_boundary` is True between frames; `fault` names the exception that the stream carried; `missed` is
    True once a wanted frame was too large to be held; `broken` once the bytes were no event stream: then
    nothing more is found and `at_boundary` stays False.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = frozenset(wanted)
        self._held = bytearray()  # the beginning of a frame,
        self._need = 0  # as long as it has fewer bytes than these
        self._skip = 0  # bytes still to come of a frame that nobody wants
        self.at_boundary = True
        self.fault: str | None = None
        self.missed = False
        self.broken = False

    def feed(self, data: bytes) -> Sequence[tuple[str, bytes]]:
        """Return the wanted events, as (event type, payload), that `data` completes. Never raises."""
        if not self.at_boundary:
            data = self._resume(data)
        at, end, need = 0, len(data), PRELUDE_BYTES
        found: list[tuple[str, bytes]] = []
        while end - at >= PRELUDE_BYTES:
            total, headers_length, checksum = _unpack_prelude(data, at)
            headers_end = at + PRELUDE_BYTES + headers_length
            frame_end = at + total
            if (
                headers_end + 4 > frame_end
                or headers_length > MAX_HEADERS_BYTES
                # A length that ends exactly where the bytes do is right: most frames come alone, and save the sum.
                or (frame_end != end and crc32(data[at : at + 8]) != checksum)
            ):
                return self._give_up(found)
            if headers_end > end:
                need = headers_end - at
                break
            name = _event_name(data[at + PRELUDE_BYTES : headers_end])
            if name in self._wanted:
                if frame_end <= end:
                    found.append((name, data[headers_end : frame_end - 4]))
                elif total <= MAX_WANTED_BYTES:
                    need = total
                    break
                else:
                    self.missed = True
            elif not name:
                self._note_fault(data[at + PRELUDE_BYTES : headers_end])
            at = frame_end
        if at != end or not self.at_boundary:
            self._suspend(data, at, need)
        return found

    def _resume(self, data: bytes) -> bytes:
        """Return what has come from the first undecided frame on, b"" if that is not enough to go on."""
        if self.broken:
            return b""
        if self._skip:
            passed = min(self._skip, len(data))
            self._skip -= passed
            return data[passed:]
        self._held += data
        if len(self._held) < self._need:
            return b""
        data = bytes(self._held)
        self._held.clear()
        return data

    def _suspend(self, data: bytes, at: int, need: int) -> None:
        """Remember that the frame at `at` is not over."""
        if at > len(data):
            self._skip = at - len(data)
        elif at < len(data):
            self._held += data[at:]
            self._need = need
        self.at_boundary = not (self._skip or self._held or self.broken)

    def _note_fault(self, block: bytes) -> None:
        headers = parse_headers(block)
        fault = headers.get(":exception-type") or headers.get(":error-code")
        if isinstance(fault, str):
            self.fault = fault

    def _give_up(self, found: Sequence[tuple[str, bytes]]) -> Sequence[tuple[str, bytes]]:
        self.broken = True
        self.at_boundary = False
        self._held.clear()
        return found


@lru_cache(maxsize=256)  # a stream has half a dozen different headers blocks
def _event_name(block: bytes) -> str:
    """Return the event type; "" for an exception or error, "?" for headers that cannot be read."""
    try:
        headers = parse_headers(block)
    except EventStreamError:
        return "?"
    name = headers.get(":event-type", "?")
    return name if isinstance(name, str) and headers.get(":message-type", "event") == "event" else ""
