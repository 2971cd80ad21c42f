"""Whatever is sent, it is answered in AWS's shape or the connection is closed; and the server goes on.

For each request here: no 500, no hang, nothing in the log that reads like a bug, no key in log or answer, at most
one row, and the next call is served.
"""

import logging
from collections.abc import AsyncIterator

import pytest

from tests.fakes.calls import CONVERSE, Proxies, ask, call, call_head, ended_rows, refusal
from tests.fakes.peer import Message, Peer, connect
from tests.fakes.running import MASTER_KEY, Running
from tests.fakes.upstream import LAST_CHUNK, Upstream, chunk

SECRET = MASTER_KEY.encode()
LIMIT = 100_000


class Watched:
    """A proxy, and all that it wrote."""

    def __init__(
        self, proxy: Running, upstream: Upstream, log: pytest.LogCaptureFixture, output: pytest.CaptureFixture[str]
    ) -> None:
        self.proxy = proxy
        self.upstream = upstream
        self._log = log
        self._output = output

    async def send(self, *pieces: bytes, close: bool = False) -> Message | None:
        """The answer to these bytes, None when the connection was closed without one."""
        async with connect(self.proxy.url) as client:
            try:
                for piece in pieces:
                    await client.send(piece)
                if close:
                    client.half_close()
            except ConnectionError:
                pass  # refused before it was all sent: the answer may be there
            return await _answer(client)

    async def is_well(self, *answers: Message | None) -> None:
        """Check what holds after anything."""
        rows = await ended_rows(self.proxy)
        async with connect(self.proxy.url) as client:
            assert (await ask(client)).status == 200
        self.proxy.service.handler.record._lines.flush()
        written = self._output.readouterr()
        lines = [line for line in written.out.splitlines() if '"event":"call"' in line]
        assert len(lines) == len(rows) + 1, "each call has one line and one row"
        for record in self._log.records:
            assert record.levelno < logging.ERROR, record.getMessage()
            assert record.exc_info is None or record.levelno < logging.INFO, record.getMessage()
        texts = [written.out, written.err, self._log.text, *(repr(row) for row in rows)]
        for text in texts:
            assert MASTER_KEY not in text
        for answer in answers:
            assert answer is None or SECRET not in answer.body


@pytest.fixture
async def watched(
    start: Proxies, upstream: Upstream, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Watched:
    proxy = await start(log_level="info", max_body_bytes=LIMIT, client_stall_seconds=3.0)
    caplog.set_level(logging.INFO)
    capfd.readouterr()
    return Watched(proxy, upstream, caplog, capfd)


async def _answer(client: Peer) -> Message | None:
    try:
        return await client.message()
    except EOFError:
        return None


async def _answers(client: Peer) -> AsyncIterator[Message]:
    while (answer := await _answer(client)) is not None:
        yield answer


def request(*lines: bytes, body: bytes = b"") -> bytes:
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def with_field(field: bytes) -> bytes:
    return request(b"POST " + CONVERSE.encode() + b" HTTP/1.1", b"Host: h", b"Content-Length: 2", field, body=b"{}")


AUTHORIZATIONS = {
    "empty": b"",
    "a scheme alone": b"Bearer",
    "a scheme and spaces": b"Bearer    ",
    "another scheme": b"Negotiate " + SECRET,
    "digest": b'Digest username="' + SECRET + b'", realm="x"',
    "the key alone": SECRET,
    "a key that is none": b"Bearer sk-nobody",
    "words": b"Bearer a b c",
    "bytes that are no text": b"Bearer \xff\xfe\x80",
    "surrogates in UTF-8": b"Bearer \xed\xa0\x80",
    "a long key": b"Bearer " + b"x" * 15_000,
    "basic without anything": b"Basic",
    "basic that is no base64": b"Basic !!!!",
    "basic that is no text": b"Basic /////w==",
    "basic without a password": b"Basic Og==",
    "a signature without parameters": b"AWS4-HMAC-SHA256",
    "a signature without a credential": b"AWS4-HMAC-SHA256 SignedHeaders=host, Signature=0",
    "an empty credential": b"AWS4-HMAC-SHA256 Credential=, SignedHeaders=host, Signature=0",
    "a credential without a scope": b"AWS4-HMAC-SHA256 Credential=" + SECRET,
    "a credential without a key": b"AWS4-HMAC-SHA256 Credential=/20260101/us-east-1/bedrock/aws4_request",
    "a credential of slashes": b"AWS4-HMAC-SHA256 Credential=////////",
    "many parameters": b"AWS4-HMAC-SHA256 " + b"a=b," * 3000,
    "another algorithm": b"AWS4-ECDSA-P256-SHA256 Credential=" + SECRET + b"/20260101/bedrock/aws4_request",
}


@pytest.mark.parametrize("name", AUTHORIZATIONS)
async def test_an_authorization_that_names_no_key_is_a_401(watched: Watched, name: str) -> None:
    answer = await watched.send(with_field(b"Authorization: " + AUTHORIZATIONS[name]))
    assert answer is not None
    assert refusal(answer) == (401, "UnrecognizedClientException")
    (row,) = await ended_rows(watched.proxy)
    assert (row["outcome"], row["status"]) == ("refused", 401)
    await watched.is_well(answer)
    assert len(watched.upstream.requests) == 1


@pytest.mark.parametrize("place", [b"x-api-key", b"api-key", b"x-litellm-api-key", b"litellm_user_api_key"])
@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"Bearer", b"Bearer ", b"'; DROP TABLE keys; --", b"%00", b"x" * 15_000]
)
async def test_no_key_in_another_place_is_a_401(watched: Watched, place: bytes, value: bytes) -> None:
    answer = await watched.send(with_field(place + b": " + value))
    assert answer is not None
    assert refusal(answer) == (401, "UnrecognizedClientException")
    await watched.is_well(answer)


