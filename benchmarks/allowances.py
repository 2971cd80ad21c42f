"""What limits cost: CPU and database round trips of a call, and how many reservations one hot budget takes.

    uv run python benchmarks/allowances.py [--seconds 5]

Starts an embedded PostgreSQL with its usual settings (fsync on) in a temporary directory. The first figures are of
one process and event loop; the last are of two replicas, each a process with its own data directory, journal and
shipper, that reserve on one and the same budget with sixteen calls open at a time each.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvloop

from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.usage import Usage
from passthrough.errors import Refusal
from passthrough.policy.allowance_holds import Hold
from passthrough.policy.allowances import limits_of
from passthrough.policy.estimates import Estimates
from passthrough.policy.keys import VirtualKey
from passthrough.policy.ledger import Entry, uuid7
from passthrough.policy.pricing import Pricing
from passthrough.proxy.route import route
from passthrough.storage.allowances import Allowances, Choices
from passthrough.storage.allowances_worker import open_allowances
from passthrough.storage.database import open_database
from passthrough.storage.embedded import embedded
from passthrough.storage.ledger import Ledger
from passthrough.storage.migrations import migrate

MODEL = "amazon.nova-micro-v1:0"
CALL = route("POST", f"/bedrock/model/{MODEL}/converse")
PROMPT = "Tell me in one sentence what a reverse proxy is, for somebody who has never heard of one. " * 5
BODY = json.dumps(
    {"messages": [{"role": "user", "content": [{"text": PROMPT}]}], "inferenceConfig": {"maxTokens": 100}}
).encode()
USAGE = Usage(input_tokens=110, output_tokens=60, source="body")
PLENTY = {"rpm_limit": 10**9, "tpm_limit": 10**12, "max_parallel_requests": 10**6, "max_budget": Decimal(10**6)}
price = Pricing(PriceBook(), {})


class Uncounted:
    """Counts nothing."""

    def limit_refused(self, field: str, *, shadow: bool) -> None: ...

    def limit_crossed(self, threshold: str) -> None: ...


@dataclass
class Worker:
    allowances: Allowances
    ledger: Ledger | None

    @property
    def round_trips(self) -> int:
        return self.allowances._desk.round_trips  # noqa: SLF001  # the benchmark's own counter

    async def hold(self, key: VirtualKey, entry: Entry) -> Hold:
        hold = self.allowances.reserve(key, entry, CALL, BODY, len(BODY))
        return hold if hold is not None else await self.allowances.acquire(key, entry, CALL, BODY, len(BODY))

    def end(self, entry: Entry, hold: Hold) -> None:
        hold.settle(entry)
        if self.ledger is not None:
            self.ledger.append(entry)
        hold.written()


@asynccontextmanager
async def worker(url: str, data_dir: Path, *, recording: bool) -> AsyncIterator[Worker]:
    holder = uuid7(time.time())
    estimates = Estimates(PriceBook(), {})
    async with open_database(url) as database:
        opened = open_allowances(
            database.connect, holder, data_dir, estimates=estimates, choices=Choices(), counters=Uncounted()
        )
        async with opened as allowances:
            if not recording:
                yield Worker(allowances, None)
                return
            async with Ledger(data_dir / "journal", database.connect, name=holder) as ledger:
                yield Worker(allowances, ledger)


def key_with(name: int, **fields: Any) -> VirtualKey:
    key_id = f"{name:064x}"
    return VirtualKey(key_id=key_id, limits=limits_of("key", key_id, fields))


def call_of(key: VirtualKey) -> Entry:
    now = time.time()
    entry = Entry(call_id=uuid7(now), started_at=now, key_id=key.key_id, model=MODEL, region="us-east-1", status=200)
    entry.measured(USAGE)
    price(entry, USAGE)
    return entry


async def cpu(url: str, data_dir: Path) -> None:
    async with worker(url, data_dir, recording=False) as one:
        key, free, entry = key_with(1, **PLENTY), key_with(2), call_of(key_with(1))
        one.end(entry, await one.hold(key, entry))
        calls = 30_000
        for told in (False, True):
            best = 1e9
            for _ in range(3):
                began = time.thread_time()
                for _ in range(calls):
                    entry.charges = ()
                    hold = await one.hold(key, entry)
                    if told:
                        one.allowances.header_lines(hold, None)
                    one.end(entry, hold)
                best = min(best, (time.thread_time() - began) / calls)
            what = "reserve, tell in headers, settle" if told else "reserve, settle"
            print(f"four allowances, {what:34} {best * 1e6:6.2f} µs CPU a call   (at most 10)")
        began = time.thread_time()
        for _ in range(calls):
            one.allowances.reserve(free, entry, CALL, BODY, len(BODY))
        spent = (time.thread_time() - began) / calls
        print(f"a key without limits {'':29} {spent * 1e6:6.2f} µs CPU a call   (at most 0.3)")


async def round_trips(url: str, data_dir: Path) -> None:
    async with worker(url, data_dir / "a", recording=False) as one, worker(url, data_dir / "b", recording=False) as two:
        both, key = (one, two), key_with(3, **PLENTY)
        before = [each.round_trips for each in both]
        calls = 4000
        for number in range(calls):
            entry = call_of(key)
            both[number % 2].end(entry, await both[number % 2].hold(key, entry))
            if number % 20 == 0:
                await asyncio.sleep(0.001)
        asked = sum(each.round_trips for each in both) - sum(before)
        print(f"far from a limit: {asked} round trips for {calls} calls, {asked / calls:.4f} a call   (at most 0.05)")
        await at_the_limit(both)


async def at_the_limit(both: tuple[Worker, Worker]) -> None:
    """Calls over two replicas, from a limit of 1,000 requests to well beyond it."""
    key, limit = key_with(4, rpm_limit=1000), 1000
    admitted, last, before = 0, 0, sum(each.round_trips for each in both)
    for number in range(limit + 500):
        entry = call_of(key)
        if admitted == limit - 100 and not last:
            last = sum(each.round_trips for each in both)
        try:
            both[number % 2].end(entry, await both[number % 2].hold(key, entry))
        except Refusal:
            continue
        admitted += 1
    asked = sum(each.round_trips for each in both)
    print(
        f"up to and beyond a limit of {limit}: {admitted} admitted of {limit + 500}, {(asked - before)} round trips; "
        f"{(asked - last) / 600:.2f} a call for the last 100 and 500 refused   (at most 1)"
    )


async def replica(url: str, data_dir: Path, seconds: float, limits: dict[str, Any]) -> None:
    """One replica: sixteen calls open at a time, for so many seconds; prints what it did as JSON."""
    key, done, refused, latencies = key_with(5, **limits), 0, 0, []
    async with worker(url, data_dir, recording=True) as one:
        before = one.round_trips
        end = time.monotonic() + seconds

        async def client() -> None:
            nonlocal done, refused
            while time.monotonic() < end:
                entry, began = call_of(key), time.perf_counter()
                try:
                    hold = await one.hold(key, entry)
                except Refusal:
                    refused += 1
                    continue
                latencies.append(time.perf_counter() - began)
                await asyncio.sleep(0)
                one.end(entry, hold)
                done += 1

        cpu_before = time.process_time()
        await asyncio.gather(*(client() for _ in range(16)))
        used = time.process_time() - cpu_before
        trips = one.round_trips - before
    latencies.sort()
    print(
        json.dumps(
            {
                "done": done,
                "refused": refused,
                "trips": trips,
                "cpu": used,
                "p50_ms": 1e3 * latencies[len(latencies) // 2],
                "p99_ms": 1e3 * latencies[len(latencies) * 99 // 100],
            }
        )
    )


def hot(url: str, data_dir: Path, seconds: float, limits: dict[str, Any], title: str) -> None:
    command = [sys.executable, __file__, "--seconds", str(seconds), "--url", url, "--limits", json.dumps(limits)]
    both = [
        subprocess.Popen([*command, "--replica", str(data_dir / name)], stdout=subprocess.PIPE, text=True)
        for name in ("r1", "r2")
    ]
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in both]
    done, trips = sum(result["done"] for result in results), sum(result["trips"] for result in results)
    print(
        f"{title}: {done / seconds:,.0f} reservations a second over two replicas, {trips / max(1, done):.4f} round "
        f"trips each, p50 {max(r['p50_ms'] for r in results):.2f} ms, p99 {max(r['p99_ms'] for r in results):.2f} ms, "
        f"{sum(r['refused'] for r in results)} refused   (at least 2,000)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--url")
    parser.add_argument("--limits", type=json.loads)
    parser.add_argument("--replica", type=Path)
    options = parser.parse_args()
    if options.replica:
        uvloop.run(replica(options.url, options.replica, options.seconds, options.limits))
        return
    with tempfile.TemporaryDirectory(prefix="passthrough-") as folder, embedded(Path(folder)) as url:
        asyncio.run(migrate(url))
        data_dir = Path(folder)
        uvloop.run(cpu(url, data_dir / "cpu"))
        uvloop.run(round_trips(url, data_dir))
        hot(url, data_dir, options.seconds, {"max_budget": 1e6}, "one hot budget, far from its limit")
        # 32 calls are open at a time: there is room for a few more, and blocks are of one
        hot(url, data_dir, options.seconds, {"max_parallel_requests": 36}, "one hot limit, at its end")
        hot(url, data_dir, options.seconds, {"max_parallel_requests": 24}, "one hot limit, beyond its end")


if __name__ == "__main__":
    main()
