"""What each step of a call costs in this process's CPU time, nanoseconds: no sockets, no database.

    uv run python benchmarks/micro.py

The steps are fed a Converse call as boto3 makes it. Each figure is the best of several rounds, since everything
else that a machine does only adds.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy
from stand_in import ANSWER, FRAMES, METADATA, START, STOP, delta

from passthrough.bedrock.endpoints import Endpoints
from passthrough.bedrock.prices import PriceBook
from passthrough.logs import CallLog
from passthrough.metrics import Metrics
from passthrough.policy.credentials import Credentials
from passthrough.policy.keys import VirtualKey, digest
from passthrough.policy.ledger import Entry, uuid7
from passthrough.policy.pricing import Pricing
from passthrough.proxy.admit import Admit
from passthrough.proxy.attribution import attribute
from passthrough.proxy.authenticate import Authenticate
from passthrough.proxy.headers import RequestHeaders, answer_lines
from passthrough.proxy.meter import meter
from passthrough.proxy.outgoing import Compose, Payload
from passthrough.proxy.record import Recorder
from passthrough.proxy.route import route
from passthrough.proxy.sign import Signer, canonical_query
from passthrough.storage.journal import MIB, Journal
from passthrough.storage.ledger import Ledger

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


class Directory:
    def __init__(self, key: VirtualKey) -> None:
        self._keys = {key.key_id: key}
        self.cached = self._keys.get

    async def find(self, key_id: str) -> VirtualKey | None:
        return self._keys.get(key_id)


class Identity:
    name = "default"
    bearer = None
    _credentials = Credentials("AKIDOFTHEBENCHMARK", "secret/of/the/benchmark", None)

    def current(self) -> Credentials:
        return self._credentials


class Profiles:
    """The call names no profile, so nobody asks."""

    def look_up(self, model: str) -> None: ...
    async def resolve(self, model: str) -> str | None: ...


def nanoseconds(step: Callable[[], Any]) -> float:
    """CPU time of one call of `step`."""
    times, used = 1, 0.0
    while used < ROUND_SECONDS:
        times *= 2
        used = _used(step, times)
    return min(_used(step, times) for _ in range(ROUNDS)) / times * 1e9


def _used(step: Callable[[], Any], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        step()
    return time.process_time() - began


def run(coroutine: Any) -> Any:
    """Finish a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a step waited")


def chunks_undone(*pieces: bytes) -> list[bytes]:
    """Frames without the chunked coding in which the stand-in writes them."""
    return [piece.partition(b"\r\n")[2][:-2] for piece in pieces]


def steps(folder: Path) -> dict[str, Callable[[], Any]]:
    key = VirtualKey(
        key_id=digest(KEY),
        key_alias="benchmark",
        user_id="benchmark",
        models=("anthropic.*",),
        model_lists=(("anthropic.*",),),
    )
    fields = CIMultiDictProxy(CIMultiDict([(name.decode(), value.decode()) for name, value in HEADERS]))
    authenticate = Authenticate(Directory(key), master_digest=digest("sk-master"))
    admit = Admit(default_region="us-east-1", profiles=Profiles(), clock=time.time)
    headers = RequestHeaders()
    endpoints, signer = Endpoints({}), Signer()
    compose = Compose(
        identity=Identity(), endpoints=endpoints, signer=signer, canonical_query=canonical_query, clock=time.time
    )
    call, streamed = route("POST", TARGET), route("POST", TARGET + "-stream")
    forwarded = headers.choose(HEADERS, KEY)
    payload = Payload(BODY, len(BODY), digest("body"), hash_is_the_clients=False)
    stream = chunks_undone(START, *[delta()] * (FRAMES - 3), STOP, METADATA)
    return {
        "route": lambda: route("POST", TARGET),
        "authenticate": lambda: run(authenticate(fields)),
        "admit": lambda: run(admit(key, call, scope_region=None, headers=fields, end_user=None)),
        "choose headers": lambda: headers.choose(HEADERS, KEY),
        "compose and sign": lambda: compose("POST", call, "us-east-1", forwarded, payload),
        "of which sign": lambda: signer.sign(
            method="POST",
            path=call.path,
            query="",
            host="bedrock-runtime.us-east-1.amazonaws.com",
            headers=forwarded.signed,
            payload_sha256=payload.sha256,
            credentials=Identity().current(),
            region="us-east-1",
            timestamp=time.time(),
        ),
        "answer's head": lambda: answer_lines(ANSWER_HEADERS),
        "meter, Converse": lambda: metered(call, ANSWER_HEADERS, [ANSWER]),
        f"meter, stream of {len(stream)} frames": lambda: metered(streamed, STREAM_HEADERS, stream),
        **recording(folder, fields, key, call),
    }


def metered(call: Any, fields: list[tuple[bytes, bytes]], pieces: list[bytes]) -> Any:
    watching = meter(call, 200, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields])
    for piece in pieces:
        watching.feed(piece)
    return watching.usage()


def recording(folder: Path, fields: Any, key: VirtualKey, call: Any) -> dict[str, Callable[[], Any]]:
    ledger = Ledger(folder, lambda: None)  # type: ignore[arg-type,return-value]  # never connects: nothing ships here
    ledger._journal = Journal(folder, name="micro", max_bytes=64 * 1024 * MIB)  # noqa: SLF001  # as on entering it
    lines, counters = CallLog(fd=(folder / "lines").open("wb").fileno()), Metrics()
    usage = metered(call, ANSWER_HEADERS, [ANSWER])
    price = Pricing(PriceBook(), {}, lambda model: None)  # noqa: ARG005  # no profile is known
    recorder = Recorder(
        ledger,
        lines=lines,
        counters=counters,
        price=price,
        clock=time.time,
        monotonic=time.monotonic,
    )

    def entry() -> Entry:
        made = Entry(call_id=uuid7(time.time()), started_at=time.time(), client_ip="127.0.0.1")
        attribute(made, fields)
        made.key_id, made.key_alias, made.user_id = key.key_id, key.key_alias, key.user_id
        made.service, made.operation, made.model = "bedrock-runtime", "Converse", call.model
        made.region, made.identity, made.status = "us-east-1", "default", 200
        return made

    made = entry()
    return {
        "open the record": entry,
        "price": lambda: price(made, usage),
        "journal": lambda: ledger.append(made),
        "count": lambda: counters.call_ended(made),
        "log line": lambda: lines.write(time.time(), {"call_id": made.call_id, "status": 200}),
        "close the record: price, journal, count, line": lambda: recorder.take(made, usage),
    }


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print("| step | CPU, ns |\n|---|---:|")
        for name, step in steps(Path(folder)).items():
            print(f"| {name} | {nanoseconds(step):,.0f} |")


if __name__ == "__main__":
    asyncio.run(main())
