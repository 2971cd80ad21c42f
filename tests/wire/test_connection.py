"""What a connection makes of an answer: whole, in pieces, or not at all."""

import asyncio

import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passthrough.errors import UpstreamFailure
from passthrough.wire.connection import MAX_INTERIM_ANSWERS, Connection, NoAnswer
from passthrough.wire.framing import MAX_HEAD_BYTES
from passthrough.wire.pool import Pool
from tests.fakes.peer import until
from tests.fakes.upstream import CHUNKED, LAST_CHUNK, Incoming, Upstream, answer, answering, chunk, head
from tests.wire.collecting import GET, POST, Collected, address, ask, opened_pool

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


def raw(*fields: bytes, body: bytes = b"", status: bytes = OK) -> bytes:
    return status + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


WHOLE_ANSWERS = {
    "with a length": (raw(b"Content-Length: 5", body=b"hello"), b"hello"),
    "without a body": (raw(b"Content-Length: 0"), b""),
    "chunked": (raw(b"Transfer-Encoding: chunked", body=chunk(b"hel") + chunk(b"lo") + LAST_CHUNK), b"hello"),
    "chunked and empty": (raw(b"Transfer-Encoding: chunked", body=LAST_CHUNK), b""),
    "chunked with extensions and trailers": (
        raw(b"Transfer-Encoding: chunked", body=b"5;a=b\r\nhello\r\n0\r\nX-Trailer: t\r\n\r\n"),
        b"hello",
    ),
    "after interim answers": (CONTINUE + CONTINUE + raw(b"Content-Length: 5", body=b"hello"), b"hello"),
    "no content": (raw(status=b"HTTP/1.1 204 No Content\r\n"), b""),
    "not modified, with the length of what was not sent": (
        raw(b"Content-Length: 500", status=b"HTTP/1.1 304 Not Modified\r\n"),
        b"",
    ),
    "without a reason": (raw(b"Content-Length: 2", body=b"hi", status=b"HTTP/1.1 200 \r\n"), b"hi"),
    "in an older version": (raw(b"Content-Length: 2", body=b"hi", status=b"HTTP/1.0 200 OK\r\n"), b"hi"),
}


@pytest.mark.parametrize("name", WHOLE_ANSWERS)
async def test_an_answer_is_taken_in_whole(upstream: Upstream, name: str) -> None:
    sent, body = WHOLE_ANSWERS[name]
    upstream.script = answering(sent)
    async with opened_pool() as pool:
        got = await ask(pool, upstream.port)
    assert (got.whole, got.error, got.body) == (True, None, body)


async def test_who_gives_up_an_exchange_that_is_over_does_not_end_the_next_one(upstream: Upstream) -> None:
    """A time that runs out in the turn in which an answer ends: the connection is lent to somebody else by then."""
    upstream.script = answering(answer(b"first"), answer(b"second"))
    async with opened_pool() as pool:
        connection = await pool.acquire(address(upstream.port))
        first, second = Collected(), Collected()
        connection.start(first, GET)
        await first.ended()
        assert await pool.acquire(address(upstream.port)) is connection
        connection.start(second, GET)
        connection.abandon(first)
        await second.ended()
    assert (second.whole, second.body) == (True, b"second")


@pytest.mark.parametrize("name", WHOLE_ANSWERS)
async def test_an_answer_that_comes_by_the_byte_is_the_same(upstream: Upstream, name: str) -> None:
    sent, body = WHOLE_ANSWERS[name]

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send_by_the_byte(sent)
        await peer.gone()

    upstream.script = script
    async with opened_pool() as pool:
        got = await ask(pool, upstream.port)
    assert (got.whole, got.error, got.body) == (True, None, body)


@pytest.mark.parametrize("name", WHOLE_ANSWERS)
async def test_an_answer_that_is_cut_at_any_byte_is_never_whole(name: str) -> None:
    """Fed without a socket, so that every byte can be tried: what the transport calls is the whole interface."""
    sent, body = WHOLE_ANSWERS[name]
    for at in range(len(sent)):
        got = await _fed([sent[:at]])
        assert got.error is not None, sent[:at]
        assert isinstance(got.error, NoAnswer) == (at == 0)
        assert body.startswith(got.body)


