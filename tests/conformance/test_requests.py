"""Bodies and header fields of requests: what AWS receives is what was sent, but for what is ours or the hop's."""

import gzip
import hashlib
import os

import pytest

from tests.conformance.conftest import Wire
from tests.conformance.judge import request_untouched, signature_of, untouched
from tests.fakes.running import Blocking
from tests.fakes.speak import ask, say

CONVERSE = "POST /bedrock/model/anthropic.claude-3-5-haiku-20241022-v1%3A0/converse"
BODIES = {
    "nothing": b"",
    "an object": b'{"messages": [{"role": "user", "content": [{"text": "hi"}]}]}',
    "no JSON": b"this is no JSON",
    "no text": bytes(range(256)),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "white space": b' \r\n\t{ "a" : 1 }\n\n',
    "a key twice": b'{"a": 1, "a": 2}',
    "numbers": b'{"a": 1.0, "b": 1e400, "c": -0, "d": 123456789012345678901234567890, "e": 1.10}',
    "half a surrogate pair": rb'{"a": "\ud83d", "b": "\u00e9"}',
    "invalid UTF-8": b'{"a": "\xff\xfe"}',
    "more than a megabyte": b'{"a": "' + b"x" * 1_500_000 + b'"}',
}


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_goes_up_with_its_length_and_unread(
    name: str, *, chunked: bool, proxy: Blocking, wire: Wire, key: str
) -> None:
    ask(proxy.url, CONVERSE, f"Authorization: Bearer {key}", body=BODIES[name], chunked=chunked)

    untouched(wire.exchange)
    assert wire.exchange.forwarded.values("content-length") == [str(len(BODIES[name]))]
    assert signature_of(wire.exchange.forwarded).headers == ["host", "x-amz-date"]
    assert proxy.rows()[-1]["request_bytes"] == len(BODIES[name])


def test_a_compressed_body_stays_compressed(proxy: Blocking, wire: Wire, key: str) -> None:
    body = gzip.compress(BODIES["an object"])

    ask(proxy.url, CONVERSE, f"Authorization: Bearer {key}", "Content-Encoding: gzip", body=body)

    untouched(wire.exchange)


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(proxy: Blocking, wire: Wire, key: str) -> None:
    answer = ask(proxy.url, CONVERSE, f"Authorization: Bearer {key}", "Expect: 100-continue", body=BODIES["an object"])

    assert answer.status == 200
    untouched(wire.exchange)


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_a_body_whose_hash_the_client_sent_goes_up_under_that_hash(
    size: int, proxy: Blocking, wire: Wire, key: str
) -> None:
    body = os.urandom(size)
    digest = hashlib.sha256(body).hexdigest()

    ask(proxy.url, CONVERSE, f"Authorization: Bearer {key}", f"X-Amz-Content-SHA256: {digest}", body=body)

    untouched(wire.exchange)
    assert wire.exchange.forwarded.values("x-amz-content-sha256") == [digest]
    assert "x-amz-content-sha256" in signature_of(wire.exchange.forwarded).headers


def test_a_wrong_hash_is_for_aws_to_refuse(proxy: Blocking, wire: Wire, key: str) -> None:
    answer = ask(
        proxy.url, CONVERSE, f"Authorization: Bearer {key}", f"X-Amz-Content-SHA256: {'0' * 64}", body=b'{"a": 1}'
    )

    assert answer.status in {400, 403}
    untouched(wire.exchange)


@pytest.mark.parametrize(
    "value", ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-EVENTS", "ABC", "0" * 63, "é" * 32, ""]
)
def test_what_is_no_hash_is_replaced_by_the_hash_of_the_body(value: str, proxy: Blocking, wire: Wire, key: str) -> None:
    ask(proxy.url, CONVERSE, f"Authorization: Bearer {key}", f"x-amz-content-sha256: {value}", body=b'{"a": 1}')

    untouched(wire.exchange)
    assert wire.exchange.forwarded.values("x-amz-content-sha256") == []
    signature_of(wire.exchange.forwarded)


