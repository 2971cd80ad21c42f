"""What each step of a call costs, nanoseconds of CPU time: the steps of a real service, without its sockets.

    uv run python benchmarks/micro.py

The steps are fed a Converse call as boto3 makes it, with a key that may use some models. Each figure is the best of
several rounds, since everything else that a machine does only adds; in a server that does all steps in turn, with
cold caches, each takes about twice as long.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop
from multidict import CIMultiDict, CIMultiDictProxy
from stand_in import ANSWER, FRAMES, METADATA, START, STOP, delta

from passthrough.admin.keys import Keys
from passthrough.admin.schemas.keys import GenerateKey
from passthrough.app import service
from passthrough.policy.credentials import Credentials
from passthrough.policy.keys import digest
from passthrough.proxy.handler import Handler
from passthrough.proxy.headers import answer_head
from passthrough.proxy.meter import meter
from passthrough.proxy.outgoing import Payload
from passthrough.proxy.route import route
from passthrough.settings import Settings
from passthrough.storage.audit import Actor
from passthrough.storage.database import open_database
from passthrough.storage.embedded import embedded
from passthrough.storage.migrations import migrate

ROUNDS = 15
ROUND_SECONDS = 0.05
KEY = "sk-key-of-the-benchmark"
TARGET = "/bedrock/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
HEADERS = (
    (b"Host", b"proxy.example.com"),
    (b"Accept-Encoding", b"identity"),
    (b"Content-Type", b"application/json"),
    (b"User-Agent", b"Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux#6.1.0 lang/python#3.11.7 Botocore/1.44.5"),
    (b"Authorization", f"Bearer {KEY}".encode()),
    (b"amz-sdk-invocation-id", b"0a52e1f3-7c3c-4c11-9f6c-7d8f0f1a7a31"),
    (b"amz-sdk-request", b"attempt=1"),
    (b"Content-Length", b"170"),
)
ANSWER_HEADERS = [
    (b"Date", b"Fri, 21 Nov 2026 03:00:00 GMT"),
    (b"Content-Type", b"application/json"),
    (b"Content-Length", str(len(ANSWER)).encode()),
    (b"Connection", b"keep-alive"),
    (b"x-amzn-RequestId", b"8f6a0a52-8c5b-4a0c-9b53-0a1f6f0c7f11"),
]
STREAM_HEADERS = [(b"Content-Type", b"application/vnd.amazon.eventstream"), *ANSWER_HEADERS[3:]]
BODY = b"x" * 170


def nanoseconds(step: Callable[[], Any]) -> float:
    """CPU time of one call of `step`."""
    times, used = 1, 0.0
    while used < ROUND_SECONDS:
        times *= 2
        used = _used(step, times)
    return min(_used(step, times) for _ in range(ROUNDS)) / times * 1e9


def _used(step: Callable[[], Any], times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        step()
    return time.thread_time() - began


def finished(coroutine: Any) -> Any:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a step waited")


def steps(handler: Handler) -> dict[str, Callable[[], Any]]:
    """The steps, in their order."""
    fields = CIMultiDictProxy(CIMultiDict([(name.decode(), value.decode()) for name, value in HEADERS]))
    call, streamed = route("POST", TARGET), route("POST", TARGET + "-stream")
    caller = finished(handler.authenticate(fields))

    def admit() -> None:
        finished(handler.admit(caller.key, call, scope_region=None, headers=fields, end_user=None))

    forwarded = handler.headers.choose(HEADERS, KEY)
    payload = Payload(BODY, len(BODY), digest("body"), hash_is_the_clients=False)
    # frames without the chunked coding in which the stand-in writes them
    stream = [piece.partition(b"\r\n")[2][:-2] for piece in (START, *[delta()] * (FRAMES - 3), STOP, METADATA)]
    request: Any = SimpleNamespace(remote="127.0.0.1", headers=fields)

    def record() -> None:
        opened = handler.record.open(request)
        entry = opened.entry
        opened.belongs_to(caller.key, KEY)
        entry.service, entry.operation, entry.model = call.operation.service, call.operation.name, call.model
        entry.region, entry.status = "us-east-1", 200
        opened.meter = counted
        opened.close()

    counted = meter(call, 200, answer_head(ANSWER_HEADERS).fields)
    counted.feed(ANSWER)
    return {
        "route": lambda: route("POST", TARGET),
        "authenticate": lambda: finished(handler.authenticate(fields)),
        "admit": admit,
        "choose headers": lambda: handler.headers.choose(HEADERS, KEY),
        "compose and sign": lambda: handler.compose("POST", call, "us-east-1", forwarded, payload),
        "the answer's head": lambda: answer_head(ANSWER_HEADERS),
        "meter Converse": lambda: metered(call, ANSWER_HEADERS, [ANSWER]),
        f"meter a stream of {len(stream)} frames": lambda: metered(streamed, STREAM_HEADERS, stream),
        "open a record": lambda: handler.record.open(request),
        "open and close a record: usage, price, journal, counters, line": record,
    }


def metered(call: Any, fields: list[tuple[bytes, bytes]], pieces: list[bytes]) -> Any:
    watching = meter(call, 200, answer_head(fields).fields)
    for piece in pieces:
        watching.feed(piece)
    return watching.usage()


async def measure(database_url: str, folder: Path) -> dict[str, float]:
    settings = Settings(master_key="sk-master-key-of-the-benchmark", data_dir=folder)
    async with open_database(database_url) as database:
        await Keys(database, time.time).generate(GenerateKey(key=KEY, models=["anthropic.*"]), Actor("micro", None))
    credentials = Credentials("AKIDOFTHEBENCHMARK", "secret/of/the/benchmark", None)
    async with service(settings, database_url=database_url, sandbox=credentials) as served:
        await asyncio.sleep(1.0)  # the directory keeps keys once it hears of changes
        await served.handler.authenticate({"Authorization": f"Bearer {KEY}"})
        return {name: nanoseconds(step) for name, step in steps(served.handler).items()}


@contextmanager
def without_lines() -> Iterator[None]:
    """Let the lines of the calls go nowhere."""
    shown, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(shown, 1)
        os.close(nowhere)
        os.close(shown)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, embedded(Path(name)) as database_url:
        asyncio.run(migrate(database_url))
        with without_lines():
            figures = uvloop.run(measure(database_url, Path(name)))
    print("| step | CPU, ns |\n|---|---:|")
    for step, figure in figures.items():
        print(f"| {step} | {figure:,.0f} |")


if __name__ == "__main__":
    main()
