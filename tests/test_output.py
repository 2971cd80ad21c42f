"""Standard output whose reader stalls, has gone, or shares it with others: nobody waits, and lines stay whole."""

import asyncio
import contextlib
import os
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from passthrough.output import MOST_WAITING_BYTES, Output

LINE = b"x" * 999 + b"\n"
BUNDLE = LINE * 64


def all_of(descriptor: int) -> list[bytes]:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.readlines()


def fill(descriptor: int) -> None:
    """Leave no room in a pipe."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x")
    os.set_blocking(descriptor, True)


def test_a_reader_who_stalls_stops_nobody_and_what_is_lost_is_counted() -> None:
    reading, writing = os.pipe()
    output = Output(writing, patience_seconds=30)
    put = 0
    with ThreadPoolExecutor() as elsewhere:
        with output.by_thread():
            while not output.lost:
                output.put(BUNDLE, 64)
                put += 64
            taken: Future[list[bytes]] = elsewhere.submit(all_of, reading)
        os.close(writing)  # what waited was waited for
        assert taken.result(30) == [LINE] * (put - output.lost)
    assert output.lost == 64
    assert put * len(LINE) > MOST_WAITING_BYTES


def test_the_end_does_not_wait_for_a_reader_who_never_comes() -> None:
    _, writing = os.pipe()
    fill(writing)
    output = Output(writing, patience_seconds=0.05)
    with output.by_thread():
        output.put(LINE)
    output.put(LINE)
    assert output.lost == 1  # and nobody knows what becomes of the one before


def test_without_a_thread_a_reader_who_stalls_is_given_a_moment() -> None:
    reading, writing = os.pipe()
    output = Output(writing, patience_seconds=0.05)
    output.put(LINE)
    assert os.read(reading, 2000) == LINE
    fill(writing)
    output.put(LINE)
    assert output.lost == 1


def test_without_a_thread_a_long_line_waits_no_longer() -> None:
    reading, writing = os.pipe()
    fill(writing)
    os.read(reading, 4096)  # room for a part of it
    output = Output(writing, patience_seconds=0.05)
    output.put(b"x" * 20_000 + b"\n")
    assert output.lost == 1


@pytest.mark.parametrize("threaded", [True, False])
def test_an_output_that_has_gone_is_no_error(threaded: bool) -> None:  # noqa: FBT001  # a parameter of a test
    reading, writing = os.pipe()
    os.close(reading)
    output = Output(writing)
    with output.by_thread() if threaded else contextlib.nullcontext():
        output.put(LINE)
    output.put(LINE)
    assert output.lost >= 1


async def test_lines_of_workers_who_share_a_slow_pipe_stay_whole() -> None:
    reading, writing = os.pipe()
    outputs = [Output(writing), Output(writing)]
    with outputs[0].by_thread(), outputs[1].by_thread():
        for _ in range(40):
            for output in outputs:
                output.put(BUNDLE, 64)
        read = bytearray()
        while read.count(b"\n") < 2 * 40 * 64:
            read += await asyncio.to_thread(os.read, reading, 1000)
    assert set(bytes(read).splitlines(keepends=True)) == {LINE}


async def test_an_output_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    output = Output(writing)
    with output.by_thread():
        for _ in range(5):
            output.put(BUNDLE, 64)
        read = bytearray()
        while len(read) < 5 * len(BUNDLE):
            read += await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1 << 20), 5)
    assert read == BUNDLE * 5