FORWARDED = (
    "Accept: application/json",
    "accept-ENCODING: gzip, deflate, br",
    "Content-Type: application/json; charset=utf-8",
    "X-Amzn-Bedrock-Trace: ENABLED",
    "X-Amzn-Bedrock-GuardrailIdentifier: gr1",
    "X-Amzn-Bedrock-GuardrailVersion: DRAFT",
    "X-Amzn-Bedrock-PerformanceConfig-Latency: optimized",
    "X-Amzn-Bedrock-Service-Tier: flex",
    "x-amzn-bedrock-accept: */*",
    "x-amz-source-arn: arn:aws:iam::1:role/x",
    "x-amz-of-next-year:  two  words ",
    "X-AMZ-Twice: 1",
    "x-amz-twice: 2",
    "x-amz-empty:",
    "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "baggage: a=b",
    "amz-sdk-invocation-id: 3e1d2a4c-0000-4000-8000-000000000000",
    "amz-sdk-request: attempt=2; max=3",
    "anthropic-beta: a-2025-01-01,b-2025-01-01",
    "anthropic-version: 2023-06-01",
    "x-claude-code-session-id: s1",
    "X-Twice: 1",
    "X-Twice: 1",
    "x-twice: 2",
    "X-Umlaut: é",
    "X-Long: " + "l" * 16_000,
)


def test_the_fields_that_are_aws_s_arrive_in_their_order_and_casing_and_are_signed(
    proxy: Blocking, wire: Wire, key: str
) -> None:
    ask(proxy.url, CONVERSE, *FORWARDED, f"Authorization: Bearer {key}", body=b'{"a": 1}')

    untouched(wire.exchange)
    names = {field.partition(":")[0].lower() for field in FORWARDED}
    assert names <= {name.decode().lower() for name, _ in wire.exchange.forwarded.fields}
    signed = {name for name in names if name.startswith(("x-amz-", "x-amzn-"))} - {"x-amzn-trace-id"}
    assert set(signature_of(wire.exchange.forwarded).headers) == signed | {"content-type", "host", "x-amz-date"}


NOT_FORWARDED = (
    "Cookie: session=secret",
    "Date: Sat, 21 Nov 2026 00:00:00 GMT",
    "X-Amz-Date: 20200101T000000Z",
    "X-Amz-Security-Token: token-of-the-client",
    "X-Forwarded-For: 10.0.0.1",
    "X-Forwarded-Proto: https",
    "x-real-ip: 10.0.0.1",
    "Forwarded: for=10.0.0.1",
    "Via: 1.1 somewhere",
    "Keep-Alive: timeout=5",
    "TE: trailers",
    "Proxy-Authorization: Basic abc",
    "Proxy-Connection: keep-alive",
    "x-litellm-tags: a,b",
    "x-litellm-customer-id: someone",
    "x-litellm-spend-logs-metadata: {}",
    "x-passthrough-region: us-east-1",
    "x-goog-api-key: something",
)


@pytest.mark.parametrize("field", NOT_FORWARDED)
def test_a_field_that_is_ours_or_the_hops_stays_here(field: str, proxy: Blocking, wire: Wire, key: str) -> None:
    ask(proxy.url, CONVERSE, field, "X-Kept: 1", f"Authorization: Bearer {key}", body=b'{"a": 1}')

    name, _, value = field.partition(":")
    forwarded = wire.exchange.forwarded
    assert value.strip() not in forwarded.values(name)
    assert forwarded.values("x-kept") == ["1"]
    signature_of(forwarded)


def test_a_field_that_connection_names_stays_here(proxy: Blocking, wire: Wire, key: str) -> None:
    ask(
        proxy.url,
        CONVERSE,
        "Connection: X-Hop, x-amz-hop",
        "X-Hop: 1",
        "X-Amz-Hop: 2",
        f"Authorization: Bearer {key}",
        body=b'{"a": 1}',
    )

    forwarded = wire.exchange.forwarded
    assert forwarded.values("x-hop") == forwarded.values("x-amz-hop") == forwarded.values("connection") == []
    signature_of(forwarded)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_where_none_is_usual_goes_up_too(method: str, proxy: Blocking, wire: Wire, key: str) -> None:
    ask(proxy.url, f"{method} /bedrock/async-invoke", f"Authorization: Bearer {key}", body=b'{"a": 1}')

    request_untouched(wire.exchange)
    signature_of(wire.exchange.forwarded)


def test_requests_that_are_sent_together_are_answered_in_their_order(proxy: Blocking, wire: Wire, key: str) -> None:
    bodies = [b"first", b"second", b"third"]
    together = ""
    for body in bodies:
        last = "Connection: close\r\n" if body == bodies[-1] else ""
        together += f"POST /bedrock/model/sandbox.echo/invoke HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\n{last}"
        together += f"Content-Length: {len(body)}\r\n\r\n{body.decode()}"

    answers = say(proxy.url, together.encode())

    assert [answer.body for answer in answers] == bodies
    assert [exchange.forwarded.body for exchange in wire.exchanges] == bodies
