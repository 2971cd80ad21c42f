"""What the client sent is what the upstream receives, what the upstream answered is what the client receives."""

import asyncio
import gzip

import pytest

from tests.fakes.calls import BODY, CONVERSE, ask, call, call_head
from tests.fakes.peer import connect
from tests.fakes.running import MASTER_KEY, Running
from tests.fakes.upstream import LAST_CHUNK, Upstream, answer, answering, chunk, head, stream_head

EVERY_BYTE = bytes(range(256)) * 5


async def test_a_body_of_every_byte_goes_up_and_comes_down(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(answer(EVERY_BYTE[::-1], content_type="application/octet-stream"))
    async with connect(proxy.url) as client:
        got = await ask(client, call(body=EVERY_BYTE))
    assert got.body == EVERY_BYTE[::-1]
    (sent,) = upstream.requests
    assert (sent.method, sent.target, sent.body) == ("POST", CONVERSE.removeprefix("/bedrock"), EVERY_BYTE)


async def test_a_chunked_body_goes_up_with_its_length(proxy: Running, upstream: Upstream) -> None:
    async with connect(proxy.url) as client:
        await client.send(call_head(CONVERSE, "Transfer-Encoding: chunked"))
        for at in range(0, len(EVERY_BYTE), 100):
            await client.send(chunk(EVERY_BYTE[at : at + 100]))
        await client.send(LAST_CHUNK)
        assert (await client.message()).status == 200
    (sent,) = upstream.requests
    assert sent.body == EVERY_BYTE
    assert sent.values("Content-Length") == [str(len(EVERY_BYTE))]
    assert sent.values("Transfer-Encoding") == []


async def test_a_large_body_goes_up_whole(proxy: Running, upstream: Upstream) -> None:
    body = EVERY_BYTE * 20_000  # 25.6 MB: what AWS takes at most
    async with connect(proxy.url) as client:
        assert (await ask(client, call(body=body))).status == 200
    assert upstream.requests[0].body == body


@pytest.mark.parametrize("size", [3, 300_000])  # of one read, and of more than is taken in before it is wanted
async def test_requests_that_do_not_wait_for_their_answers_go_up_whole_and_in_order(
    proxy: Running, upstream: Upstream, size: int
) -> None:
    bodies = [bytes([number]) * size for number in range(20)]
    async with connect(proxy.url) as client, asyncio.TaskGroup() as both:
        both.create_task(client.send(b"".join(call(body=body) for body in bodies)))
        for _ in bodies:
            assert (await client.message()).status == 200
    assert [sent.body for sent in upstream.requests] == bodies


async def test_a_body_whose_hash_the_client_sent_goes_up_as_it_comes(proxy: Running, upstream: Upstream) -> None:
    digest = "0" * 64  # whether it is right is AWS's to say
    async with connect(proxy.url) as client:
        await client.send(call_head(CONVERSE, f"Content-Length: {len(BODY)}", f"x-amz-content-sha256: {digest}"))
        await client.send(BODY[:10], BODY[10:])
        assert (await client.message()).status == 200
    (sent,) = upstream.requests
    assert sent.body == BODY
    assert sent.values("x-amz-content-sha256") == [digest]


async def test_an_answer_keeps_its_fields_in_order_casing_and_number(proxy: Running, upstream: Upstream) -> None:
    fields = ["X-AMZN-RequestId: r", "x-b: 1", "X-A: \xe9", "x-B: 2", "Date: yesterday", "Server: theirs", "Empty:"]
    upstream.script = answering(answer(b"{}", *fields, status="299 Odd But Fine"))
    async with connect(proxy.url) as client:
        got = await ask(client)
    assert got.first_line == b"HTTP/1.1 299 Odd But Fine"
    wanted = [("Content-Type", "application/json"), *(f.partition(":")[::2] for f in fields), ("Content-Length", "2")]
    assert [(n.decode(), v.decode("latin-1")) for n, v in got.fields[:-1]] == [(n, v.strip()) for n, v in wanted]
    assert got.fields[-1][0] == b"x-passthrough-call-id"


async def test_a_length_that_the_upstream_wants_dropped_stays_for_no_other_tells_where_its_body_ends(
    proxy: Running, upstream: Upstream
) -> None:
    upstream.script = answering(answer(b"one", "Connection: content-length, x-a", "X-A: 1"), answer(b"two"))
    async with connect(proxy.url) as client:
        first = await asyncio.wait_for(ask(client), 5)
        assert (first.body, first.value("X-A")) == (b"one", None)
        assert (await ask(client)).body == b"two"


async def test_an_answer_without_date_and_server_gets_none_from_us(proxy: Running) -> None:
    async with connect(proxy.url) as client:
        got = await ask(client)
    assert got.value("Date") is None
    assert got.value("Server") is None


async def test_an_encoded_body_stays_encoded(proxy: Running, upstream: Upstream) -> None:
    packed = gzip.compress(b'{"usage":{"inputTokens":1,"outputTokens":2}}')
    upstream.script = answering(answer(packed, "Content-Encoding: gzip"))
    async with connect(proxy.url) as client:
        got = await ask(client, call(CONVERSE, "Accept-Encoding: gzip", "Content-Encoding: gzip", body=packed))
    assert got.body == packed
    assert got.value("Content-Encoding") == "gzip"
    assert upstream.requests[0].body == packed
    assert upstream.requests[0].value("Content-Encoding") == "gzip"


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "429 Too Many Requests", "503 Slow Down"])
async def test_an_error_of_aws_arrives_untouched(proxy: Running, upstream: Upstream, status: str) -> None:
    body = b'{"message":"theirs"}'
    upstream.script = answering(answer(body, "x-amzn-ErrorType: AnException:http://x", status=status))
    async with connect(proxy.url) as client:
        got = await ask(client)
    assert (got.first_line, got.body) == (f"HTTP/1.1 {status}".encode(), body)
    assert got.value("x-amzn-ErrorType") == "AnException:http://x"


