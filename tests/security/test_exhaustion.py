"""Strangers cannot fill memory, disks or the database."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession

from passthrough.errors import Refusal, forbidden, unauthenticated
from passthrough.inbound import MAX_HEAD_BYTES
from passthrough.policy.ledger import Entry
from passthrough.proxy.record import STRANGERS_A_SECOND, STRANGERS_AT_ONCE, Recorder
from tests.fakes.running import running

START = b"GET /health/liveliness HTTP/1.1\r\nHost: x\r\n"
FIELD = b"X-Long: " + b"a" * 16_000 + b"\r\n"
TOO_MANY = 2 * MAX_HEAD_BYTES // len(FIELD)


async def sent_in_pieces(url: str, pieces: list[bytes]) -> bytes:
    """What is answered to pieces of a request, given away one by one as a slow network would."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = b""
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while data := await reader.read(65536):
                answer += data
    writer.close()
    return answer


async def test_a_head_without_end_is_refused_before_it_fills_memory(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy:
        answer = await sent_in_pieces(proxy.url, [START, *[FIELD] * TOO_MANY])
        assert answer[:13] in {b"HTTP/1.1 431 ", b""}  # nothing, where it was still being sent when it was refused
        # behind a request that was answered, too
        kept = START + b"\r\n"
        answer = await sent_in_pieces(proxy.url, [kept, kept, START, *[FIELD] * TOO_MANY])
        assert answer.count(b"HTTP/1.1 200 ") in {0, 1, 2}
        assert answer.count(b"HTTP/1.1 ") <= 3


async def test_what_is_refused_before_it_is_a_call_is_counted(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:

        async def counted() -> dict[str, float]:
            async with session.get(f"{proxy.url}/metrics") as response:
                lines = (await response.text()).splitlines()
            name = "passthrough_refused_requests_total{"
            return {line.split('"')[1]: float(line.split()[-1]) for line in lines if line.startswith(name)}

        assert await counted() == {}
        assert (await sent_in_pieces(proxy.url, [b"no HTTP at all\r\n\r\n"]))[8:13] == b" 400 "
        assert await counted() == {"400": 1}
        await sent_in_pieces(proxy.url, [START, *[FIELD] * TOO_MANY])
        assert await counted() == {"400": 1, "431": 1}
        expecting = START + b"Expect: miracles\r\n\r\n"
        assert (await sent_in_pieces(proxy.url, [expecting])).startswith(b"HTTP/1.1 417 ")
        await sent_in_pieces(proxy.url, [b"GET / HTTP/9.9\r\n\r\n"])
        assert await counted() == {"400": 2, "417": 1, "431": 1}
        await proxy.key()
        assert await counted() == {"400": 2, "417": 1, "431": 1}


async def test_long_fields_and_longer_bodies_are_no_head_without_end(database_url: str, tmp_path: Path) -> None:
    closing = b"Connection: close\r\n\r\n"
    async with running(database_url, tmp_path) as proxy, ClientSession() as session:
        answer = await sent_in_pieces(proxy.url, [START, *[FIELD] * 8, closing])
        assert answer.startswith(b"HTTP/1.1 200 ")
        answer = await sent_in_pieces(proxy.url, [START + b"\r\n"] * 500 + [START, FIELD, closing])
        assert answer.count(b"HTTP/1.1 200 ") == 501
        key = await proxy.key()
        for credential, status in ((key, 400), ("sk-nobody-has-this-one-0123", 401)):  # 400: AWS's, it is no JSON
            async with session.post(
                f"{proxy.bedrock}/model/m/converse",
                data=b"x" * 4 * MAX_HEAD_BYTES,
                headers={"Authorization": f"Bearer {credential}"},
            ) as response:
                assert response.status == status


class Kept:
    """Everything that a `Recorder` writes to."""

    def __init__(self) -> None:
        self.rows: list[Entry] = []
        self.lines = 0
        self.counted = 0

    def append(self, entry: Entry) -> None:
        self.rows.append(entry)

    def write(self, entry: Entry) -> None:  # noqa: ARG002  # the interface
        self.lines += 1

    def call_ended(self, entry: Entry) -> None:  # noqa: ARG002  # the interface
        self.counted += 1


def test_calls_of_strangers_are_all_counted_and_recorded_at_a_bounded_pace(caplog: pytest.LogCaptureFixture) -> None:
    kept, now = Kept(), 0.0
    recorder = Recorder(
        kept, lines=kept, counters=kept, price=lambda _entry, _usage: None, clock=lambda: 1e9, monotonic=lambda: now
    )

    def call(key_id: str | None, refusal: Refusal | None = None) -> None:
        record = recorder.open(SimpleNamespace(remote="", headers={}))  # type: ignore[arg-type]  # all it reads
        record.entry.key_id = key_id
        if refusal is not None:
            record.refused(refusal)
        record.close()

    for _ in range(STRANGERS_AT_ONCE + 500):
        call(None)
    assert (len(kept.rows), kept.lines, kept.counted) == (STRANGERS_AT_ONCE, STRANGERS_AT_ONCE, STRANGERS_AT_ONCE + 500)
    call("k" * 64)  # whoever has a key is always recorded
    call("k" * 64, forbidden("No."))
    assert len(kept.rows) == STRANGERS_AT_ONCE + 2
    now = 3.0
    for _ in range(500):
        call("k" * 64, unauthenticated("It has expired."))  # unless it may not be used any more
    assert len(kept.rows) == STRANGERS_AT_ONCE + 2 + 3 * STRANGERS_A_SECOND
    assert [record.__dict__["calls"] for record in caplog.records] == [500]
