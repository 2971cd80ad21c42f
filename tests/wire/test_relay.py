"""What a client receives of an answer: its bytes, in its framing, at its pace; and never a clean end that is none."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passthrough.errors import UpstreamFailure
from passthrough.wire.pool import Limits
from tests.fakes.peer import until
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, answer, answering, chunk, head, stream_head
from tests.wire.collecting import address
from tests.wire.relaying import Watching, relaying

MEGABYTE = bytes(1024 * 1024)


async def test_an_answer_with_a_length_keeps_it(upstream: Upstream) -> None:
    upstream.script = answering(answer(b"hello"))
    async with relaying(upstream) as going:
        await going.settled()
        got = await going.client.message()
        assert (got.body, got.ending, got.values("Content-Length")) == (b"hello", "whole", ["5"])
        assert got.value("Transfer-Encoding") is None
        assert not going.relay.closes
        assert going.observer.body_seen == b"hello"
        assert going.observer.completions == 1


async def test_a_chunked_answer_is_chunked_anew(upstream: Upstream) -> None:
    upstream.script = answering(stream_head() + chunk(b"hel") + chunk(b"lo") + LAST_CHUNK)
    async with relaying(upstream) as going:
        await going.settled()
        got = await going.client.message()
        assert (got.body, got.ending, got.values("Transfer-Encoding")) == (b"hello", "whole", ["chunked"])
        assert not going.relay.closes


async def test_an_empty_chunked_answer_is_one_last_chunk(upstream: Upstream) -> None:
    upstream.script = answering(stream_head() + LAST_CHUNK)
    async with relaying(upstream) as going:
        await going.settled()
        got = await going.client.message()
        assert (got.body, got.chunks, got.ending) == (b"", [], "whole")


async def test_an_answer_that_ends_with_its_connection_becomes_a_chunked_one(upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(head(), b"hel", b"lo")

    upstream.script = script
    async with relaying(upstream) as going:
        await going.settled()
        got = await going.client.message()
        assert (got.body, got.ending, got.value("Transfer-Encoding")) == (b"hello", "whole", "chunked")


async def test_a_client_without_chunks_is_told_the_end_by_the_connections(upstream: Upstream) -> None:
    upstream.script = answering(stream_head() + chunk(b"hel") + chunk(b"lo") + LAST_CHUNK)
    async with relaying(upstream, chunking=False) as going:
        await going.settled()
        assert going.relay.closes
        assert going.downstream.transport is not None
        going.downstream.transport.close()
        got = await going.client.message()
        assert (got.body, got.ending) == (b"hello", "whole")
        assert got.value("Transfer-Encoding") is None


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_that_has_no_body_gets_no_framing(upstream: Upstream, status: str) -> None:
    upstream.script = answering(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())
    async with relaying(upstream) as going:
        await going.settled()
        assert await going.client.head() == (f"HTTP/1.1 {status}".encode(), [(b"ETag", b"x")])
        assert not going.relay.closes


@pytest.mark.parametrize("field", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_the_answer_to_head_tells_a_length_and_sends_nothing(upstream: Upstream, field: str) -> None:
    upstream.script = answering(head(field))
    async with relaying(upstream, bodiless=True) as going:
        await going.settled()
        got = await going.client.message(bodiless=True)
        assert got.value("Content-Length") == ("5" if "Length" in field else None)
        assert not going.relay.closes


async def test_each_piece_leaves_before_the_next_one_arrives(upstream: Upstream) -> None:
    step = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        for piece in (b"one", b"two", b"three"):
            await step.wait()
            step.clear()
            await peer.send(chunk(piece))
        await step.wait()
        await peer.send(LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with relaying(upstream) as going:
        await going.client.head()
        chunks = going.client.chunks()
        for piece in (b"one", b"two", b"three"):
            step.set()
            assert await anext(chunks) == piece
        assert going.observer.completions == 0
        step.set()
        assert [rest async for rest in chunks] == []
        await going.settled()
        assert going.observer.body_seen == b"onetwothree"


async def test_a_call_is_on_record_before_its_client_has_the_last_byte(upstream: Upstream) -> None:
    class Recording(Watching):
        def completed(self, end: Callable[[], None]) -> None:
            self.completions += 1
            self.end = end
            completed.set()

    completed = asyncio.Event()
    upstream.script = answering(answer(b"hello"))
    observer = Recording()
    async with relaying(upstream, observer=observer) as going:
        settling = asyncio.create_task(going.settled())
        await completed.wait()
        await asyncio.sleep(0)  # whoever waits for it has been woken, and waits again
        assert not settling.done()
        assert going.downstream.transport is not None
        assert not going.relay.started  # of an answer in one read, nothing is written at all
        assert going.connection.exchanges == 1
        assert going.pool.idle(address(upstream.port)) is going.connection  # it serves others meanwhile
        observer.end()
        await settling
        observer.end()
        assert (await going.client.message()).ending == "whole"
        going.downstream.transport.close()
        assert await going.client.rest() == (b"", "fin")


async def test_a_client_that_does_not_read_stops_the_upstream_and_one_that_goes_on_reading_has_all(
    upstream: Upstream,
) -> None:
    taken: list[int] = []
    blocked = asyncio.Event()
    total = 64

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(head(f"Content-Length: {total * len(MEGABYTE)}"))
        taken.append(await peer.send_until_blocked(MEGABYTE, total * len(MEGABYTE)))
        blocked.set()
        while taken[0] < total * len(MEGABYTE):
            await peer.send(MEGABYTE)
            taken[0] += len(MEGABYTE)
        await peer.gone()

    upstream.script = script
    async with relaying(upstream, receive_buffer=len(MEGABYTE)) as going:
        waiting = asyncio.create_task(going.settled())
        await blocked.wait()
        # what the kernel holds on both connections (6 MiB by Linux's defaults, 32 where it is tuned), and not more
        assert taken[0] < 48 * len(MEGABYTE)
        assert going.connection.reading_paused
        assert going.downstream.transport is not None
        assert going.downstream.transport.get_write_buffer_size() < 2 * len(MEGABYTE)
        got = await going.client.message()
        assert (len(got.body), got.ending) == (total * len(MEGABYTE), "whole")
        await waiting
        assert not going.connection.reading_paused


async def test_a_client_that_takes_nothing_for_too_long_is_not_waited_for(upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        while True:
            await peer.send(chunk(MEGABYTE))

    upstream.script = script
    async with relaying(upstream, receive_buffer=len(MEGABYTE)) as going:
        with pytest.raises(TimeoutError):
            await going.settled(stall_seconds=0.1)
        going.connection.abort()


async def test_an_answer_in_one_read_is_waited_for_too_when_the_client_does_not_take_it(upstream: Upstream) -> None:
    """Else a client could ask for one answer after the other, and have this process hold them all."""
    upstream.script = answering(answer(b"hello"))
    async with relaying(upstream) as going:
        going.downstream.writing_paused = True
        going.downstream._resumed.clear()
        waiting = asyncio.create_task(going.settled())
        assert (await going.client.message()).body == b"hello"
        assert going.relay.done
        await asyncio.sleep(0)
        assert not waiting.done()
        going.downstream.resume_writing()
        await waiting


async def test_a_slow_client_is_waited_for_even_if_nobody_waited_when_it_became_slow(upstream: Upstream) -> None:
    """An upstream may answer while the request is still being sent: the relay is then paused before `settled`."""
    size = 32 * len(MEGABYTE)

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(head(f"Content-Length: {size}"))
        for _ in range(32):
            await peer.send(MEGABYTE)
        await peer.gone()

    upstream.script = script
    async with relaying(upstream, receive_buffer=len(MEGABYTE)) as going:
        await until(lambda: going.connection.reading_paused)
        waiting = asyncio.create_task(going.settled())
        assert (await going.client.message()).ending == "whole"
        await waiting


async def _cut_after(upstream: Upstream, sent: bytes, *, reset: bool = False) -> asyncio.Event:
    arrived = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(sent)
        await arrived.wait()
        if reset:
            peer.reset()

    upstream.script = script
    return arrived


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_an_answer_with_a_length_that_is_cut_is_cut_short(upstream: Upstream, reset: bool) -> None:  # noqa: FBT001  # a parameter of a test
    arrived = await _cut_after(upstream, head("Content-Length: 10") + b"hello", reset=reset)
    async with relaying(upstream) as going:
        first = await going.client.head()
        arrived.set()
        got = await going.client.body(*first)
        assert got.body == b"hello"
        assert got.ending != "whole"
        await going.settled()
        assert isinstance(going.relay.error, UpstreamFailure)
        assert going.observer.completions == 0


@pytest.mark.parametrize("words", [b"", b"last words"])
async def test_a_chunked_answer_that_is_cut_has_last_words_and_no_last_chunk(upstream: Upstream, words: bytes) -> None:
    arrived = await _cut_after(upstream, stream_head() + chunk(b"hello"))
    async with relaying(upstream, observer=Watching(words)) as going:
        first = await going.client.head()
        arrived.set()
        got = await going.client.body(*first)
        assert got.body == b"hello" + words
        assert got.ending == "fin"
        await going.settled()


async def test_a_cut_answer_without_any_framing_is_reset_so_that_its_end_is_no_clean_one(upstream: Upstream) -> None:
    arrived = await _cut_after(upstream, stream_head() + chunk(b"hello"))
    async with relaying(upstream, chunking=False) as going:
        first = await going.client.head()
        assert await going.client.exactly(5) == b"hello"
        arrived.set()
        assert (await going.client.body(*first)).ending == "reset"
        await going.settled()


async def test_of_an_answer_that_failed_in_its_first_read_nothing_is_sent(upstream: Upstream) -> None:
    upstream.script = answering(stream_head() + chunk(b"hello") + b"garbage")
    async with relaying(upstream) as going:
        await going.settled()
        assert isinstance(going.relay.error, UpstreamFailure)
        assert not going.relay.started
        assert going.downstream.transport is not None  # it can still be told why


async def test_an_upstream_that_falls_silent_cuts_the_client_too(upstream: Upstream) -> None:
    await _cut_after(upstream, stream_head() + chunk(b"hello"))
    # long enough for a first byte on a machine that is busy with other things
    async with relaying(upstream, limits=Limits(answer_seconds=0.6)) as going:
        assert (await going.client.message()).ending == "fin"
        await going.settled()


async def test_the_rest_of_an_answer_is_observed_when_the_client_has_gone(upstream: Upstream) -> None:
    gone = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head(), chunk(b"one"))
        await gone.wait()
        await peer.send(chunk(b"two"), LAST_CHUNK)
        await peer.gone()

    upstream.script = script
    async with relaying(upstream) as going:
        await going.client.head()
        going.client.reset()
        await going.downstream.lost.wait()
        going.relay.detach()
        gone.set()
        await going.settled()
        assert going.observer.body_seen == b"onetwo"
        assert going.observer.completions == 1


async def test_a_client_that_has_gone_while_it_was_slow_does_not_hold_the_upstream(upstream: Upstream) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(head(f"Content-Length: {16 * len(MEGABYTE)}"))
        for _ in range(16):
            await peer.send(MEGABYTE)
        await peer.gone()

    upstream.script = script
    async with relaying(upstream, receive_buffer=len(MEGABYTE)) as going:
        await until(lambda: going.connection.reading_paused)
        going.client.reset()
        await going.downstream.lost.wait()
        going.relay.detach()
        await going.settled()
        assert going.observer.completions == 1


@pytest.mark.filterwarnings("ignore")
async def test_a_bug_in_an_observer_hangs_nobody(upstream: Upstream) -> None:
    upstream.script = answering(answer(b"hello"))
    observer = Watching()
    observer.broken = True
    async with relaying(upstream, observer=observer) as going:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the bug is reported there
        await going.settled()
        assert (await going.client.message()).ending == "whole"


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_however_an_answer_is_cut_the_client_has_its_bytes(data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=2000))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    chunking = data.draw(st.booleans())
    kind = data.draw(st.sampled_from(["length", "chunked", "close"]))

    async def script(peer: Incoming) -> None:
        await peer.request()
        framing = {"length": [f"Content-Length: {len(body)}"], "chunked": ["Transfer-Encoding: chunked"], "close": []}
        await peer.send(head(*framing[kind]))
        for piece in pieces:
            if piece:
                await peer.send(chunk(piece) if kind == "chunked" else piece)
                await asyncio.sleep(0)
        if kind == "chunked":
            await peer.send(LAST_CHUNK)

    async with Upstream(script) as upstream, relaying(upstream, chunking=chunking) as going:
        await going.settled()
        if going.relay.closes:
            assert going.downstream.transport is not None
            going.downstream.transport.close()
        got = await going.client.message()
        assert (got.body, got.ending) == (body, "whole")
        assert going.observer.body_seen == body
