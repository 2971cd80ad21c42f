"""The server is told to stop: what is open finishes, nothing begins, and the books are closed."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from passthrough.certificates import Certificate
from passthrough.sandbox import DEFAULT_CREDENTIALS
from passthrough.serving import listen, serve
from passthrough.settings import Settings
from passthrough.workers import ECHO_SECONDS, STOPPING
from tests.fakes.calls import BODY, CONVERSE, STREAM, ask, call, call_head, ended_rows
from tests.fakes.certificates import Authority
from tests.fakes.peer import Peer, connect, until
from tests.fakes.running import MASTER_KEY, Running, command, select
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, chunk, stream_head, text_frame, usage_frame

FRAME = text_frame("one")
READINESS = b"GET /health/readiness HTTP/1.1\r\nHost: h\r\n\r\n"


class Serving:
    """`serve` as the program runs it, in this process: `stop` is what SIGTERM does."""

    def __init__(self, url: str, database_url: str, task: "asyncio.Task[None]", listening: socket.socket) -> None:
        self.url = url
        self.task = task
        self._database_url = database_url
        self._listening = listening

    async def stop(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: self._listening.fileno() < 0)

    async def ended(self) -> None:
        async with asyncio.timeout(30):
            await self.task

    async def rows(self) -> list[dict[str, Any]]:
        return await select(self._database_url, "SELECT * FROM ledger ORDER BY call_id")


Serve = Callable[..., Awaitable[Serving]]


@pytest.fixture
async def served(upstream: Upstream, database_url: str, tmp_path: Path) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Serving:
            return await stack.enter_async_context(_serving(upstream, database_url, tmp_path, **settings))

        yield start


@asynccontextmanager
async def _serving(
    upstream: Upstream, database_url: str, data_dir: Path, *, authority: Authority | None = None, **wanted: Any
) -> AsyncIterator[Serving]:
    settings = Settings(
        **{"master_key": MASTER_KEY, "data_dir": data_dir, "log_level": "warning", "runtime_endpoint": upstream.url}
        | wanted
    )
    sock = listen("127.0.0.1", 0)
    url = f"{'https' if authority else 'http'}://127.0.0.1:{sock.getsockname()[1]}"
    thresholds = gc.get_threshold()
    certificate = Certificate(*authority.issue("127.0.0.1")) if authority else None
    task = asyncio.create_task(
        serve(settings, sock, database_url=database_url, certificate=certificate, sandbox=DEFAULT_CREDENTIALS)
    )
    try:
        # it listens from the start; it answers when it serves
        async with connect(url, tls=authority.trusting() if authority else None) as client:
            assert (await ask(client, READINESS)).status == 200
        yield Serving(url, database_url, task, sock)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        for number in STOPPING:
            asyncio.get_running_loop().remove_signal_handler(number)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class Stream:
    """Sends a frame, and the rest when `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME))
        await self.go_on.wait()
        await peer.send(chunk(usage_frame(1, 2)) + LAST_CHUNK)
        await peer.gone()


async def test_the_kernel_asks_after_clients_that_are_silent() -> None:
    """A load balancer forgets a connection after minutes without a packet, and an answer may take an hour."""
    with listen("127.0.0.1", 0) as listening:
        async with connect(f"http://127.0.0.1:{listening.getsockname()[1]}"):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60


async def test_an_open_stream_finishes_and_is_recorded(served: Serve, upstream: Upstream) -> None:
    serving = await served()
    upstream.script = script = Stream()
    async with connect(serving.url) as client:
        await client.send(call(STREAM))
        first = await client.head()
        await serving.stop()
        with pytest.raises(ConnectionError):
            async with connect(serving.url):
                pass
        assert not serving.task.done()
        script.go_on.set()
        assert (await client.body(*first)).ending == "whole"
        await serving.ended()
    (row,) = await serving.rows()
    assert (row["outcome"], row["output_tokens"]) == ("ok", 2)


async def test_a_connection_that_is_idle_is_closed_at_once(served: Serve, upstream: Upstream) -> None:
    serving = await served()
    upstream.script = script = Stream()
    async with connect(serving.url) as busy, connect(serving.url) as idle, connect(serving.url) as fresh:
        assert (await ask(idle, READINESS)).status == 200
        await busy.send(call(STREAM))
        first = await busy.head()
        await serving.stop()
        assert await idle.gone() == "fin"
        assert await fresh.gone() == "fin"
        assert not serving.task.done()
        script.go_on.set()
        assert (await busy.body(*first)).ending == "whole"
        await serving.ended()


async def test_a_connection_that_becomes_one_too_late_is_closed_at_once(
    served: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "authority")
    serving = await served(authority=authority)
    upstream.script = script = Stream()
    async with AsyncExitStack() as clients:
        late = await clients.enter_async_context(connect(serving.url))  # accepted first, before its handshake
        busy = await clients.enter_async_context(connect(serving.url, tls=authority.trusting()))
        await busy.send(call(STREAM))
        first = await busy.head()
        await serving.stop()
        await late.start_tls(authority.trusting())
        assert await late.gone() == "fin"
        assert not serving.task.done()
        script.go_on.set()
        assert (await busy.body(*first)).ending == "whole"
        await serving.ended()


@pytest.mark.parametrize("fields", [(), ("x-amz-content-sha256: " + "0" * 64,)], ids=["collected", "as it comes"])
async def test_a_body_that_is_on_its_way_arrives(served: Serve, upstream: Upstream, fields: tuple[str, ...]) -> None:
    serving = await served()
    async with connect(serving.url) as client:
        await client.send(call_head(CONVERSE, f"Content-Length: {len(BODY)}", *fields), BODY[:10])
        await asyncio.sleep(0.05)  # that the handler waits for more shows nowhere
        await serving.stop()
        assert not serving.task.done()
        got = await ask(client, BODY[10:])
        assert got.status == 200
        assert got.values("Connection") == ["close"]
        assert await client.gone() == "fin"
        await serving.ended()
    assert upstream.requests[-1].body == BODY
    (row,) = await serving.rows()
    assert row["outcome"] == "ok"


async def test_nothing_begins_on_a_connection_that_is_open(served: Serve, upstream: Upstream) -> None:
    serving = await served()
    upstream.script = script = Stream()
    async with connect(serving.url) as client:
        await client.send(call(STREAM) + call())
        first = await client.head()
        await serving.stop()
        script.go_on.set()
        assert (await client.body(*first)).ending == "whole"
        await serving.ended()
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("how", ["a second signal", "the end of the drain time"])
async def test_what_does_not_finish_is_cut_and_told_so(served: Serve, upstream: Upstream, how: str) -> None:
    serving = await served(drain_seconds=0.3 if how != "a second signal" else 300.0)
    upstream.script = Stream()
    async with connect(serving.url) as client:
        await client.send(call(STREAM))
        first = await client.head()
        await serving.stop()
        if how == "a second signal":
            await asyncio.sleep(ECHO_SECONDS)
            signal.raise_signal(signal.SIGTERM)
        got = await client.body(*first)
        assert got.ending == "fin"
        assert got.body.startswith(FRAME)
        assert b"internalServerException" in got.body
        await serving.ended()
    (row,) = await serving.rows()
    assert (row["outcome"], row["status"]) == ("cut", 200)


async def test_a_load_balancer_can_notice_before_connections_are_refused(served: Serve) -> None:
    serving = await served(drain_delay_seconds=300.0)
    signal.raise_signal(signal.SIGTERM)
    async with connect(serving.url) as client:
        await until_ready(client, 503)
    async with connect(serving.url) as late:
        got = await ask(late)
        assert (got.status, got.values("Connection")) == (200, ["close"])
    await asyncio.sleep(ECHO_SECONDS)
    signal.raise_signal(signal.SIGTERM)  # enough of that
    await serving.ended()


async def until_ready(client: Peer, status: int) -> None:
    """Ask for readiness until it is this."""
    async with asyncio.timeout(20):
        while (await ask(client, READINESS)).status != status:
            pass


async def test_an_answer_that_ends_as_the_last_calls_are_cut_arrives_whole(proxy: Running, upstream: Upstream) -> None:
    """It is on record as whole, so its last bytes are waited for."""
    upstream.script = Stream()
    async with connect(proxy.url) as client:
        await client.send(call(STREAM))
        first = await client.head()
        (host,) = proxy.service.handler.forward._pool._hosts.values()
        (connection,) = host.busy
        relay: Any = connection._receiver
        downstream = relay._downstream
        # the turn as the kernel may make it: the last read comes between the cut and what the cut wakes
        asyncio.get_running_loop().call_soon(connection.data_received, chunk(usage_frame(1, 2)) + LAST_CHUNK)
        for task in proxy.service.handler.calls:
            task.cancel()
        await asyncio.sleep(0)
        downstream.close()
        assert (await client.body(*first)).ending == "whole"
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["output_tokens"]) == ("ok", 2)


async def test_one_who_reads_to_the_connections_end_is_reset(served: Serve, upstream: Upstream) -> None:
    serving = await served(drain_seconds=0.1)
    upstream.script = Stream()
    async with connect(serving.url) as client:
        await client.send(call(STREAM, version="HTTP/1.0"))
        first = await client.head()
        await serving.stop()
        assert (await client.body(*first)).ending == "reset"
        await serving.ended()


@pytest.mark.parametrize("drain", [10.0, 0.2])
async def test_the_call_of_a_client_that_left_is_on_record(served: Serve, upstream: Upstream, drain: float) -> None:
    serving = await served(drain_seconds=drain)
    upstream.script = script = Stream()
    async with connect(serving.url) as client:
        await client.send(call(STREAM))
        await client.head()
        client.reset()
    await serving.stop()
    assert not serving.task.done()
    if drain > 1:
        script.go_on.set()
    await serving.ended()
    (row,) = await serving.rows()
    assert row["outcome"] == "client_gone"
    assert row["usage_source"] == ("stream" if drain > 1 else "estimate")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
async def test_the_program_finishes_what_is_open_and_ends_well(
    upstream: Upstream, shared_database: str, tmp_path: Path, number: signal.Signals
) -> None:
    upstream.script = script = Stream()
    async with _program(upstream, shared_database, tmp_path) as program, connect(program.url) as client:
        await client.send(call(STREAM))
        first = await client.head()
        program.tell(number)
        await _refused(program.url)
        script.go_on.set()
        assert (await client.body(*first)).ending == "whole"
        assert await asyncio.to_thread(program.ended) == 0
    assert {"draining", "call", "stopped"} <= {line["event"] for line in program.lines}


async def test_many_workers_finish_what_is_open_and_accept_nothing_more(
    upstream: Upstream, shared_database: str, tmp_path: Path
) -> None:
    upstream.script = script = Stream()
    async with (
        _program(upstream, shared_database, tmp_path, "--workers", "2") as program,
        connect(program.url) as client,
    ):
        await client.send(call(STREAM))
        first = await client.head()
        program.tell(signal.SIGTERM)
        await _refused(program.url)
        script.go_on.set()
        assert (await client.body(*first)).ending == "whole"
        assert await asyncio.to_thread(program.ended) == 0


@pytest.mark.parametrize("how", ["the whole group is signalled", "a wrapper passes on what it was sent"])
async def test_one_wish_to_stop_may_arrive_several_times(
    upstream: Upstream, shared_database: str, tmp_path: Path, how: str
) -> None:
    """systemd, containers' inits and terminals signal every process; `uv run` passes signals on."""
    upstream.script = script = Stream()
    async with (
        _program(upstream, shared_database, tmp_path, "--workers", "2") as program,
        connect(program.url) as client,
    ):
        await client.send(call(STREAM))
        first = await client.head()
        everybody = [program.process.pid, *(_children(program) if how.startswith("the whole") else [])]
        for number in (signal.SIGINT, signal.SIGTERM):  # two of one kind could become one on the way
            for pid in everybody:
                os.kill(pid, number)
        await _refused(program.url)
        script.go_on.set()
        assert (await client.body(*first)).ending == "whole"
        assert await asyncio.to_thread(program.ended) == 0


async def test_a_second_wish_cuts_what_workers_have_open(
    upstream: Upstream, shared_database: str, tmp_path: Path
) -> None:
    upstream.script = Stream()
    async with (
        _program(upstream, shared_database, tmp_path, "--workers", "2") as program,
        connect(program.url) as client,
    ):
        await client.send(call(STREAM))
        first = await client.head()
        program.tell(signal.SIGTERM)
        await _refused(program.url)
        await asyncio.sleep(ECHO_SECONDS)
        program.tell(signal.SIGTERM)
        assert (await client.body(*first)).ending == "fin"
        assert await asyncio.to_thread(program.ended) == 0


async def test_the_sandbox_stays_for_as_long_as_its_worker_needs_it(tmp_path: Path, shared_database: str) -> None:
    program = await asyncio.to_thread(
        (running := command(tmp_path, "--sandbox", DATABASE_URL=shared_database)).__enter__
    )
    try:
        async with connect(program.url) as client:
            await client.send(call(STREAM, "x-sandbox-fault: pace=0.2"))
            first = await client.head()
            for pid in [program.process.pid, *_children(program)]:
                os.kill(pid, signal.SIGTERM)
            assert (await client.body(*first)).ending == "whole"
        assert await asyncio.to_thread(program.ended) == 0
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


def _children(program: Any) -> list[int]:
    pid = program.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_whoever_reads_the_log_may_stall_and_stops_neither_calls_nor_the_end(
    upstream: Upstream, shared_database: str, tmp_path: Path, workers: str
) -> None:
    async def closes(peer: Incoming) -> None:
        await peer.request()

    upstream.script = closes
    async with _program(upstream, shared_database, tmp_path, "--workers", workers) as program:
        program.reads.clear()
        async with connect(program.url) as client:
            for _ in range(600):  # of which each leaves a warning and a line: several times what a pipe holds
                assert (await ask(client)).status == 502
        program.tell(signal.SIGTERM)
        assert await asyncio.to_thread(program.ended) == 0


async def test_a_worker_that_is_killed_is_replaced(upstream: Upstream, shared_database: str, tmp_path: Path) -> None:
    async with _program(upstream, shared_database, tmp_path, "--workers", "2") as program:
        pids = [line["pid"] for line in program.lines if line["event"] == "serving"]
        os.kill(pids[0], signal.SIGKILL)
        await until(lambda: len({line["pid"] for line in program.lines if line["event"] == "serving"}) == 3)
        for _ in range(10):
            async with connect(program.url) as client:
                assert (await ask(client)).status == 200


async def _refused(url: str) -> None:
    """Wait until nobody listens there any more."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with connect(url) as client:
                    await client.gone()
            except ConnectionError:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _program(upstream: Upstream, database_url: str, data_dir: Path, *arguments: str) -> AsyncIterator[Any]:
    """The program in a process of its own; it blocks, so threads start and end it."""
    running = command(
        data_dir,
        *arguments,
        DATABASE_URL=database_url,
        AWS_ACCESS_KEY_ID=DEFAULT_CREDENTIALS.access_key,
        AWS_SECRET_ACCESS_KEY=DEFAULT_CREDENTIALS.secret_key,
        AWS_ENDPOINT_URL_BEDROCK_RUNTIME=upstream.url,
    )
    program = await asyncio.to_thread(running.__enter__)
    try:
        yield program
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
