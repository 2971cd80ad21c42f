"""Answers as AWS, or what stands before it, could give them: the client receives what was sent."""

import gzip
from collections.abc import Iterator

import pytest

from tests.conformance.conftest import Wire, wired
from tests.conformance.judge import untouched
from tests.fakes.running import Blocking, in_thread
from tests.fakes.speak import ask
from tests.fakes.tap import Message
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, chunk, text_frame, usage_frame

CONVERSE = "/bedrock/model/m/converse"
JSON = b"Content-Type: application/json\r\n"
ERROR = (
    b"x-amzn-RequestId: 8b5a4f4c-0000-4000-8000-000000000000\r\n"
    b"x-amzn-ErrorType: ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/\r\n"
    b"Content-Length: 17\r\n\r\n" + b'{"message": "no"}'
)
FRAMES = b"".join(text_frame(f"wörd {number} ") for number in range(5)) + usage_frame(3, 5)
STREAM = b"Content-Type: application/vnd.amazon.eventstream\r\nTransfer-Encoding: chunked\r\n\r\n"

ANSWERS = {
    "a plain one": b"HTTP/1.1 200 OK\r\n" + JSON + b"Content-Length: 8\r\n\r\n" + b'{"a": 1}',
    "fields twice, in any casing": (
        b"HTTP/1.1 200 OK\r\nX-Dup: 1\r\nx-dup: 2\r\nX-DUP: 1\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"cOnTeNt-TyPe: application/json\r\ncontent-length: 2\r\n\r\n{}"
    ),
    "date and server of AWS": (
        b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 01:44:01 GMT\r\nServer: Server\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "odd values": (
        b"HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Latin: \xe9\r\nX-Spaces: a   b\r\nX-Colons: a:b: c\r\nX-Long: "
        + b"l" * 16_000
        + b"\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "another reason": b"HTTP/1.1 200 Very Well\r\nContent-Length: 2\r\n\r\n{}",
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}",
    "created": b"HTTP/1.1 201 Created\r\n" + JSON + b"Content-Length: 2\r\n\r\n{}",
    "accepted": b"HTTP/1.1 202 Accepted\r\n" + JSON + b"Content-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nx-amzn-RequestId: 1\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    "a redirect": b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://example.org/\r\nContent-Length: 0\r\n\r\n",
    "an empty body": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "an empty body in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a compressed body": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"
        + JSON
        + b"Content-Length: %d\r\n\r\n" % len(gzip.compress(b'{"a": 1}', mtime=0))
        + gzip.compress(b'{"a": 1}', mtime=0)
    ),
    "a body that ends with the connection": b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + JSON + b'\r\n{"a": 1}',
    "an answer of HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + JSON + b'\r\n{"a": 1}',
    "hop-by-hop fields": (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    ),
    "chunks with extensions and trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'4;name=value\r\n{"a"\r\n4\r\n: 1}\r\n0\r\nX-Trailer: 1\r\n\r\n'
    ),
    "an early hint": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "an error": b"HTTP/1.1 400 Bad Request\r\n" + JSON + ERROR,
    "an error of nobody": b"HTTP/1.1 418 I'm a teapot\r\n" + JSON + ERROR,
    "throttling": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nx-amz-retry-after: 500\r\n" + JSON + ERROR,
    "a load balancer's page": b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "an error without a word": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "a megabyte": b"HTTP/1.1 200 OK\r\nContent-Length: 1500000\r\n\r\n" + bytes(1_500_000),
    "frames, each in a chunk": b"HTTP/1.1 200 OK\r\n" + STREAM + b"".join(map(chunk, [FRAMES])) + LAST_CHUNK,
    "frames, each byte in a chunk": (
        b"HTTP/1.1 200 OK\r\n" + STREAM + b"".join(chunk(bytes([byte])) for byte in FRAMES) + LAST_CHUNK
    ),
    "frames that are none": b"HTTP/1.1 200 OK\r\n" + STREAM + chunk(b"\x00\xff no frames") + LAST_CHUNK,
}
UNTIL_THE_END = {"a body that ends with the connection", "an answer of HTTP/1.0"}
BY_OTHER_MEANS = {*UNTIL_THE_END, "an early hint", "chunks with extensions and trailers", "hop-by-hop fields"}


