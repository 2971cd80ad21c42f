"""Frames against botocore's own reader, on any chunking."""

import struct
from collections.abc import Callable, Iterable
from itertools import pairwise
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from botocore.exceptions import EventStreamError as BotocoreEventStreamError
from botocore.model import ServiceModel
from botocore.parsers import EventStreamJSONParser
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.eventstream import (
    MAX_WANTED_BYTES,
    EventStreamError,
    Frame,
    FrameDecoder,
    FrameScanner,
    encode,
    exception_frame,
    parse_headers,
)


def event(name: str, payload: bytes) -> bytes:
    return encode({":event-type": name, ":content-type": "application/json", ":message-type": "event"}, payload)


STREAM = [
    event("messageStart", b'{"role":"assistant","p":"abc"}'),
    event("contentBlockDelta", b'{"delta":{"text":"hi"}}'),
    event("contentBlockStop", b""),
    event("metadata", b'{"usage":{"inputTokens":3}}'),
]


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def in_sevens(data: bytes) -> list[bytes]:
    return [data[at : at + 7] for at in range(0, len(data), 7)]


CHUNKINGS = [whole, byte_by_byte, in_sevens]
names = st.text(min_size=1, max_size=20)
header_maps = st.dictionaries(names, st.text(max_size=40), max_size=4)


@st.composite
def chunked(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=12)) | {0, len(data)})
    return [data[start:end] for start, end in pairwise(cuts)]


def botocore_reads(chunks: Iterable[bytes]) -> list[Frame]:
    buffer = EventStreamBuffer()
    frames = []
    for chunk in chunks:
        buffer.add_data(chunk)
        frames += [Frame(message.headers, bytes(message.payload)) for message in buffer]
    return frames


def we_read(chunks: Iterable[bytes]) -> list[Frame]:
    decoder = FrameDecoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_a_stream_is_read_as_botocore_reads_it(chunking: Callable[[bytes], list[bytes]]) -> None:
    chunks = chunking(b"".join(STREAM))
    frames = we_read(chunks)
    assert frames == botocore_reads(chunks)
    assert [frame.event_type for frame in frames] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockStop",
        "metadata",
    ]


@given(st.data(), st.lists(st.tuples(header_maps, st.binary(max_size=300)), max_size=4))
def test_any_frames_in_any_chunks_are_read_as_botocore_reads_them(
    data: st.DataObject, frames: list[tuple[dict[str, str], bytes]]
) -> None:
    chunks = data.draw(chunked(b"".join(encode(headers, payload) for headers, payload in frames)))
    assert we_read(chunks) == botocore_reads(chunks) == [Frame(headers, payload) for headers, payload in frames]


def test_headers_of_every_type_are_read_as_botocore_reads_them() -> None:
    values = [
        b"\x00",
        b"\x01",
        b"\x02" + struct.pack(">b", -3),
        b"\x03" + struct.pack(">h", -300),
        b"\x04" + struct.pack(">i", -70000),
        b"\x05" + struct.pack(">q", -(2**40)),
        b"\x06" + struct.pack(">H", 3) + b"\x00\xff\x01",
        b"\x07" + struct.pack(">H", 3) + b"abc",
        b"\x08" + struct.pack(">q", 1_790_000_000_000),
        b"\x09" + bytes(range(16)),
    ]
    block = b"".join(b"\x01" + bytes([97 + at]) + value for at, value in enumerate(values))
    lengths = struct.pack(">II", 16 + len(block), len(block))
    message = lengths + struct.pack(">I", crc32(lengths)) + block
    frame = message + struct.pack(">I", crc32(message))
    assert we_read([frame]) == botocore_reads([frame])
    assert list(we_read([frame])[0].headers.values()) == [
        True,
        False,
        -3,
        -300,
        -70000,
        -(2**40),
        b"\x00\xff\x01",
        "abc",
        1_790_000_000_000,
        bytes(range(16)),
    ]


def test_a_tail_is_no_frame_yet() -> None:
    decoder = FrameDecoder()
    assert len(decoder.feed(STREAM[0] + STREAM[1][:20])) == 1
    assert not decoder.at_boundary
    assert [frame.event_type for frame in decoder.feed(STREAM[1][20:])] == ["contentBlockDelta"]
    assert decoder.at_boundary


