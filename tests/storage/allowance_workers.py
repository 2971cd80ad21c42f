"""Workers of one database, in one process: what tests of allowances call through."""

import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.usage import Usage
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
from passthrough.storage.ledger import Ledger

KEY = "ab" * 32
MODEL = "amazon.nova-micro-v1:0"  # 0.035 USD per million tokens of input, 0.14 of output
CALL = route("POST", f"/bedrock/model/{MODEL}/converse")

ids = CallIds()
price = Pricing(PriceBook(), {})


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
    ledger: Ledger | None

    async def hold(self, key: VirtualKey, *, most_output: int = 100, entry: Entry | None = None) -> Hold:
        """Reserve for a call as the handler does."""
        entry = entry or call_of(key)
        body = json.dumps({"inferenceConfig": {"maxTokens": most_output}}).encode()
        hold = self.allowances.reserve(key, entry, CALL, body, len(body))
        return hold if hold is not None else await self.allowances.acquire(key, entry, CALL, body, len(body))

    async def call(
        self, key: VirtualKey, *, used: tuple[int, int] = (10, 10), most_output: int = 100, **fields: Any
    ) -> Entry:
        """Make a whole call: reserved, answered, priced, settled, and in the journal if there is one."""
        entry = call_of(key, **fields)
        hold = await self.hold(key, most_output=most_output, entry=entry)
        return self.end(entry, hold, used)

    def end(self, entry: Entry, hold: Hold, used: tuple[int, int] = (10, 10)) -> Entry:
        usage = Usage(input_tokens=used[0], output_tokens=used[1], source="body")
        entry.measured(usage)
        price(entry, usage)
        hold.settle(entry)
        if self.ledger is not None:
            self.ledger.append(entry)
        hold.written()
        return entry


def key_with(key_id: str = KEY, /, *, shadow: tuple[str, ...] = (), **fields: Any) -> VirtualKey:
    return VirtualKey(key_id=key_id, limits=limits_of("key", key_id, {**fields, "shadow_limits": list(shadow)}))


def call_of(key: VirtualKey, **fields: Any) -> Entry:
    known = {"key_id": key.key_id, "user_id": key.user_id, "team_id": key.team_id, "status": 200, "model": MODEL}
    known |= {"service": "bedrock-runtime", "operation": "Converse", "region": "us-east-1"}
    now = time.time()
    return Entry(call_id=ids(now), started_at=now, **(known | fields))


@asynccontextmanager
async def worker(
    database: Database,
    data_dir: Path,
    *,
    recording: bool = False,
    choices: Choices | None = None,
    multipliers: Mapping[str, Decimal] | None = None,
    **options: Any,
) -> AsyncIterator[Worker]:
    """Open a worker; with `recording` it has a journal of its own that is shipped."""
    holder = str(uuid.uuid4())
    counted = Counted()
    connect = options.pop("connect", database.connect)
    async with AsyncExitStack() as stack:
        allowances = await stack.enter_async_context(
            open_allowances(
                connect,
                holder,
                data_dir,
                estimates=Estimates(PriceBook(), multipliers or {}),
                choices=choices or Choices(),
                counters=counted,
                **options,
            )
        )
        ledger = None
        if recording:
            ledger = await stack.enter_async_context(Ledger(data_dir / "journal", connect, name=holder))
        yield Worker(allowances, counted, ledger)


@asynccontextmanager
async def workers(database: Database, data_dir: Path, count: int, **options: Any) -> AsyncIterator[list[Worker]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(worker(database, data_dir, **options)) for _ in range(count)]
