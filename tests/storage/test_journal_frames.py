import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.storage.ledger_frames import (
    FRAME_HEADER_BYTES,
    LARGEST_PAYLOAD_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentDecoder,
    frame,
    new_salt,
    segment_header,
)

payloads = st.lists(st.binary(min_size=1, max_size=200), max_size=8)
salts = st.integers(0, 2**32 - 1)


def segment(contents: list[bytes], salt: int) -> bytes:
    return segment_header(salt) + b"".join(frame(payload, salt) for payload in contents)


def decoded(*chunks: bytes) -> tuple[list[bytes], int]:
    decoder = SegmentDecoder()
    found = [payload for chunk in chunks for payload in decoder.feed(chunk)]
    return found + decoder.finish(), decoder.damaged_bytes


@given(payloads, salts)
def test_what_was_framed_comes_out_whole(contents: list[bytes], salt: int) -> None:
    assert decoded(segment(contents, salt)) == (contents, 0)


def test_the_largest_frame_is_read_by_every_release_of_a_rolling_upgrade() -> None:
    assert LARGEST_PAYLOAD_BYTES == 64 * 1024  # of 0.1.0; what is longer is damage to it
    largest = bytes(range(256)) * 256
    data = segment([largest, b"next"], 7)
    assert decoded(*(data[i : i + 1000] for i in range(0, len(data), 1000))) == ([largest, b"next"], 0)


@given(payloads, salts)
def test_what_was_framed_comes_out_byte_by_byte(contents: list[bytes], salt: int) -> None:
    data = segment(contents, salt)
    assert decoded(*(data[i : i + 1] for i in range(len(data)))) == (contents, 0)


@given(payloads, salts, st.binary(min_size=1, max_size=60))
def test_a_tail_of_rubbish_takes_nothing_along(contents: list[bytes], salt: int, tail: bytes) -> None:
    assert decoded(segment(contents, salt) + tail) == (contents, len(tail))


@given(payloads, salts, st.data())
def test_any_truncation_yields_a_prefix(contents: list[bytes], salt: int, data: st.DataObject) -> None:
    whole = segment(contents, salt)
    kept = data.draw(st.integers(0, len(whole)))
    found, damaged = decoded(whole[:kept])
    assert found == contents[: len(found)]
    ends = [len(segment(contents[:count], salt)) for count in range(len(contents) + 1)]
    assert len(found) == sum(end <= kept for end in ends[1:])
    assert damaged == (kept if kept < SEGMENT_HEADER_BYTES else kept - ends[len(found)])


@given(payloads, salts, st.data())
def test_a_damaged_byte_loses_its_own_call_alone(contents: list[bytes], salt: int, data: st.DataObject) -> None:
    whole = bytearray(segment(contents, salt))
    if len(whole) == SEGMENT_HEADER_BYTES:
        return
    at = data.draw(st.integers(SEGMENT_HEADER_BYTES, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    ends = [len(segment(contents[: count + 1], salt)) for count in range(len(contents))]
    hit = sum(end <= at for end in ends)
    assert decoded(bytes(whole))[0] == contents[:hit] + contents[hit + 1 :]


def test_a_power_loss_that_left_zeros_loses_only_what_they_replaced() -> None:
    salt = new_salt()
    before, after = frame(b"before", salt), frame(b"after", salt)
    found, damaged = decoded(segment_header(salt) + before + bytes(300_000) + after)
    assert (found, damaged) == ([b"before", b"after"], 300_000)


def test_blocks_of_an_older_segment_are_not_taken_for_calls() -> None:
    old, new = 1, 2
    assert decoded(segment([b"mine"], new) + frame(b"yours", old))[0] == [b"mine"]


def test_a_frame_hidden_in_a_call_does_not_become_a_call_when_that_call_is_damaged() -> None:
    salt = 0xDEADBEEF
    forged = frame(b"forged by somebody who does not know the salt", 0)
    data = bytearray(segment([b"agent: " + forged, b"next"], salt))
    data[SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES] ^= 1
    assert decoded(bytes(data))[0] == [b"next"]


@pytest.mark.parametrize("data", [b"", b"ptca", b"not a segment of ours at all", bytes(5000)])
def test_what_is_no_segment_holds_no_call(data: bytes) -> None:
    assert decoded(data) == ([], len(data))
