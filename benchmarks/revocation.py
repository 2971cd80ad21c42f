"""How soon every worker of every replica obeys a block, an update and a delete: `python benchmarks/revocation.py`.

Two replicas of two workers each share a PostgreSQL. Clients call all the time with a key that all workers know;
then the key is blocked, or its model list is changed, or it is deleted. How late the last call begins that is
still admitted is printed, counted from the moment at which the change was asked for, and from its answer.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import aiohttp
from processes import free_port, machine, running

from passthrough.storage.embedded import embedded
from passthrough.storage.migrations import migrate

MASTER = "sk-master-of-the-benchmark"
MODEL = "amazon.nova-lite-v1:0"
BODY = b'{"messages": [{"role": "user", "content": [{"text": "x"}]}]}'
WARM_SECONDS = 0.2  # until every worker has seen the key
WATCH_SECONDS = 0.3  # three times the promise
PAUSE_SECONDS = 0.005  # of each connection: some thousand calls a second, without saturating the machine
OK = 200


class Load:
    """Calls all replicas with one key from several connections, and remembers what was admitted when."""

    def __init__(self, session: aiohttp.ClientSession, replicas: Sequence[str], connections: int) -> None:
        self._session = session
        self._replicas = replicas
        self._connections = connections
        self.admitted: list[float] = []
        self.calls = 0

    async def run(self, key: str) -> None:
        async with asyncio.TaskGroup() as group:
            for address in self._replicas:
                for _ in range(self._connections):
                    group.create_task(self._call(address, key))

    async def _call(self, address: str, key: str) -> None:
        url = f"{address}/bedrock/model/{MODEL}/converse"
        while True:
            begun = time.monotonic()
            async with self._session.post(url, data=BODY, headers={"x-api-key": key}) as answer:
                await answer.read()
                self.calls += 1
                if answer.status == OK:
                    self.admitted.append(begun)
            await asyncio.sleep(PAUSE_SECONDS)


async def change(session: aiohttp.ClientSession, address: str, number: int, key: str) -> tuple[float, float]:
    """Make the change that is the turn's; the times at which it was asked for and answered."""
    asked = time.monotonic()
    kinds = (
        ("block", {"key": key}),
        ("update", {"key": key, "models": ["meta.*"]}),
        ("delete", {"keys": [key]}),
    )
    verb, body = kinds[number % len(kinds)]
    async with session.post(f"{address}/key/{verb}", json=body, headers={"x-api-key": MASTER}) as answer:
        answer.raise_for_status()
        await answer.read()
    return asked, time.monotonic()


async def measure(replicas: Sequence[str], changes: int, connections: int) -> None:
    lags: dict[str, list[float]] = {"asked for": [], "answered": []}
    calls = 0
    connector = aiohttp.TCPConnector(limit=0, force_close=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        for number in range(changes):
            address = replicas[number % len(replicas)]
            async with session.post(f"{address}/key/generate", json={}, headers={"x-api-key": MASTER}) as answer:
                key = (await answer.json())["key"]
            load = Load(session, replicas, connections)
            task = asyncio.create_task(load.run(key))
            await asyncio.sleep(WARM_SECONDS)
            moments = await change(session, address, number, key)
            await asyncio.sleep(WATCH_SECONDS)
            task.cancel()
            await asyncio.wait([task])
            if not load.admitted:
                raise SystemExit("No call was admitted before the change: the benchmark measures nothing.")
            for measured, moment in zip(lags.values(), moments, strict=True):
                measured.append(max(0.0, max(load.admitted) - moment))
            calls += load.calls
    print(machine())
    print(f"{changes} changes over {len(replicas)} replicas of 2 workers, {calls} calls meanwhile")
    print("the last call that was still admitted began so long after the change was")
    for name, measured in lags.items():
        measured.sort()
        p50, p99 = (measured[int(len(measured) * share)] * 1000 for share in (0.5, 0.99))
        print(f"  {name:10} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   worst {measured[-1] * 1000:6.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--connections", type=int, default=4, help="to each replica")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="passthrough-")))
        url = stack.enter_context(embedded(folder / "database"))
        asyncio.run(migrate(url))
        replicas = [_replica(stack, folder / name, url) for name in ("one", "two")]
        asyncio.run(measure(replicas, arguments.changes, arguments.connections))


def _replica(stack: ExitStack, folder: Path, url: str) -> str:

    folder.mkdir()
    port = free_port()
    environment = {
        "DATABASE_URL": url,
        "PASSTHROUGH_MASTER_KEY": MASTER,
        "PASSTHROUGH_DATA_DIR": str(folder),
        "PASSTHROUGH_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "passthrough", "serve", "--sandbox", "--workers", "2", "--port", str(port)]
    cores = os.sched_getaffinity(0)
    stack.enter_context(running(command, port=port, cores=cores, environment=environment, log=folder / "log"))
    return f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    main()