# What is no HTTP/1.1, or could be read in two ways: 4xx or closed, and never a call.
NO_REQUESTS = {
    "a field without a colon": with_field(b"no colon"),
    "a field without a name": with_field(b": value"),
    "a space before the colon": with_field(b"X : value"),
    "a space in a name": with_field(b"X Y: value"),
    "a folded field": with_field(b"X: one\r\n two"),
    "a NUL in a field": with_field(b"X: a\x00b"),
    "a NUL in a name": with_field(b"X\x00: b"),
    "a control character in a field": with_field(b"X: a\x01b"),
    "a bare carriage return": with_field(b"X: a\rY: b"),
    "a name that is no token": with_field(b"X\xff: b"),
    "a field of 40 KB": with_field(b"X: " + b"x" * 40_960),
    "a name of 40 KB": with_field(b"x" * 40_960 + b": y"),
    "ten thousand fields": with_field(b"\r\n".join(b"X-%d: y" % number for number in range(10_000))),
    "a key in a field of 40 KB": with_field(b"Authorization: Bearer " + SECRET + b"x" * 40_960),
    "two lengths": with_field(b"Content-Length: 3"),
    "a negative length": request(b"POST /bedrock/x HTTP/1.1", b"Host: h", b"Content-Length: -1"),
    "a length in words": request(b"POST /bedrock/x HTTP/1.1", b"Host: h", b"Content-Length: two"),
    "a length with a sign": request(b"POST /bedrock/x HTTP/1.1", b"Host: h", b"Content-Length: +2", body=b"{}"),
    "a length that overflows": request(b"POST /bedrock/x HTTP/1.1", b"Host: h", b"Content-Length: " + b"9" * 40),
    "a line's end alone": b"GET /bedrock/x HTTP/1.1\nHost: h\n\n",
    "no version": request(b"GET /bedrock/x", b"Host: h"),
    "version 2.0": request(b"GET /bedrock/x HTTP/2.0", b"Host: h"),
    "version 9.9": request(b"GET /bedrock/x HTTP/9.9", b"Host: h"),
    "another protocol": request(b"GET /bedrock/x RTSP/1.0", b"Host: h"),
    "no target": request(b"GET  HTTP/1.1", b"Host: h"),
    "a space in the target": request(b"GET /bedrock/a b HTTP/1.1", b"Host: h"),
    "a NUL in the target": request(b"GET /bedrock/a\x00b HTTP/1.1", b"Host: h"),
    "no method": request(b" /bedrock/x HTTP/1.1", b"Host: h"),
    "a long method": request(b"A" * 10_000 + b" /bedrock/x HTTP/1.1", b"Host: h"),
    "a method that is no token": request(b"GE\x01T /bedrock/x HTTP/1.1", b"Host: h"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(154),
    "zeros": bytes(500),
    "noise": bytes(range(256)) * 4 + b"\r\n\r\n",
    "an endless first line": b"GET /" + b"a" * 200_000,
    "a long target": call(CONVERSE + "a" * 100_000),
    "a long query": call(CONVERSE + "?a=" + "b" * 100_000),
    "length and chunks": with_field(b"Transfer-Encoding: chunked"),
    "chunks and length": request(
        b"POST /bedrock/x HTTP/1.1", b"Host: h", b"Transfer-Encoding: chunked", b"Content-Length: 5", body=LAST_CHUNK
    ),
}


@pytest.mark.parametrize("name", NO_REQUESTS)
async def test_what_is_no_request_is_refused_or_closed(watched: Watched, name: str) -> None:
    answer = await watched.send(NO_REQUESTS[name])
    if answer is not None:
        status, _ = refusal(answer)
        assert 400 <= status < 500
    assert not watched.upstream.requests
    await watched.is_well(answer)


# Requests that are HTTP, and no call that can be made: (bytes, status)
REFUSED = {
    "an absolute target": (call("http://elsewhere.example" + CONVERSE), {400, 404}),
    "an authority": (call("elsewhere.example:443", method="CONNECT"), {400, 404, 405}),
    "an asterisk": (call("*", method="OPTIONS"), {400, 404, 405}),
    "TRACE": (call(method="TRACE", body=b""), {405}),
    "OPTIONS": (call(method="OPTIONS"), {405}),
    "a method nobody knows": (call(method="BREW"), {400, 405}),
    "a method in small letters": (call(method="post"), {400, 405}),
    "dots": (call("/bedrock/model/../../key/list"), {400}),
    "encoded dots": (call("/bedrock/model/%2e%2e/x"), {400}),
    "a backslash": (call("/bedrock/model/a\\b/converse"), {400}),
    "bytes that are no text": (call("/bedrock/model/\xff\xfe/converse"), {400}),
    "a broken escape": (call("/bedrock/model/%zz/converse"), {400}),
    "an encoded NUL": (call("/bedrock/model/a%00/converse"), {400}),
    "a path of 30 KB": (call("/bedrock/model/" + "a" * 30_000 + "/converse"), {400}),
    "two slashes": (call("//bedrock/model/a/converse"), {400, 404}),
    "no path of ours": (call("/model/a/converse"), {404}),
    "no path of ours, and no text": (call("/\xff\xfe"), {400, 404}),
    "a path of nobody": (call("/bedrock/nobody"), {404}),
    "a fragment": (call(CONVERSE + "#x"), {400}),
    "a body over the limit": (call(body=bytes(LIMIT + 1)), {413}),
    "a body far over the limit": (call_head(CONVERSE, "Content-Length: 99999999999"), {413}),
    "chunks over the limit": (
        call_head(CONVERSE, "Transfer-Encoding: chunked") + chunk(bytes(60_000)) * 2 + LAST_CHUNK,
        {413},
    ),
    "one chunk over the limit": (
        call_head(CONVERSE, "Transfer-Encoding: chunked") + b"fffffff\r\n" + bytes(200_000),
        {413},
    ),
    "a chunk size that is none": (call_head(CONVERSE, "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n", {400}),
    "a chunk without its end": (call_head(CONVERSE, "Transfer-Encoding: chunked") + b"2\r\n{}xx0\r\n\r\n", {400}),
    "a negative chunk": (call_head(CONVERSE, "Transfer-Encoding: chunked") + b"-2\r\n{}\r\n", {400}),
    "a chunk size that overflows": (
        call_head(CONVERSE, "Transfer-Encoding: chunked") + b"f" * 17 + b"\r\n{}\r\n",
        {400},
    ),
    "a body that goes up as it comes, over the limit": (
        call_head(CONVERSE, f"Content-Length: {LIMIT + 1}", "x-amz-content-sha256: " + "0" * 64),
        {413},
    ),
    "an expectation nobody has": (call(CONVERSE, "Expect: a-miracle"), {417}),
    "no host": (request(b"POST " + CONVERSE.encode() + b" HTTP/1.1", b"Content-Length: 0"), {400, 401}),
    "a bidirectional stream": (call("/bedrock/model/a/invoke-with-bidirectional-stream"), {400}),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_a_call_is_refused_in_awss_shape(watched: Watched, name: str) -> None:
    sent, wanted = REFUSED[name]
    answer = await watched.send(sent)
    assert answer is not None
    status, _ = refusal(answer)
    assert status in wanted
    assert not watched.upstream.requests
    await watched.is_well(answer)


ODD_BUT_FINE = {
    "a field of 16 KB": call(CONVERSE, "X: " + "x" * 16_384),
    "a hundred fields": call(CONVERSE, *(f"X-{number}: y" for number in range(100))),
    "a user agent that is no text": call(CONVERSE, "User-Agent: \xff\xfe\x80"),
    "tags that are no text": call(CONVERSE, "x-litellm-tags: \xff,\xfe,ok,,"),
    "a customer that is no text": call(CONVERSE, "x-litellm-customer-id: \xed\xa0\x80"),
    "metadata that is no JSON": call(CONVERSE, "x-litellm-spend-logs-metadata: {{{"),
    "metadata that is no object": call(CONVERSE, "x-litellm-spend-logs-metadata: [1]"),
    "metadata that is deep": call(CONVERSE, 'x-litellm-spend-logs-metadata: {"a":' + "[" * 2000 + "]" * 2000 + "}"),
    "metadata that is no text": call(CONVERSE, 'x-litellm-spend-logs-metadata: {"a":"\xff"}'),
    "metadata of a huge number": call(CONVERSE, 'x-litellm-spend-logs-metadata: {"a":' + "9" * 4000 + "}"),
    "an attempt that is no number": call(CONVERSE, "amz-sdk-request: attempt=\xb2; max=x"),
    "an attempt in other digits": call(CONVERSE, "amz-sdk-request: attempt=\xd9\xa3"),
    "an invocation that is long": call(CONVERSE, "amz-sdk-invocation-id: " + "x" * 10_000),
    "a session that is no text": call(CONVERSE, "x-claude-code-session-id: \xff\x80"),
    "a body that is no JSON": call(body=b'{"requestMetadata"'),
    "a body of deep JSON": call(body=b'{"a":' + b"[" * 40_000 + b',"requestMetadata"'),
    "metadata in the body that is none": call(body=b'{"requestMetadata":[1,2]}'),
    "metadata in the body with lone surrogates": call(body=b'{"requestMetadata":{"a":"\\ud800"}}'),
    "no body": call(body=b""),
    "a body with GET": call(method="GET"),
    "a hash that is none": call(CONVERSE, "x-amz-content-sha256: " + "g" * 64),
    "a hash that says unsigned": call(CONVERSE, "x-amz-content-sha256: UNSIGNED-PAYLOAD"),
    "an encoding nobody knows": call(CONVERSE, "Content-Encoding: nonsense"),
    "a wish for another protocol": call(CONVERSE, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    "a wish for a web socket": call(CONVERSE, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"),
    "empty lines before it": b"\r\n\r\n" + call(),
    "a connection field that names everything": call(CONVERSE, "Connection: close, host, content-type, authorization"),
    "a field for a proxy": call(CONVERSE, "Proxy-Authorization: Basic eDp5", "Proxy-Connection: keep-alive"),
    "chunks with extensions": call_head(CONVERSE, "Transfer-Encoding: chunked")
    + b'2;a=b;c="d"\r\n{}\r\n0\r\nX-Trailer: y\r\n\r\n',
}


@pytest.mark.parametrize("name", ODD_BUT_FINE)
async def test_what_is_odd_is_served_all_the_same(watched: Watched, name: str) -> None:
    answer = await watched.send(ODD_BUT_FINE[name])
    assert answer is not None
    assert answer.status == 200
    (row,) = await ended_rows(watched.proxy)
    assert row["outcome"] == "ok"
    await watched.is_well(answer)


@pytest.mark.parametrize("at", [1, 3, 20, 60, 100, 130, len(call()) - 1])
async def test_a_request_that_ends_in_its_middle_is_closed(watched: Watched, at: int) -> None:
    answer = await watched.send(call()[:at], close=True)
    assert answer is None or 400 <= answer.status < 500
    assert not watched.upstream.requests
    await watched.is_well(answer)


@pytest.mark.parametrize("extra", [b"garbage\r\n\r\n", bytes(50), b"GET /bedrock/x HTTP/1.1\r\nBad\r\n\r\n"])
async def test_garbage_behind_a_call_spoils_the_connection_and_not_the_call(watched: Watched, extra: bytes) -> None:
    async with connect(watched.proxy.url) as client:
        assert (await ask(client)).status == 200
        await client.send(extra)
        answer = await _answer(client)
        assert answer is None or refusal(answer)[0] == 400
        assert await _answer(client) is None
    await watched.is_well(answer)


@pytest.mark.parametrize("extra", [b"garbage\r\n\r\n", bytes(50), b"GET /bedrock/x HTTP/1.1\r\nBad\r\n\r\n"])
async def test_garbage_in_one_piece_with_a_call_is_refused_or_kept_apart(watched: Watched, extra: bytes) -> None:
    async with connect(watched.proxy.url) as client:
        await client.send(call() + extra)
        answers = [answer async for answer in _answers(client)]
    assert answers
    assert {answer.status for answer in answers} <= {200, 400}
    assert len([answer for answer in answers if answer.status == 200]) == len(watched.upstream.requests)
    await watched.is_well(*answers)


async def test_a_body_longer_than_it_said_is_not_taken_for_a_call(watched: Watched) -> None:
    smuggled = call("/bedrock/model/smuggled/converse")
    async with connect(watched.proxy.url) as client:
        await client.send(call_head(CONVERSE, "Content-Length: 2") + b"{}x" + smuggled)
        answers = [answer async for answer in _answers(client)]
    assert 400 in {answer.status for answer in answers}
    assert all("smuggled" not in request.target for request in watched.upstream.requests)
    await watched.is_well(*answers)


async def test_a_body_that_is_refused_does_not_spoil_a_connection_that_goes_on(watched: Watched) -> None:
    async with connect(watched.proxy.url) as client:
        for _ in range(3):
            assert refusal(await ask(client, call(key="sk-nobody")))[0] == 401
            assert (await ask(client)).status == 200
    await watched.is_well()