async def test_an_empty_answer_is_empty(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(answer(b"", status="202 Accepted"), stream_head() + LAST_CHUNK)
    async with connect(proxy.url) as client:
        for _ in range(2):
            got = await ask(client)
            assert (got.body, got.ending) == (b"", "whole")


async def test_a_call_that_asks_for_the_head_gets_the_head(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(head("Content-Length: 77"))
    async with connect(proxy.url) as client:
        for _ in range(2):  # the connection stays in step
            got = await ask(client, call(method="HEAD", body=b""), bodiless=True)
            assert (got.status, got.value("Content-Length")) == (200, "77")


async def test_a_client_of_http_1_0_gets_a_body_without_chunks_and_then_the_end(
    proxy: Running, upstream: Upstream
) -> None:
    upstream.script = answering(stream_head() + chunk(b"hel") + chunk(b"lo") + LAST_CHUNK)
    async with connect(proxy.url) as client:
        got = await ask(client, call(version="HTTP/1.0"))
        assert (got.body, got.ending) == (b"hello", "whole")
        assert got.value("Transfer-Encoding") is None
        assert got.values("Connection") == ["close"]


async def test_interim_answers_are_not_passed_on(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(b"ok")
    )
    async with connect(proxy.url) as client:
        got = await ask(client)
    assert (got.status, got.body) == (200, b"ok")
    assert got.value("Link") is None


async def test_a_client_that_waits_to_be_told_to_send_its_body_is_told(proxy: Running, upstream: Upstream) -> None:
    async with connect(proxy.url) as client:
        await client.send(call_head(CONVERSE, f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
        assert await client.head() == (b"HTTP/1.1 100 Continue", [])
        assert (await ask(client, BODY)).status == 200
    assert upstream.requests[0].value("Expect") is None


async def test_one_connection_serves_one_call_after_the_other(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(*(answer(b"%d" % number) for number in range(20)))
    async with connect(proxy.url) as client:
        assert [(await ask(client)).body for _ in range(20)] == [b"%d" % number for number in range(20)]
    assert upstream.connections == 1


async def test_requests_sent_without_waiting_are_answered_in_their_order(proxy: Running, upstream: Upstream) -> None:
    upstream.script = answering(*(answer(b"%d" % number) for number in range(20)))
    async with connect(proxy.url) as client:
        await client.send(b"".join(call(CONVERSE, f"X-Number: {number}") for number in range(20)))
        assert [(await client.message()).body for _ in range(20)] == [b"%d" % number for number in range(20)]
    assert [request.value("X-Number") for request in upstream.requests] == [str(number) for number in range(20)]


async def test_no_virtual_key_goes_up(proxy: Running, upstream: Upstream) -> None:
    key = await proxy.key()
    async with connect(proxy.url) as client:
        await ask(client, call(CONVERSE, f"X-Copy: {key}", f"X-Part: a{key}b", f"api-key: {key}", "X-Kept: 1", key=key))
    (sent,) = upstream.requests
    assert all(key.encode() not in value for _, value in sent.fields)
    assert sent.value("X-Kept") == "1"
    assert MASTER_KEY.encode() not in b"".join(value for _, value in sent.fields)
