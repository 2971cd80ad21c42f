from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.sse import MAX_LINE_BYTES, WholeLines, data_of

STREAM = b'event: a\ndata: {"x":1}\n\n: comment\r\ndata:{"y":2}\r\n\r\ndata: [DONE]\n\n'


def test_the_data_of_each_event_is_read() -> None:
    assert data_of(STREAM) == [b'{"x":1}', b'{"y":2}', b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_chunking_gives_the_same_lines(cuts: list[int]) -> None:
    lines = WholeLines()
    chunks = [STREAM[start:end] for start, end in pairwise([0, *sorted(cuts), len(STREAM)])]
    assert b"".join(lines.feed(chunk) for chunk in chunks) == STREAM


def test_an_unfinished_line_waits() -> None:
    lines = WholeLines()
    assert lines.feed(b"data: 1\ndata:") == b"data: 1\n"
    assert lines.feed(b" 2") == b""
    assert lines.feed(b"\nda") == b"data: 2\n"


def test_a_line_too_long_to_hold_is_left_out_and_the_next_is_read() -> None:
    lines = WholeLines()
    lines.feed(b"x" * MAX_LINE_BYTES)
    assert lines.feed(b"x" * 10) == b""
    assert lines.missed
    assert lines.feed(b"xx\ndata: 1\nda") == b"data: 1\n"
    assert lines.feed(b"ta: 2\n") == b"data: 2\n"
