"""A thousand streams at once on one worker: none fails, none waits for another, and they cost little."""

import asyncio
import gc
import resource

import pytest

from tests.fakes.calls import STREAM, Proxies, ask, call, ended_rows
from tests.fakes.peer import Message, connect, until
from tests.fakes.running import Running
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, chunk, stream_head, text_frame, usage_frame

STREAMS = 1000
FRAMES = [*(text_frame(f"word {number}") for number in range(5)), usage_frame(3, 5)]
WHOLE = b"".join(FRAMES)


@pytest.fixture(autouse=True)
def _enough_files() -> None:
    """Four for each stream, as client and upstream are in this process too."""
    wanted = STREAMS * 4 + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"needs {wanted} open files, {hard} are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Crowd:
    """Begins each stream at once, and goes on with all of them when `go_on` is set."""

    def __init__(self) -> None:
        self.begun = 0
        self.all_begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAMES[0]))
        self.begun += 1
        if self.begun == STREAMS:
            self.all_begun.set()
        await self.go_on.wait()
        for frame in FRAMES[1:]:
            await peer.send(chunk(frame))
        await peer.send(LAST_CHUNK)
        await peer.gone()


async def test_all_are_open_at_once_and_all_end_well(proxy: Running, upstream: Upstream) -> None:
    upstream.script = crowd = Crowd()
    watching = [asyncio.create_task(_watch(proxy)) for _ in range(STREAMS)]
    async with asyncio.timeout(30):
        await crowd.all_begun.wait()
        assert len(proxy.service.handler.calls) == STREAMS
        crowd.go_on.set()
        answers = await asyncio.gather(*watching)
    assert all(answer.body == WHOLE for answer in answers)
    assert {answer.ending for answer in answers} == {"whole"}
    rows = await ended_rows(proxy)
    assert len(rows) == STREAMS
    assert {(row["outcome"], row["output_tokens"]) for row in rows} == {("ok", 5)}


async def test_nothing_is_left_of_those_that_all_leave_at_once(start: Proxies, upstream: Upstream) -> None:
    proxy = await start(disconnect_drains=100)
    upstream.script = crowd = Crowd()
    gone = asyncio.Event()
    leaving = [asyncio.create_task(_leave(proxy, gone)) for _ in range(STREAMS)]
    async with asyncio.timeout(30):
        await crowd.all_begun.wait()
        gone.set()
        await asyncio.gather(*leaving)
        crowd.go_on.set()
        rows = await ended_rows(proxy)
    assert len(rows) == STREAMS
    assert {row["outcome"] for row in rows} == {"client_gone"}
    assert len([row for row in rows if row["usage_source"] == "stream"]) == 100
    gc.collect()
    assert not [task for task in asyncio.all_tasks() if "Handler" in task.get_coro().__qualname__]


async def test_those_that_never_read_do_not_hold_up_one_that_does(proxy: Running, upstream: Upstream) -> None:
    """Each of them could have a megabyte; what they do not take stays with the upstream."""
    release = asyncio.Event()

    async def endless(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head())
        for _ in range(16):
            peer.writer.write(chunk(bytes(65536)))
        await release.wait()

    upstream.script = endless
    silent = [asyncio.create_task(_ask_and_wait(proxy, release)) for _ in range(200)]
    async with asyncio.timeout(30):
        await until(lambda: upstream.connections == len(silent))
        upstream.script = crowd = Crowd()
        crowd.go_on.set()
        assert (await _watch(proxy)).body == WHOLE
        release.set()
        await asyncio.gather(*silent)


async def _watch(proxy: Running) -> Message:
    async with connect(proxy.url) as client:
        return await ask(client, call(STREAM))


async def _leave(proxy: Running, gone: asyncio.Event) -> None:
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        await client.head()
        await gone.wait()
        client.reset()


async def _ask_and_wait(proxy: Running, release: asyncio.Event) -> None:
    async with connect(proxy.url, receive_buffer=4096) as client:
        await client.send(call(STREAM))
        await release.wait()
        client.reset()
