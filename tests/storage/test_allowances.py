import asyncio
from pathlib import Path

import pytest
from tests.storage.allowance_workers import call_of, key_with, worker, workers

from passthrough.errors import Refusal
from passthrough.storage.database import Database


async def test_n_calls_one_after_the_other_over_any_workers_are_exactly_n(tmp_path: Path, database: Database) -> None:
    key = key_with(rpm_limit=37)
    admitted = 0
    async with workers(database, tmp_path, 4) as four:
        for number in range(60):
            try:
                hold = await four[(number * 7) % 4].hold(key)
            except Refusal as refusal:
                assert refusal.status == 429
            else:
                admitted += 1
                hold.settle(call_of(key))
    assert admitted == 37
