"""A worker that makes calls, keeps some of them open, says so, and waits to be killed: a process for `kill -9`."""

import asyncio
import sys
from decimal import Decimal
from pathlib import Path

from passthrough.storage.database import open_database
from tests.storage.allowance_workers import key_with, worker

LIMITS = {
    "rpm_limit": 100,
    "tpm_limit": 100_000,
    "max_parallel_requests": 10,
    "max_budget": Decimal(1),
}


async def main(url: str, data_dir: str, ended: int, open_: int) -> None:
    async with open_database(url) as database, worker(database, Path(data_dir), recording=True) as one:
        key = key_with(**LIMITS)
        for _ in range(ended):
            await one.call(key)
        holds = [await one.hold(key) for _ in range(open_)]
        print(holds[0].needs[1], holds[0].needs[3], flush=True)  # noqa: T201  # what the test reads
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
