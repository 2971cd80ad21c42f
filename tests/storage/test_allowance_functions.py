"""PostgreSQL's functions and their model in `tests/policy/bank.py` give the same answers to the same questions.

So what the model's state machine proves of workers and model holds for workers and PostgreSQL.
"""

import json
import random
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from passthrough.policy.allowance_leases import Account, Want
from passthrough.policy.allowances import Kind, Limit
from passthrough.storage.database import Database
from tests.policy.bank import Bank

HOLDERS = ("a", "b", "c")
MOST = 500
LEASE = "SELECT * FROM passthrough_lease($1, $2::jsonb, '1 hour')"
SETTLE = (
    "SELECT passthrough_settle($1::bigint[], $2::bigint[], $3::bigint[], $4::numeric[], $5::numeric[], $6::numeric[])"
)


class Postgres:
    """The same verbs as `Bank`, one allowance of a kind."""

    def __init__(self, connection: asyncpg.Connection, kind: Kind) -> None:
        self.connection = connection
        self.kind = kind
        self.id = 0

    async def prepare(self) -> None:
        for holder in HOLDERS:
            await self.connection.execute(
                "INSERT INTO allowance_holders (holder) VALUES ($1) ON CONFLICT DO NOTHING", holder
            )
        self.id = await self.connection.fetchval(
            "INSERT INTO allowances (subject, name, kind, period, model, starts_at, most) "
            "VALUES ('key', 'k', $1, '', '', now(), $2) RETURNING id",
            int(self.kind),
            MOST,
        )

    async def lease(self, asker: str, want: Want) -> dict[str, Any]:
        asked = {
            "place": 0,
            "subject": "key",
            "name": "k",
            "kind": int(self.kind),
            "period": "",
            "model": "",
            "most": MOST,
            "number": want.number,
            "epoch": want.epoch,
            "taken": want.taken,
            "settled": want.settled,
            "back": want.back,
            "need": want.need,
            "total": want.total,
            "extra": want.extra,
            "ask": want.ask,
            "answer": "",
            "close": want.close,
        }
        (row,) = await self.connection.fetch(LEASE, asker, json.dumps([asked]))
        return dict(row)

    async def held_by(self) -> dict[str, tuple[int, int]]:
        rows = await self.connection.fetch("SELECT holder, granted, consumed FROM allowance_leases")
        return {row["holder"]: (int(row["granted"]), int(row["consumed"])) for row in rows}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("seed", range(4))
async def test_the_functions_answer_as_their_model_does(database: Database, kind: Kind, seed: int) -> None:
    pick = random.Random(seed)  # noqa: S311  # a test is to be repeatable
    connection = await database.connect()
    postgres, bank = Postgres(connection, kind), Bank(kind, windowed=False)
    await postgres.prepare()
    account = Account(Limit(subject="key", name="k", kind=kind, period="", most=MOST, field="f"), MOST)
    numbers: dict[int, int] = {}  # the model's lease numbers → PostgreSQL's
    for _ in range(150):
        holder = pick.choice(HOLDERS)
        mine = bank.row.leases.get(holder)
        action = pick.random()
        if action < 0.75:
            want = _want(pick, account, mine)
            theirs = Want(**{name: getattr(want, name) for name in Want.__slots__})
            theirs.number = numbers.get(want.number, want.number)
            expected, found = bank.lease(holder, want, 0.0), await postgres.lease(holder, theirs)
            assert found["state"] == "ok"
            assert found["granted"] == expected.granted
            assert (found["used"], found["held"], found["lost"]) == (expected.used, expected.held, expected.lost)
            assert tuple(sorted(found["others"] or ())) == expected.others
            assert (found["number"] is None) == (expected.number == 0)
            if expected.number:
                numbers[expected.number] = found["number"]
        elif action < 0.9 and mine is not None and kind == Kind.MONEY:
            units, lost = pick.randrange(40), pick.random() < 0.2
            bank.settle(mine.number, 0, units, units, lost=lost)
            sums = [[units], [0 if lost else units], [units if lost else 0]]
            await connection.execute(SETTLE, [postgres.id], [numbers[mine.number]], [0], *sums)
        elif mine is not None:
            figure, with_money = pick.randrange(60), pick.random() < 0.7
            bank.bury(holder, {mine.number: figure}, with_money=with_money)
            noted = json.dumps({str(numbers[mine.number]): figure})
            await connection.execute("SELECT passthrough_bury($1, $2::jsonb, $3)", holder, noted, with_money)
            await connection.execute("INSERT INTO allowance_holders VALUES ($1) ON CONFLICT DO NOTHING", holder)
        row = await connection.fetchrow("SELECT used, held, lost FROM allowances")
        assert tuple(row) == (bank.row.used, bank.row.held, bank.row.lost)
        leases = {name: (lease.granted, lease.consumed) for name, lease in bank.row.leases.items()}
        assert await postgres.held_by() == leases
    await connection.close()


