"""Workers of one database, in one process: what tests of allowances call through."""

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from passthrough.bedrock.prices import PriceBook
from passthrough.policy.allowance_events import Event
from passthrough.policy.allowance_holds import Hold
from passthrough.policy.allowances import limits_of
from passthrough.policy.estimates import Estimates
from passthrough.policy.keys import VirtualKey
from passthrough.policy.ledger import CallIds, Entry
from passthrough.policy.pricing import Pricing
from passthrough.proxy.route import route
from passthrough.storage.allowances import Allowances, Choices
from passthrough.storage.allowances_worker import open_allowances
from passthrough.storage.database import Database

KEY = "ab" * 32
MODEL = "amazon.nova-micro-v1:0"  # 0.035 USD per million tokens of input, 0.14 of output
CALL = route("POST", f"/bedrock/model/{MODEL}/converse")

ids = CallIds()


@dataclass
class Counted:
    """What was counted."""

    refused: Counter[tuple[str, bool]] = field(default_factory=Counter)
    crossed: Counter[str] = field(default_factory=Counter)

    def limit_refused(self, name: str, *, shadow: bool) -> None:
        self.refused[name, shadow] += 1

    def limit_crossed(self, threshold: str) -> None:
        self.crossed[threshold] += 1


@dataclass
class Worker:
    """One worker, and short ways to call through it."""

    allowances: Allowances
    counted: Counted
    holder: str
    now: float = 1_770_000_000.0

    async def hold(self, key: VirtualKey, *, most_output: int = 100, entry: Entry | None = None) -> Hold:
        entry = entry or call_of(key)
        body = json.dumps({"inferenceConfig": {"maxTokens": most_output}}).encode()
        hold = self.allowances.reserve(key, entry, CALL, body, len(body))
        return hold if hold is not None else await self.allowances.acquire(key, entry, CALL, body, len(body))


def key_with(key_id: str = KEY, /, **fields: Any) -> VirtualKey:
    return VirtualKey(key_id=key_id, limits=limits_of("key", key_id, fields))


def call_of(key: VirtualKey, **fields: Any) -> Entry:
    known = {"key_id": key.key_id, "user_id": key.user_id, "team_id": key.team_id, "status": 200, "model": MODEL}
    known |= {"service": "bedrock-runtime", "operation": "Converse", "region": "us-east-1"}
    import time  # noqa: PLC0415

    now = time.time()
    return Entry(call_id=ids(now), started_at=now, **(known | fields))


@asynccontextmanager
async def worker(
    database: Database,
    data_dir: Path,
    *,
    holder: str | None = None,
    choices: Choices | None = None,
    multipliers: Mapping[str, Decimal] | None = None,
    **options: Any,
) -> AsyncIterator[Worker]:
    holder = holder or str(uuid.uuid4())
    counted = Counted()
    estimates = Estimates(PriceBook(), multipliers or {})
    async with open_allowances(
        options.pop("connect", database.connect),
        holder,
        data_dir,
        estimates=estimates,
        choices=choices or Choices(),
        counters=counted,
        **options,
    ) as allowances:
        yield Worker(allowances, counted, holder)


@asynccontextmanager
async def workers(database: Database, data_dir: Path, count: int, **options: Any) -> AsyncIterator[list[Worker]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(worker(database, data_dir, **options)) for _ in range(count)]
