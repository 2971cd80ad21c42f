"""The sandbox as a server: what it reports, what it accepts, how it comes and goes."""

import asyncio
import io
import ssl
import time
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector

from passthrough.bedrock.eventstream import FrameDecoder
from passthrough.sandbox import DEFAULT_BEARER_TOKEN, Received, Sandbox
from tests.sandbox.client import send, sign

BODY = b'{"messages": [{"role": "user", "content": [{"text": "hello there"}]}]}'
BEARER = [("Authorization", f"Bearer {DEFAULT_BEARER_TOKEN}")]


async def test_a_request_is_reported_byte_for_byte_before_it_is_judged(
    sandbox: Sandbox, journal: list[Received]
) -> None:
    host, port = sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    target = b"/model/a%3A0%2f/../x//y:z/~'/%zz/converse?b=%2F&a=+&&flag"
    writer.write(
        b"POST "
        + target
        + b" HTTP/1.1\r\nhOsT: x\r\nX-Dup: 1\r\nx-dup: \xc3\xbc\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n"
    )

    assert (await reader.readline()) == b"HTTP/1.1 403 Forbidden\r\n"
    writer.close()
    await writer.wait_closed()

    (received,) = journal
    assert (received.method, received.target.encode(), received.body) == ("POST", target, b"\x00\xff\r\n")
    assert received.headers == ((b"hOsT", b"x"), (b"X-Dup", b"1"), (b"x-dup", b"\xc3\xbc"), (b"Content-Length", b"4"))
    assert received.path.encode() + b"?" + received.query.encode() == target


async def test_the_end_of_an_answer_is_reported(http: ClientSession) -> None:
    ends: list[tuple[str, bool]] = []
    async with Sandbox(pace_seconds=0, on_end=lambda received, whole: ends.append((received.path, whole))) as sandbox:
        await send(http, "POST", f"{sandbox.url}/model/m/converse", BEARER, BODY)
        await send(http, "POST", f"{sandbox.url}/model/m/converse-stream", BEARER, BODY)

    assert ends == [("/model/m/converse", True), ("/model/m/converse-stream", True)]


async def test_answers_have_bedrocks_headers_and_no_server(sandbox: Sandbox, http: ClientSession) -> None:
    whole, _ = await send(http, "POST", f"{sandbox.url}/model/m/converse", BEARER, BODY)
    stream, _ = await send(http, "POST", f"{sandbox.url}/model/m/converse-stream", BEARER, BODY)

    assert {name.lower() for name in whole.headers} == {"content-type", "content-length", "date", "x-amzn-requestid"}
    assert {name.lower() for name in stream.headers} == {
        "content-type",
        "transfer-encoding",
        "date",
        "x-amzn-requestid",
    }
    assert stream.headers["Content-Type"] == "application/vnd.amazon.eventstream"


@pytest.mark.parametrize("sent", [b'{"messages"', b""])
async def test_a_client_that_leaves_in_the_middle_of_its_request_is_nobodys_error(
    sent: bytes, sandbox: Sandbox, journal: list[Received], http: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = sandbox.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /model/m/converse HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + sent)
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    response, _ = await send(http, "POST", f"{sandbox.url}/model/m/converse", BEARER, BODY)

    assert response.status == 200
    assert [received.body for received in journal] == [BODY]
    assert not caplog.records


async def test_a_client_that_leaves_in_the_middle_of_a_stream_is_reported_and_nobodys_error(
    http: ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    ended: asyncio.Queue[bool] = asyncio.Queue()
    async with Sandbox(pace_seconds=0.01, on_end=lambda _, whole: ended.put_nowait(whole)) as sandbox:
        response = await http.post(f"{sandbox.url}/model/m/converse-stream", data=BODY, headers=dict(BEARER))
        await response.content.readany()
        response.close()

        async with asyncio.timeout(30):
            assert await ended.get() is False
    assert not caplog.records


async def test_frames_are_padded_with_a_key_of_changing_length(sandbox: Sandbox, http: ClientSession) -> None:
    _, raw = await send(http, "POST", f"{sandbox.url}/model/m/converse-stream", BEARER, BODY)

    frames = FrameDecoder().feed(raw)
    paddings = {frame.payload.rpartition(b'"p":"')[2] for frame in frames}
    assert len(paddings) > 3
    assert all(
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789".startswith(one[:-2]) for one in paddings
    )


async def test_a_large_body_and_a_large_header_are_taken(sandbox: Sandbox, http: ClientSession) -> None:
    body = b'{"messages": [{"role": "user", "content": [{"text": "%s"}]}]}' % (b"x" * 9_000_000)
    headers = [*BEARER, ("x-amz-security-token", "t" * 50_000)]

    url = f"{sandbox.url}/model/m/converse"
    async with http.post(url, data=io.BytesIO(body), headers=dict(headers)) as response:
        usage = (await response.json())["usage"]

    assert usage["inputTokens"] == 2_250_000


async def test_a_body_is_not_unpacked(sandbox: Sandbox, http: ClientSession, journal: list[Received]) -> None:
    packed = b"\x1f\x8b\x08\x00 no real gzip"
    url = f"{sandbox.url}/model/sandbox.echo/invoke"

    response, answer = await send(http, "POST", url, [*BEARER, ("Content-Encoding", "gzip")], packed)

    assert (response.status, answer, journal[0].body) == (200, packed, packed)


async def test_a_stream_keeps_its_pace(http: ClientSession) -> None:
    async with Sandbox(pace_seconds=0.005) as sandbox:
        started = time.monotonic()
        _, raw = await send(http, "POST", f"{sandbox.url}/model/m/converse-stream", BEARER, BODY)
        elapsed = time.monotonic() - started

    assert elapsed >= 0.005 * (len(FrameDecoder().feed(raw)) - 1)


async def test_a_stream_leaves_piece_by_piece(http: ClientSession) -> None:
    async with Sandbox(pace_seconds=60) as sandbox:
        async with (
            asyncio.timeout(10),
            http.post(f"{sandbox.url}/model/m/converse-stream", data=BODY, headers=dict(BEARER)) as response,
        ):
            first = await response.content.readany()

        assert [frame.event_type for frame in FrameDecoder().feed(first)] == ["messageStart"]


async def test_it_speaks_tls_when_it_is_given_a_certificate(certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))

    async with (
        Sandbox(ssl_context=context, pace_seconds=0) as sandbox,
        ClientSession(connector=TCPConnector(ssl=trusting)) as http,
    ):
        url = f"{sandbox.url}/model/m/converse"
        response, _ = await send(http, "POST", url, sign("POST", url, body=BODY), BODY)

    assert url.startswith("https://127.0.0.1:")
    assert response.status == 200


async def test_the_address_is_known_only_while_it_is_open() -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="not open"):
        _ = sandbox.url
    async with sandbox:
        first = sandbox.url
    with pytest.raises(RuntimeError, match="not open"):
        _ = sandbox.url
    async with sandbox:
        assert sandbox.url.startswith(first.rpartition(":")[0])


async def test_it_waits_for_permission_to_send_when_the_client_does(sandbox: Sandbox, http: ClientSession) -> None:
    async with http.post(
        f"{sandbox.url}/model/m/converse", data=BODY, headers=dict(BEARER), expect100=True
    ) as response:
        assert response.status == 200