def _want(pick: random.Random, account: Account, mine: Any) -> Want:  # a lease of the model's
    known = mine is not None and pick.random() < 0.9
    settled = pick.randrange(mine.consumed, mine.granted + 1) if known and mine.granted > mine.consumed else 0
    taken = pick.randrange(settled, mine.granted + 1) if known and mine.granted > settled else settled
    needs = sorted(pick.randrange(1, 100) for _ in range(pick.randrange(3)))
    return Want(
        account=account,
        number=mine.number if known else pick.choice((0, 10**9)),
        epoch=0,
        taken=taken,
        settled=settled,
        back=pick.randrange(mine.granted - taken + 1) if known else 0,
        need=needs[0] if needs else 0,
        total=sum(needs),
        extra=pick.randrange(200),
        ask=pick.choice(("", "q")),
        close=pick.random() < 0.1,
    )


async def test_a_window_that_is_over_begins_anew_and_its_leases_are_void(database: Database) -> None:
    connection = await database.connect()
    postgres = Postgres(connection, Kind.TOKENS)
    await postgres.prepare()
    account = Account(Limit(subject="key", name="k", kind=Kind.TOKENS, period="", most=MOST, field="f"), MOST)
    want = Want(account=account, number=0, epoch=0, taken=0, settled=0, need=10, total=10)
    first = await postgres.lease("a", want)
    await connection.execute("UPDATE allowances SET ends_at = now() - interval '1 second', used = 7")
    want = Want(account=account, number=first["number"], epoch=0, taken=9, settled=9, need=1, total=1)
    asked = await connection.fetch(
        LEASE,
        "a",
        json.dumps(
            [
                {"place": 0, "subject": "key", "name": "k", "kind": 1, "period": "", "model": "", "most": MOST}
                | {"span": 60, "number": want.number, "epoch": 0, "taken": 9, "settled": 9, "back": 0}
                | {"need": 1, "total": 1, "extra": 0, "ask": "", "answer": "", "close": False}
            ]
        ),
    )
    assert (asked[0]["epoch"], asked[0]["granted"], asked[0]["used"], asked[0]["held"]) == (1, 1, 0, 1)
    assert 59 < asked[0]["ends_at"] - asked[0]["moment"] <= 60
    await connection.close()


async def test_a_clock_that_is_behind_is_told_so_and_nothing_is_given(database: Database) -> None:
    connection = await database.connect()
    asked = {"place": 0, "subject": "key", "name": "k", "kind": 1, "period": "1d", "model": "", "most": 5}
    asked |= {"starts": 0.0, "ends": 86400.0, "number": 0, "epoch": 0, "taken": 0, "settled": 0, "back": 0}
    asked |= {"need": 1, "total": 1, "extra": 0, "ask": "", "answer": "", "close": False}
    (row,) = await connection.fetch(LEASE, "a", json.dumps([asked]))
    assert (row["state"], row["granted"]) == ("late", 0)
    assert row["moment"] > 1.7e9
    assert await connection.fetchval("SELECT count(*) FROM allowances") == 0
    await connection.close()


async def test_costs_are_kept_to_the_last_digit(database: Database) -> None:
    connection = await database.connect()
    await Postgres(connection, Kind.MONEY).prepare()
    (allowance,) = await connection.fetchrow("SELECT id FROM allowances")
    for _ in range(3):
        cost = [Decimal("0.000000000000000001")]
        await connection.execute(SETTLE, [allowance], [0], [0], [0], cost, [0])
    assert await connection.fetchval("SELECT used FROM allowances") == Decimal("0.000000000000000003")
    await connection.close()