class Parrot:
    """An upstream's script: says what it is given, again and again."""

    says = b""
    then_closes = False

    async def __call__(self, peer: Incoming) -> None:
        while True:
            await peer.request()
            await peer.send(self.says)
            if self.then_closes:
                return


@pytest.fixture(scope="module")
def aws() -> Parrot:
    return Parrot()


@pytest.fixture(scope="module")
def proxy(database_at_head: str, tmp_path_factory: pytest.TempPathFactory, aws: Parrot) -> Iterator[Blocking]:
    folder = tmp_path_factory.mktemp("proxy")
    with in_thread(lambda: wired(database_at_head, folder, Upstream(aws))) as serving:
        yield serving


@pytest.fixture(scope="module")
def key(proxy: Blocking) -> str:
    return proxy.key()


def asked(proxy: Blocking, key: str, aws: Parrot, name: str) -> Message:
    aws.says, aws.then_closes = ANSWERS[name], name in UNTIL_THE_END
    return ask(proxy.url, f"POST {CONVERSE}", f"Authorization: Bearer {key}", body=b"{}")


@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in BY_OTHER_MEANS])
def test_an_answer_arrives_as_it_was_sent(name: str, proxy: Blocking, wire: Wire, key: str, aws: Parrot) -> None:
    asked(proxy, key, aws, name)

    untouched(wire.exchange)
    assert wire.exchange.answered.chunked is wire.exchange.answer_of_aws.chunked
    assert wire.exchange.answered.values("content-length") == wire.exchange.answer_of_aws.values("content-length")


@pytest.mark.parametrize("name", sorted(UNTIL_THE_END))
def test_a_body_that_ends_with_its_connection_is_whole_and_ends_cleanly(
    name: str, proxy: Blocking, key: str, aws: Parrot
) -> None:
    answer = asked(proxy, key, aws, name)

    assert (answer.status, answer.body, answer.chunked) == (200, b'{"a": 1}', True)
    assert answer.start == b"HTTP/1.1 200 OK"
    assert answer.values("content-type") == ["application/json"]


def test_what_comes_before_an_answer_is_not_taken_for_it(proxy: Blocking, key: str, aws: Parrot) -> None:
    answer = asked(proxy, key, aws, "an early hint")

    assert (answer.status, answer.body) == (200, b"{}")


def test_extensions_and_trailers_of_chunks_are_the_hops(proxy: Blocking, key: str, aws: Parrot) -> None:
    answer = asked(proxy, key, aws, "chunks with extensions and trailers")

    assert (answer.status, answer.body, answer.values("x-trailer")) == (200, b'{"a": 1}', [])


def test_fields_of_the_hop_stay_there(proxy: Blocking, key: str, aws: Parrot) -> None:
    answer = asked(proxy, key, aws, "hop-by-hop fields")

    assert answer.body == b"{}"
    assert answer.values("x-hop") == answer.values("keep-alive") == []
    assert answer.values("connection") == ["close"]  # as was asked


@pytest.mark.parametrize("name", ["a plain one", "an error"])
def test_head_has_the_length_and_no_body(name: str, proxy: Blocking, key: str, aws: Parrot) -> None:
    aws.says, aws.then_closes = ANSWERS[name].partition(b"\r\n\r\n")[0] + b"\r\n\r\n", False

    answer = ask(proxy.url, f"HEAD {CONVERSE}", f"Authorization: Bearer {key}")

    assert answer.values("content-length") == [{"a plain one": "8", "an error": "17"}[name]]
    assert answer.body == b""
