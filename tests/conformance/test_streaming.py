"""What AWS has said, the client has: the upstream says one piece, and the next only once that has arrived."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Clients, blocking
from tests.fakes.peer import connect
from tests.fakes.running import PATIENCE_SECONDS, Running, running
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, chunk, frame, head, stream_head, usage_frame


class Stepwise:
    """An upstream's script: sends a piece for each `step`."""

    def __init__(self) -> None:
        self._steps: asyncio.Queue[bytes] = asyncio.Queue()
        self.head = stream_head()

    async def __call__(self, peer: Incoming) -> None:
        await peer.request()
        await peer.send(self.head)
        while True:
            piece = await self._steps.get()
            await peer.send(chunk(piece) if piece else LAST_CHUNK)
            if not piece:
                return

    def step(self, piece: bytes) -> None:
        self._steps.put_nowait(piece)

    def end(self) -> None:
        self._steps.put_nowait(b"")


@pytest.fixture
def aws() -> Stepwise:
    return Stepwise()


@pytest.fixture
async def proxy(database_url: str, tmp_path: Path, aws: Stepwise) -> AsyncIterator[Running]:
    async with Upstream(aws) as upstream, running(database_url, tmp_path, upstream=upstream.url) as serving:
        yield serving


def invoked(document: dict[str, Any]) -> bytes:
    return frame("chunk", bytes=base64.b64encode(json.dumps(document).encode()).decode())


def delta(text: str) -> dict[str, Any]:
    return {"contentBlockIndex": 0, "delta": {"text": text}}


STREAMS: dict[str, tuple[str, str, dict[str, Any], str, Sequence[bytes]]] = {
    "Converse": (
        "bedrock-runtime",
        "converse_stream",
        {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]},
        "stream",
        [
            frame("messageStart", role="assistant"),
            *(frame("contentBlockDelta", **delta(text)) for text in ("a", "b", "c" * 100_000)),
            frame("messageStop", stopReason="end_turn"),
            usage_frame(1, 3),
        ],
    ),
    "InvokeModel": (
        "bedrock-runtime",
        "invoke_model_with_response_stream",
        {"modelId": "m", "body": b"{}"},
        "body",
        [invoked({"delta": text}) for text in ("a", "b", "c")],
    ),
    "InvokeAgent": (
        "bedrock-agent-runtime",
        "invoke_agent",
        {"agentId": "A", "agentAliasId": "B", "sessionId": "s1", "inputText": "hi"},
        "completion",
        [invoked({"text": text}) for text in ("a", "b", "c")],
    ),
    "InvokeFlow": (
        "bedrock-agent-runtime",
        "invoke_flow",
        {
            "flowIdentifier": "F",
            "flowAliasIdentifier": "A",
            "inputs": [{"content": {"document": "x"}, "nodeName": "N"}],
        },
        "responseStream",
        [
            frame("flowOutputEvent", nodeName="N", nodeType="FlowOutputNode", content={"document": "x"}),
            frame("flowCompletionEvent", completionReason="SUCCESS"),
        ],
    ),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_boto3_has_each_event_before_the_next_is_said(
    name: str, proxy: Running, aws: Stepwise, clients: Clients
) -> None:
    service, method, arguments, member, frames = STREAMS[name]
    client = clients(service, endpoint_url=proxy.bedrock, aws_access_key_id=await proxy.key())

    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await blocking(getattr(client, method), **arguments)  # before any frame: the head alone
        events = iter(answer[member])
        for each in frames:
            aws.step(each)
            event = await blocking(next, events)
            assert next(iter(event)).encode() in each
        aws.end()
        assert await blocking(next, events, None) is None

    (row,) = await proxy.rows()
    assert (row["outcome"], row["stream"], row["response_bytes"]) == ("ok", True, sum(map(len, frames)))


SSE = [b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', b"data: half an ev", b"ent\n\n", b"data: [DONE]\n\n"]
FRAME = usage_frame(1, 2)


@pytest.mark.parametrize(
    ("path", "content_type", "pieces"),
    [
        ("/openai/v1/chat/completions", "text/event-stream; charset=utf-8", SSE),
        ("/anthropic/v1/messages", "text/event-stream", SSE),
        ("/model/m/converse-stream", "application/vnd.amazon.eventstream", [FRAME[:5], FRAME[5:30], FRAME[30:]]),
        ("/model/m/an-operation-of-next-year", "application/octet-stream", [b"a", b"b"]),
    ],
)
async def test_every_piece_arrives_when_it_is_sent_whole_or_not(
    path: str, content_type: str, pieces: Sequence[bytes], proxy: Running, aws: Stepwise
) -> None:
    aws.head = head("Transfer-Encoding: chunked", content_type=content_type)
    key = await proxy.key()

    async with connect(proxy.url) as client:
        await client.send(
            f"POST /bedrock{path} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        await client.head()
        arriving = client.chunks()
        for piece in pieces:
            aws.step(piece)
            assert await anext(arriving) == piece
        aws.end()
        assert [rest async for rest in arriving] == []
