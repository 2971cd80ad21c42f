"""Whoever has the last byte of an answer has a row, whatever dies right then."""

import asyncio
import functools
import re
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from passthrough.sandbox import DEFAULT_CREDENTIALS
from passthrough.serving import listen, serve
from passthrough.settings import Settings
from tests.adversity.program import PATIENCE_SECONDS, Program, kill_quietly
from tests.fakes.peer import connect
from tests.fakes.running import MASTER_KEY, select
from tests.fakes.upstream import (
    LAST_CHUNK,
    Incoming,
    Upstream,
    answer,
    chunk,
    head,
    stream_head,
    text_frame,
    usage_frame,
)

CLIENTS = 8  # at once, so that the worker dies at as many different points
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
BODY = b'{"usage": {"inputTokens": 30, "outputTokens": 7, "totalTokens": 37}}'
STREAM = stream_head() + chunk(text_frame("all ")) + chunk(text_frame("of it")) + chunk(usage_frame(30, 7))

# What is asked; what is sent at once; what is held back.
ANSWERS = {
    "the last byte": ("converse", answer(BODY)[:-1], BODY[-1:]),
    "the last chunk": ("converse", head("Transfer-Encoding: chunked") + chunk(BODY), LAST_CHUNK),
    "the end of a stream": ("converse-stream", STREAM, LAST_CHUNK),
    "the usage and the end of a stream": ("converse-stream", STREAM[:-60], STREAM[-60:] + LAST_CHUNK),
}


class Holding:
    """An upstream that holds back the end of every answer until all of `CLIENTS` wait for theirs."""

    def __init__(self) -> None:
        self.first = self.last = b""
        self._waiting = 0
        self._all_wait = asyncio.Event()

    def hold(self, first: bytes, last: bytes) -> None:
        self.first, self.last = first, last
        self._waiting = 0
        self._all_wait = asyncio.Event()

    async def script(self, peer: Incoming) -> None:
        while True:
            await peer.request()
            await peer.send(self.first)
            self._waiting += 1
            if self._waiting == CLIENTS:
                self._all_wait.set()
            await self._all_wait.wait()
            await peer.send(self.last)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture
def program(tmp_path: Path, database_url: str, upstream: Upstream) -> Iterator[Program]:
    with ExitStack() as stack:
        program = Program(
            tmp_path / "data", tmp_path / "log", workers=2, upstream=upstream.url, database_url=database_url
        )
        stack.callback(program.close)
        yield program


async def test_a_client_that_has_the_last_byte_has_a_row_though_every_worker_is_killed_at_once(
    program: Program, upstream: Upstream, database_url: str
) -> None:
    holding = Holding()
    upstream.script = holding.script
    await asyncio.to_thread(program.start)
    completed: list[str] = []
    for action, first, last in ANSWERS.values():
        holding.hold(first, last)
        workers = await asyncio.to_thread(program.workers)
        with ThreadPoolExecutor(CLIENTS) as threads:  # to kill, no thread may wait for this loop
            calls = [threads.submit(call_and_kill, program.url, action, workers) for _ in range(CLIENTS)]
            answers = await asyncio.gather(*map(asyncio.wrap_future, calls))
        found = [call for call in answers if call is not None]
        assert found
        completed += found
        await asyncio.to_thread(program.replaced, workers)
    rows = await rows_with(database_url, completed)
    assert len(rows) == len(completed) == len(set(completed))
    assert {(row["outcome"], row["input_tokens"], row["output_tokens"]) for row in rows} == {("ok", 30, 7)}


async def test_a_call_that_is_cut_at_the_end_of_the_drain_has_a_row(
    program: Program, upstream: Upstream, database_url: str
) -> None:
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(STREAM[:-60])
        await peer.gone()

    upstream.script = script
    await asyncio.to_thread(functools.partial(program.start, PASSTHROUGH_DRAIN_SECONDS="0"))
    async with connect(program.url) as client:
        await client.send(request("converse-stream"))
        first, fields = await client.head()
        stopped = asyncio.create_task(asyncio.to_thread(program.stop))
        cut = await client.body(first, fields)
        assert cut.ending != "whole"
        assert await stopped == 0
    await asyncio.to_thread(program.start)
    (row,) = await rows_with(database_url, [str(cut.value("x-passthrough-call-id"))])
    assert (row["outcome"], row["status"], row["stream"]) == ("cut", 200, True)


def request(action: str) -> bytes:
    body = b'{"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}'
    lines = (f"POST /bedrock/model/{MODEL}/{action} HTTP/1.1", "Host: the.proxy", f"x-api-key: {MASTER_KEY}")
    return "".join(f"{line}\r\n" for line in (*lines, f"Content-Length: {len(body)}", "")).encode() + body


def call_and_kill(url: str, action: str, workers: list[int]) -> str | None:
    """Call; kill the workers the moment that the answer is whole. Its id, or None if it did not become whole."""
    address = urlsplit(url)
    received = b""
    with socket.create_connection((address.hostname, address.port), PATIENCE_SECONDS) as line:
        line.sendall(request(action))
        try:
            while not is_whole(received):
                data = line.recv(65536)
                if not data:
                    return None
                received += data
        except ConnectionResetError:
            return None
        for pid in workers:
            kill_quietly(pid)
    found = re.search(rb"x-passthrough-call-id: (\S+)", received)
    assert found is not None
    return found[1].decode()


def is_whole(received: bytes) -> bool:
    top, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", top)
    return len(body) == int(length[1]) if length else body.endswith(LAST_CHUNK)


async def rows_with(database_url: str, calls: list[str]) -> list[dict[str, Any]]:
    """The rows of these calls, once they are all there, or what of them is there after a long time."""
    rows: list[dict[str, Any]] = []
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while len(rows) < len(calls) and asyncio.get_running_loop().time() < deadline:
        held = await select(database_url, "SELECT * FROM ledger")
        rows = [row for row in held if str(row["call_id"]) in calls]
        await asyncio.sleep(0.05)  # another process's progress cannot be awaited
    return rows


async def test_a_server_that_comes_to_an_unforeseen_end_gives_no_answer_that_it_cannot_record(
    upstream: Upstream, database_url: str, tmp_path: Path
) -> None:
    end = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(answer(BODY)[:-1])
        await end.wait()
        await peer.send(BODY[-1:])

    upstream.script = script
    settings = Settings(master_key=MASTER_KEY, data_dir=tmp_path, runtime_endpoint=upstream.url)
    sock = listen("127.0.0.1", 0)
    serving = asyncio.create_task(serve(settings, sock, database_url=database_url, sandbox=DEFAULT_CREDENTIALS))
    async with connect(f"http://127.0.0.1:{sock.getsockname()[1]}") as client:
        await client.send(request("converse"))
        first, fields = await client.head()
        serving.cancel()
        await asyncio.wait([serving])
        end.set()
        assert (await client.body(first, fields)).ending != "whole"
    call_id = dict(fields)[b"x-passthrough-call-id"].decode()
    (row,) = await rows_with(database_url, [call_id])
    assert row["outcome"] == "cut"
