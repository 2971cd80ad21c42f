"""A client's connection: what is no request is refused; at its end, what has arrived is answered."""

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from passthrough.inbound import MAX_HEAD_BYTES, Protocol, Room
from tests.fakes.calls import ask, refusal
from tests.fakes.peer import Peer, connect, until

START = b"GET / HTTP/1.1\r\nHost: h\r\n"
REQUEST = START + b"\r\n"
FIELD = b"X-Long: " + b"x" * 8000 + b"\r\n"


def protocols(
    server: "web.Server[web.BaseRequest]", room: Room, refused: Callable[[int], None] = print
) -> Callable[[], Protocol]:
    loop = asyncio.get_running_loop()
    return functools.partial(Protocol, server, refused=refused, server_ends=lambda: False, room=room, loop=loop)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Protocol, Peer]]:
    """The server's end and the client's of one connection."""

    async def handler(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="served")

    loop = asyncio.get_running_loop()
    server = web.Server(handler)
    inner, outer = socket.socketpair()
    factory = protocols(server, Room(1))
    _, protocol = await loop.connect_accepted_socket(factory, inner)
    async with Peer(*await asyncio.open_connection(sock=outer)) as client:
        yield protocol, client
    await server.shutdown()


async def test_what_has_arrived_is_answered_and_the_connection_ends(ends: tuple[Protocol, Peer]) -> None:
    protocol, client = ends
    protocol.data_received(REQUEST)
    protocol.close()  # before the loop has begun to serve it
    got = await client.message()
    assert (got.status, got.values("Connection"), got.body) == (200, ["close"], b"served")
    assert await client.gone() == "fin"


async def test_a_connection_for_which_there_is_no_room_is_closed_and_those_that_are_open_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else strangers who open connections and say nothing would leave no files for calls, journal and database."""

    async def handler(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="served")

    refused: list[int] = []
    server, room = web.Server(handler), Room(2)
    listening = await asyncio.get_running_loop().create_server(protocols(server, room, refused.append), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening, connect(url) as first, connect(url) as second:
        for client in (first, second):
            assert (await ask(client, REQUEST)).body == b"served"
        for _ in range(3):
            async with connect(url) as late:
                assert await late.gone() in {"fin", "reset"}
        assert refused == [503] * 3
        assert len(caplog.records) == 1
        second.reset()
        await until(lambda: room._taken == 1)
        async with connect(url) as third:
            assert (await ask(third, REQUEST)).body == b"served"
        assert (await ask(first, REQUEST)).body == b"served"
    await server.shutdown()


async def test_a_connection_on_which_nothing_arrived_ends_at_once(ends: tuple[Protocol, Peer]) -> None:
    protocol, client = ends
    protocol.close()
    assert await client.gone() == "fin"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (START + FIELD * (MAX_HEAD_BYTES // len(FIELD) + 1), 431),
        (b"no HTTP at all\r\n\r\n", 400),
    ],
)
async def test_what_never_became_a_request_is_refused_as_calls_are(
    ends: tuple[Protocol, Peer], sent: bytes, status: int
) -> None:
    _, client = ends
    await client.send(sent)
    answer = await client.message()
    assert refusal(answer) == (status, "ValidationException")
    assert answer.value("Date")
    assert await client.gone() == "fin"
