"""However a call ends, it leaves one row and one log line, and they say the same."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from passthrough.bedrock.eventstream import exception_frame
from tests.fakes.calls import CONVERSE, STREAM, Proxies, ask, call, call_head, ended_rows
from tests.fakes.peer import Peer, connect, until
from tests.fakes.running import MASTER_KEY, Running
from tests.fakes.upstream import LAST_CHUNK, Incoming, Upstream, answer, answering, chunk, stream_head, text_frame

FRAME = text_frame("a prompt's answer")
PROMPT = "the words of a prompt"
BODY = json.dumps({"messages": [{"role": "user", "content": [{"text": PROMPT}]}]}).encode()
Going = Callable[[Peer, Upstream, Running], Awaitable[None]]


async def _well(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    upstream.script = answering(answer(b"{}", "x-amzn-RequestId: theirs"))
    assert (await ask(client, call(body=BODY))).ending == "whole"


async def _streamed(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    upstream.script = answering(stream_head() + chunk(FRAME) + LAST_CHUNK)
    assert (await ask(client, call(STREAM, body=BODY))).ending == "whole"


async def _failing_inside(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    """AWS has answered 200 by then: throttling and failures of a model come as a frame."""
    failure = exception_frame("throttlingException", "Too many requests")
    upstream.script = answering(stream_head() + chunk(FRAME) + chunk(failure) + LAST_CHUNK)
    assert (await ask(client, call(STREAM, body=BODY))).ending == "whole"


async def _ending_inside(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    upstream.script = answering(stream_head() + chunk(FRAME) + chunk(FRAME[:-5]) + LAST_CHUNK)
    assert (await ask(client, call(STREAM, body=BODY))).ending == "whole"


async def _their_refusal(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    upstream.script = answering(answer(b"{}", "x-amzn-ErrorType: ThrottlingException:http://x", status="429 Slow"))
    assert (await ask(client, call(body=BODY))).status == 429


async def _their_failure(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    upstream.script = answering(answer(b"{}", status="500 Oh"))
    assert (await ask(client, call(body=BODY))).status == 500


async def _no_key(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    assert (await ask(client, call(key=""))).status == 401


async def _no_path(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    assert (await ask(client, call("/bedrock/nothing"))).status == 404


async def _too_large(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    assert (await ask(client, call_head(CONVERSE, "Content-Length: 99999999999"))).status == 413


async def _no_upstream(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    upstream.stop_listening()
    assert (await ask(client, call(body=BODY))).status == 503


async def _no_answer(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    async def script(peer: Incoming) -> None:
        await peer.request()

    upstream.script = script
    assert (await ask(client, call(body=BODY))).status == 502


async def _silence(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.gone()

    upstream.script = script
    assert (await ask(client, call(body=BODY))).status == 408


async def _cut(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    head_is_there = asyncio.Event()

    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME))
        await head_is_there.wait()

    upstream.script = script
    await client.send(call(STREAM, body=BODY))
    first = await client.head()
    head_is_there.set()
    assert (await client.body(*first)).ending == "fin"


async def _gone_before(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    async def script(peer: Incoming) -> None:
        await peer.request()
        client.reset()
        await peer.gone()

    upstream.script = script
    await client.send(call(body=BODY))
    await until(lambda: upstream.requests)


async def _gone_inside(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    async def script(peer: Incoming) -> None:
        await peer.request()
        await peer.send(stream_head() + chunk(FRAME))
        await peer.gone()

    upstream.script = script
    await client.send(call(STREAM, body=BODY))
    await client.head()
    client.reset()


async def _half_a_body(client: Peer, upstream: Upstream, proxy: Running) -> None:  # noqa: ARG001  # as the others
    await client.send(call_head(CONVERSE, "Content-Length: 100") + b"half")
    await until(lambda: proxy.service.handler.calls)
    client.reset()


# How a call ends, and what is on record of it: outcome, status, AWS's error code
ENDINGS: dict[str, tuple[Going, tuple[str, int, str | None]]] = {
    "well": (_well, ("ok", 200, None)),
    "with a stream": (_streamed, ("ok", 200, None)),
    "with an exception in a stream": (_failing_inside, ("upstream_error", 200, "ThrottlingException")),
    "with half a frame": (_ending_inside, ("cut", 200, None)),
    "with their refusal": (_their_refusal, ("client_error", 429, "ThrottlingException")),
    "with their failure": (_their_failure, ("upstream_error", 500, None)),
    "without a key": (_no_key, ("refused", 401, "UnrecognizedClientException")),
    "without a path": (_no_path, ("refused", 404, "UnknownOperationException")),
    "with too much": (_too_large, ("refused", 413, "ValidationException")),
    "without an upstream": (_no_upstream, ("refused", 503, "ServiceUnavailableException")),
    "without an answer": (_no_answer, ("upstream_error", 502, "BadGatewayException")),
    "in silence": (_silence, ("upstream_error", 408, "ModelTimeoutException")),
    "cut": (_cut, ("cut", 200, None)),
    "without its client, before an answer": (_gone_before, ("client_gone", 499, None)),
    "without its client, inside an answer": (_gone_inside, ("client_gone", 200, None)),
    "without its client, inside its body": (_half_a_body, ("client_gone", 499, None)),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_a_call_that_ends_leaves_one_row_and_one_line(
    start: Proxies, upstream: Upstream, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    going, (outcome, status, code) = ENDINGS[name]
    proxy = await start(log_level="info", on_client_disconnect="cancel", answer_seconds=0.5)
    capfd.readouterr()
    async with connect(proxy.url) as client:
        await going(client, upstream, proxy)
    (row,) = await ended_rows(proxy)
    assert (row["outcome"], row["status"], row["error_type"]) == (outcome, status, code)
    assert row["duration_ms"] >= 0

    proxy.service.handler.record._lines.flush()
    written = capfd.readouterr().out
    (line,) = [json.loads(line) for line in written.splitlines() if '"event":"call"' in line]
    assert line["call_id"] == str(row["call_id"])
    assert (line["outcome"], line["status"], line.get("error_type")) == (outcome, status, code)
    assert MASTER_KEY not in written
    assert PROMPT not in written
    assert "a prompt's answer" not in written
