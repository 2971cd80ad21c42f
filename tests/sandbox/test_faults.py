"""Each fault of the table, seen from the other end of the connection."""

import time
from typing import Any

import pytest
from aiohttp import ClientSession
from botocore.exceptions import EventStreamError as Boto3EventStreamError

from passthrough.bedrock.eventstream import EventStreamError
from passthrough.sandbox import FAULTS, Sandbox
from passthrough.sandbox.faults import MAX_WAIT_SECONDS, Plan
from tests.sandbox.client import HELLO, MODEL, ask_for, call
from tests.sandbox.conftest import Clients
from tests.sandbox.faulty import BEARER, BODY, fetch

ERRORS = {
    "throttle": (429, "ThrottlingException"),
    "not-ready": (429, "ModelNotReadyException"),
    "500": (500, "InternalServerException"),
    "502": (502, "BadGatewayException"),
    "503": (503, "ServiceUnavailableException"),
    "424": (424, "ModelErrorException"),
    "408": (408, "ModelTimeoutException"),
    "403": (403, "AccessDeniedException"),
    "404": (404, "ResourceNotFoundException"),
    "400": (400, "ValidationException"),
    "quota": (400, "ServiceQuotaExceededException"),
}
OTHERS = {
    *("html", "delay", "pace", "stall", "close-before-answer", "reset-before-answer", "cut", "cut-mid-frame", "reset"),
    *("no-terminator", "clean-cut", "exception", "error", "garbage", "bad-checksum", "split", "every-event"),
}


def test_no_fault_is_left_out_here() -> None:
    assert set(FAULTS) == set(ERRORS) | OTHERS
    assert all(fault.says for fault in FAULTS.values())


@pytest.mark.parametrize("fault", ERRORS)
async def test_boto3_sees_the_error_that_was_asked_for_by_header(
    fault: str, sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox)
    ask_for(client, fault)

    with pytest.raises(client.exceptions.ClientError) as caught:
        await call(client, "converse", modelId=MODEL, messages=HELLO)

    answered = caught.value.response
    assert (answered["ResponseMetadata"]["HTTPStatusCode"], answered["Error"]["Code"]) == ERRORS[fault]
    assert answered["Error"]["Message"] == FAULTS[fault].message


@pytest.mark.parametrize(
    ("service", "method", "arguments"),
    [
        ("bedrock-runtime", "converse", {"modelId": "us.anthropic.sandbox.throttle-v1:0", "messages": HELLO}),
        ("bedrock-runtime", "invoke_model", {"modelId": "sandbox.throttle", "body": b"{}"}),
        (
            "bedrock-runtime",
            "start_async_invoke",
            {
                "modelId": "sandbox.throttle",
                "modelInput": {},
                "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket"}},
            },
        ),
        (
            "bedrock-agent-runtime",
            "retrieve",
            {"knowledgeBaseId": "sandbox.throttle", "retrievalQuery": {"text": "q"}},
        ),
    ],
)
async def test_an_identifier_asks_for_a_fault_where_no_header_can(
    service: str, method: str, arguments: dict[str, Any], sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox, service)

    with pytest.raises(client.exceptions.ThrottlingException):
        await call(client, method, **arguments)


async def test_a_name_that_only_looks_like_a_fault_is_none(sandbox: Sandbox, clients: Clients) -> None:
    for model in ("mysandbox.throttle", "sandbox.unknown", "sandbox-throttle"):
        await call(clients(sandbox), "converse", modelId=model, messages=HELLO)


async def test_an_unknown_fault_is_answered_with_the_list(http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, "explode", "/model/m/converse")

    assert got.status == 400
    assert b"has no fault 'explode'" in got.raw
    assert b"cut-mid-frame" in got.raw


async def test_who_may_not_call_gets_a_403_and_no_fault(http: ClientSession, sandbox: Sandbox) -> None:
    headers = {"x-sandbox-fault": "close-before-answer"}

    async with http.post(f"{sandbox.url}/model/m/converse", data=BODY, headers=headers) as response:
        assert response.status == 403


async def test_a_load_balancers_page_is_html(http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, "html", "/model/m/converse")

    assert got.status == 502
    assert got.raw.startswith(b"<html>")


async def test_a_delay_is_waited_out_before_the_answer(http: ClientSession, sandbox: Sandbox) -> None:
    started = time.monotonic()

    got = await fetch(http, sandbox, "delay=0.1, throttle")

    assert got.status == 429
    assert time.monotonic() - started >= 0.1


async def test_a_pace_is_kept_between_the_pieces(http: ClientSession, sandbox: Sandbox) -> None:
    started = time.monotonic()

    got = await fetch(http, sandbox, "pace=0.005")

    frames, _ = got.frames()
    assert time.monotonic() - started >= 0.005 * (len(frames) - 1)


@pytest.mark.parametrize(
    ("value", "seconds"), [("1.5", 1.5), ("-1", 0), ("1e9", MAX_WAIT_SECONDS), ("nan", 9), ("soon", 9), ("", 9)]
)
def test_a_wait_is_bounded_whatever_the_header_says(value: str, seconds: float) -> None:
    assert Plan({"delay": value}).seconds("delay", 9) == seconds


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("exception", "internalServerException"),
        ("exception=modelStreamErrorException", "modelStreamErrorException"),
        ("exception=throttlingException", "throttlingException"),
        ("error", "500"),
        ("error=Boom", "Boom"),
    ],
)
async def test_boto3_raises_what_a_stream_says_went_wrong(
    fault: str, code: str, sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox)
    ask_for(client, fault)

    with pytest.raises(Boto3EventStreamError) as caught:
        await call(client, "converse_stream", modelId=MODEL, messages=HELLO)

    assert caught.value.response["Error"] == {"Code": code, "Message": "The sandbox was asked to fail here."}


async def test_an_exception_in_server_sent_events_is_an_error_event(http: ClientSession, sandbox: Sandbox) -> None:
    body = b'{"model": "m", "max_tokens": 100, "stream": true, "messages": [{"role": "user", "content": "x"}]}'
    headers = {**BEARER, "x-sandbox-fault": "exception"}

    async with http.post(f"{sandbox.url}/anthropic/v1/messages", data=body, headers=headers) as response:
        text = await response.text()

    assert text.rpartition("event: ")[2].startswith('error\ndata: {"type":"error"')


async def test_garbage_is_no_event_stream_and_no_json(http: ClientSession, sandbox: Sandbox) -> None:
    stream = await fetch(http, sandbox, "garbage")
    body = await fetch(http, sandbox, "garbage", "/model/m/converse")

    assert not stream.broken
    with pytest.raises(EventStreamError) as caught:
        stream.frames()
    assert len(caught.value.frames) > 5
    assert b"no event stream" in body.raw


async def test_a_flipped_bit_is_found_by_the_checksum(http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, "bad-checksum")

    with pytest.raises(EventStreamError, match="checksum") as caught:
        got.frames()
    assert len(caught.value.frames) > 5


async def test_a_split_stream_comes_in_small_chunks_across_frames(http: ClientSession, sandbox: Sandbox) -> None:
    got = await fetch(http, sandbox, "split=100")

    frames, at_boundary = got.frames()
    assert at_boundary
    assert frames[-1].event_type == "metadata"
    assert set(got.chunks[:-1]) == {100}