async def test_an_answer_without_a_length_ends_with_its_connection(upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(raw(b"Content-Type: text/plain"), b"hel", b"lo")

    upstream.script = script
    async with opened_pool() as pool:
        got = await ask(pool, upstream.port)
    assert (got.whole, got.body) == (True, b"hello")


async def test_an_answer_without_a_length_that_is_reset_is_not_whole(upstream: Upstream) -> None:
    received = asyncio.Event()

    class Watched(Collected):
        def body_received(self, data: bytes) -> None:
            super().body_received(data)
            received.set()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(raw(b"Content-Type: text/plain"), b"hel")
        await received.wait()
        peer.reset()

    upstream.script = script
    got = Watched()
    async with opened_pool() as pool:
        (await _connection(pool, upstream)).start(got, POST)
        await got.ended()
    assert isinstance(got.error, UpstreamFailure)
    assert got.body == b"hel"


async def test_the_answer_to_head_has_no_body_whatever_its_length_says(upstream: Upstream) -> None:
    upstream.script = answering(raw(b"Content-Length: 5"))
    async with opened_pool() as pool:
        got = await ask(pool, upstream.port, b"HEAD /x HTTP/1.1\r\nHost: here\r\n\r\n", bodiless=True)
    assert got.whole
    assert got.body == b""
    assert got.head is not None
    assert (b"Content-Length", b"5") in got.head.headers


async def test_a_body_in_the_answer_to_head_is_not_taken_for_the_next_answer(upstream: Upstream) -> None:
    upstream.script = answering(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
    async with opened_pool() as pool:
        got = await ask(pool, upstream.port, b"HEAD /x HTTP/1.1\r\nHost: here\r\n\r\n", bodiless=True)
        assert got.body == b""
        upstream.script = answering(answer(b"good"))
        assert (await ask(pool, upstream.port)).body == b"good"
    assert upstream.connections == 2


async def test_fields_keep_their_order_casing_and_duplicates(upstream: Upstream) -> None:
    upstream.script = answering(
        raw(
            b"x-AMZN-requestid: one",
            b"Set-Cookie: a=1",
            b"set-cookie:  b=2",
            b"Empty:",
            b"Latin: \xe9\xff",
            b"Content-Length: 0",
            status=b"HTTP/1.1 418 I'm a \xe9 teapot\r\n",
        )
    )
    async with opened_pool() as pool:
        got = await ask(pool, upstream.port)
    assert got.head is not None
    assert (got.head.status, got.head.reason) == (418, b"I'm a \xe9 teapot")
    assert got.head.headers == [
        (b"x-AMZN-requestid", b"one"),
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"Empty", b""),
        (b"Latin", b"\xe9\xff"),
        (b"Content-Length", b"0"),
    ]


REFUSED_ANSWERS = {
    "two lengths": raw(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"),
    "the same length twice": raw(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    "a list of lengths": raw(b"Content-Length: 5, 5", body=b"hello"),
    "a negative length": raw(b"Content-Length: -5", body=b"hello"),
    "a signed length": raw(b"Content-Length: +5", body=b"hello"),
    "a hexadecimal length": raw(b"Content-Length: 0x5", body=b"hello"),
    "a length that overflows": raw(b"Content-Length: 99999999999999999999999", body=b"hello"),
    "length and chunks": raw(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": raw(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "another coding": raw(b"Transfer-Encoding: gzip", body=b"hello"),
    "another coding before chunks": raw(b"Transfer-Encoding: gzip, chunked", body=LAST_CHUNK),
    "identity": raw(b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"hello"),
    "a coding that hides chunks": raw(b"Transfer-Encoding: xchunked", body=LAST_CHUNK),
    "a folded field": raw(b"X-A: one", b" two", b"Content-Length: 5", body=b"hello"),
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "a bare line feed after a field": OK + b"Content-Length: 5\n\r\nhello",
    "a bare carriage return": OK + b"X-A: one\rX-B: two\r\nContent-Length: 5\r\n\r\nhello",
    "a space before the colon": raw(b"Content-Length : 5", body=b"hello"),
    "a field without a name": raw(b": 5", body=b"hello"),
    "a NUL in a field": raw(b"X-A: a\x00b", b"Content-Length: 5", body=b"hello"),
    "a chunk size that is none": raw(b"Transfer-Encoding: chunked", body=b"xyz\r\nhello\r\n"),
    "a chunk longer than it says": raw(b"Transfer-Encoding: chunked", body=b"3\r\nhello\r\n0\r\n\r\n"),
    "a chunk size that overflows": raw(b"Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\nhello\r\n"),
    "chunks with bare line feeds": raw(b"Transfer-Encoding: chunked", body=b"5\nhello\n0\n\n"),
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a version that does not exist": b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "too many interim answers": CONTINUE * (MAX_INTERIM_ANSWERS + 1) + raw(b"Content-Length: 0"),
    "a head that is too large": raw(*[b"X-%d: %b" % (n, b"x" * 8000) for n in range(9)], b"Content-Length: 0"),
    "one field that is too large": raw(b"X: " + b"x" * MAX_HEAD_BYTES, b"Content-Length: 0"),
}


@pytest.mark.parametrize("name", REFUSED_ANSWERS)
async def test_an_answer_that_could_be_read_in_two_ways_is_refused(upstream: Upstream, name: str) -> None:
    upstream.script = answering(REFUSED_ANSWERS[name])
    async with opened_pool() as pool:
        got = await ask(pool, upstream.port)
        assert isinstance(got.error, UpstreamFailure)
        assert not got.whole
        upstream.script = answering(answer(b"good"))
        assert (await ask(pool, upstream.port)).body == b"good"
    assert upstream.connections == 2


@pytest.mark.parametrize("name", REFUSED_ANSWERS)
async def test_it_is_refused_however_it_is_cut_into_reads(name: str) -> None:
    sent = REFUSED_ANSWERS[name]
    step = 1 if len(sent) < 1000 else 997
    got = await _fed([sent[at : at + step] for at in range(0, len(sent), step)])
    assert isinstance(got.error, UpstreamFailure)
    assert not got.whole


async def test_a_large_head_is_taken_when_it_is_not_too_large(upstream: Upstream) -> None:
    fields = [b"X-%d: %b" % (n, b"x" * 8000) for n in range(7)]
    upstream.script = answering(raw(*fields, b"Content-Length: 5", body=b"hello"))
    async with opened_pool() as pool:
        assert (await ask(pool, upstream.port)).body == b"hello"


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(
    "tail",
    [b"x", b"garbage\r\n\r\n", answer(b"evil"), bytes(100)],
    ids=["a letter", "garbage", "an answer", "zeros"],
)
async def test_bytes_behind_an_answer_spoil_the_connection_and_not_the_answer(
    upstream: Upstream, tail: bytes, framing: str
) -> None:
    whole = (
        answer(b"hello") if framing == "length" else head("Transfer-Encoding: chunked") + chunk(b"hello") + b"0\r\n\r\n"
    )
    upstream.script = answering(whole + tail)
    async with opened_pool() as pool:
        got = await ask(pool, upstream.port)
        assert (got.whole, got.body) == (True, b"hello")
        upstream.script = answering(answer(b"good"))
        assert (await ask(pool, upstream.port)).body == b"good"


async def test_bytes_that_come_before_a_request_are_not_its_answer(upstream: Upstream) -> None:
    first_is_over = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(b"hello"))
        await first_is_over.wait()
        await peer.send(answer(b"evil"))
        assert await peer.gone()

    upstream.script = script
    async with opened_pool() as pool:
        first = await _connection(pool, upstream)
        got = Collected()
        first.start(got, POST)
        await got.ended()
        first_is_over.set()
        await until(lambda: not first.open)
        upstream.script = answering(answer(b"good"))
        assert (await ask(pool, upstream.port)).body == b"good"


async def test_an_answer_before_the_request_is_whole_ends_the_connection(upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.head()
        await peer.send(answer(b"no", status="413 Too Large"))
        await peer.gone()

    upstream.script = script
    got = Collected()
    async with opened_pool() as pool:
        connection = await _connection(pool, upstream)
        connection.start(got, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n", request_sent=False)
        await got.ended()
        assert got.whole
        assert not connection.open
        connection.write(b"too late")
        await connection.writable()


async def test_a_cut_while_a_body_waits_to_be_sent_wakes_its_sender(upstream: Upstream) -> None:
    blocked = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.head()
        await blocked.wait()
        peer.reset()

    upstream.script = script
    got = Collected()
    async with opened_pool() as pool:
        connection = await _connection(pool, upstream)
        connection.start(got, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n", request_sent=False)
        async with asyncio.timeout(10):
            while got.error is None:
                connection.write(bytes(1024 * 1024))
                blocked.set()
                await connection.writable()
        assert isinstance((await got.ended()).error, NoAnswer)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_however_an_answer_is_cut_into_reads_and_chunks_its_body_is_the_same(data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=300))
    if data.draw(st.booleans()):
        sent = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        pieces = _split(body, data.draw(_cuts(body)))
        sent = OK + CHUNKED + b"\r\n" + b"".join(chunk(piece) for piece in pieces if piece) + LAST_CHUNK
    sent = CONTINUE * data.draw(st.integers(0, 2)) + sent
    got = await _fed(_split(sent, data.draw(_cuts(sent))))
    assert (got.whole, got.error, got.body) == (True, None, body)
    assert b"".join(got.reads) == body


@given(reads=st.lists(st.binary(max_size=80), max_size=6))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_garbage_is_refused_and_never_raises(reads: list[bytes]) -> None:
    got = await _fed(reads)
    assert got.whole or isinstance(got.error, UpstreamFailure)


def test_httptools_is_as_strict_as_it_was_when_this_was_written() -> None:
    """`Connection` relies on llhttp's strict mode: a parser that is lenient by default must not come unnoticed."""
    for name in ("a folded field", "bare line feeds", "two lengths", "length and chunks", "a space before the colon"):
        parser = httptools.HttpResponseParser(object())
        with pytest.raises(httptools.HttpParserError):
            parser.feed_data(REFUSED_ANSWERS[name])


# -- how it is done


class _Transport(asyncio.Transport):
    """A transport without a socket: asyncio's interface, and nothing behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


async def _fed(reads: list[bytes]) -> Collected:
    """What a receiver has of an answer that arrives in these reads, followed by the connection's end."""
    connection = Connection(loop=asyncio.get_running_loop(), released=lambda _: None, lost=lambda _: None)
    transport = _Transport()
    connection.connection_made(transport)
    got = Collected()
    connection.start(got, GET)
    for read in reads:
        if read and not transport.closed:
            connection.data_received(read)
    # a reset, so that a body without a length is not taken for whole
    connection.connection_lost(ConnectionResetError())
    return await got.ended()


def _cuts(data: bytes) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(data)), max_size=8).map(sorted)


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def _connection(pool: Pool, upstream: Upstream) -> Connection:
    return await pool.acquire(address(upstream.port))