@given(st.integers(0, len(STREAM[1]) - 1), st.integers(1, 255))
def test_one_wrong_byte_is_noticed(position: int, difference: int) -> None:
    wrong = bytearray(STREAM[1])
    wrong[position] ^= difference
    decoder = FrameDecoder()
    with pytest.raises(EventStreamError) as raised:
        decoder.feed(STREAM[0] + bytes(wrong) + bytes(2**10))
    assert [frame.event_type for frame in raised.value.frames] == ["messageStart"]
    with pytest.raises(ParserError):
        botocore_reads([bytes(wrong) + bytes(2**10)])


@pytest.mark.parametrize(("total", "headers"), [(15, 0), (20, 5), (2**31, 0), (2**20, 2**18)])
def test_impossible_lengths_are_refused_before_anything_is_held(total: int, headers: int) -> None:
    lengths = struct.pack(">II", total, headers)
    with pytest.raises(EventStreamError, match="not possible"):
        FrameDecoder().feed(lengths + struct.pack(">I", crc32(lengths)))


@pytest.mark.parametrize(
    "block",
    [
        b"\x05ab",
        b"\x01a",
        b"\x01a\x07\x00\x05ab",
        b"\x01a\x63",
        b"\x01\xff\x00",
        b"\x01a\x00\x01a\x00",
        b"\x01a\x05\x00",
    ],
)
def test_garbled_headers_are_refused(block: bytes) -> None:
    with pytest.raises(EventStreamError):
        parse_headers(block)


def test_botocore_raises_our_exception_frame_with_its_code_and_message() -> None:
    model = ServiceModel(Session().get_component("data_loader").load_service_model("bedrock-runtime", "service-2"))
    shape = model.operation_model("ConverseStream").get_event_stream_output()
    buffer = EventStreamBuffer()
    buffer.add_data(exception_frame("internalServerException", 'The upstream said "no"; try again.'))
    message = next(buffer)
    parsed = EventStreamJSONParser().parse(message.to_response_dict(), shape)
    error = BotocoreEventStreamError(parsed, "ConverseStream")
    assert error.response["Error"] == {
        "Code": "internalServerException",
        "Message": 'The upstream said "no"; try again.',
    }


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_the_scanner_hands_out_only_what_is_wanted(chunking: Callable[[bytes], list[bytes]]) -> None:
    scanner = FrameScanner(["metadata"])
    found = [event for chunk in chunking(b"".join(STREAM)) for event in scanner.feed(chunk)]
    assert found == [("metadata", b'{"usage":{"inputTokens":3}}')]
    assert scanner.at_boundary


@given(st.data())
def test_the_scanner_is_at_a_boundary_exactly_between_frames(data: st.DataObject) -> None:
    boundaries = {0}
    for frame in STREAM:
        boundaries.add(max(boundaries) + len(frame))
    scanner = FrameScanner(data.draw(st.sets(st.sampled_from(["metadata", "contentBlockDelta", "other"]))))
    seen = 0
    for chunk in data.draw(chunked(b"".join(STREAM))):
        scanner.feed(chunk)
        seen += len(chunk)
        assert scanner.at_boundary == (seen in boundaries)


def test_the_scanner_names_the_exception_that_a_stream_carried() -> None:
    scanner = FrameScanner(["metadata"])
    scanner.feed(STREAM[0] + exception_frame("modelStreamErrorException", "no"))
    assert scanner.fault == "modelStreamErrorException"
    scanner.feed(encode({":message-type": "error", ":error-code": "Oops", ":error-message": "no"}, b""))
    assert scanner.fault == "Oops"


@given(st.binary(min_size=12, max_size=200), st.binary(max_size=50))
def test_the_scanner_gives_up_on_what_is_no_stream(garbage: bytes, more: bytes) -> None:
    scanner = FrameScanner(["metadata"])
    scanner.feed(garbage)
    assert scanner.broken  # a CRC-32 that fits by chance would be worth reporting
    assert not scanner.at_boundary
    assert not scanner.feed(more + STREAM[3])
    assert not scanner.at_boundary


def test_a_wanted_frame_too_large_to_hold_is_skipped_and_marked() -> None:
    scanner = FrameScanner(["metadata"])
    large = event("metadata", bytes(MAX_WANTED_BYTES))
    assert not scanner.feed(large[:1000])
    assert not scanner.feed(large[1000:])
    assert scanner.missed
    assert scanner.at_boundary
    assert scanner.feed(STREAM[3])
