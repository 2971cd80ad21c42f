"""Money is settled where it is recorded: in the transaction that stores the calls, by what was new in it.

An entry bears the charges of its call (`policy.allowance_leases`): from which lease, and how much that had been set
aside is now spent. `used` moves by the exact cost, the lease by the same rounded up. So a call is either in the
ledger and in `used`, or in neither, and whatever is in neither is still held by its worker's lease.

A budget that is set while calls are under way, or wait to be shipped, has no charges of theirs; they are found by
whom they belong to. Whoever opens such an allowance counts the ledger under the writers' lock, so each call is
counted there or here, and never in both.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg

from passthrough.policy.access import covers
from passthrough.policy.allowances import PICODOLLARS, SubjectKind
from passthrough.policy.ledger import Entry

_SETTLE = (
    "SELECT passthrough_settle($1::bigint[], $2::bigint[], $3::bigint[], $4::numeric[], $5::numeric[], $6::numeric[])"
)
# Those that are younger than the oldest call of the batch, but for the time in which a worker hears of a new limit.
_YOUNG = """
SELECT id, epoch, subject, name, model, starts_at, created_at FROM allowances
WHERE kind = 3 AND epoch = 0 AND created_at > $1
AND (subject, name) IN (SELECT * FROM unnest($2::text[], $3::text[]))
"""
_HEARING = timedelta(seconds=10)
_ZERO = Decimal(0)


async def settle(connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
    """Charge what was just stored; call in the transaction that stored it, with the writers' lock."""
    charges = _Charges()
    costly = []
    for entry in entries:
        if entry.cost:
            costly.append(entry)
        for allowance, number, epoch, units, lost in entry.charges:
            cost = _ZERO if lost else (entry.cost or _ZERO).scaleb(PICODOLLARS)
            charges.add((allowance, number, epoch), units, cost, units if lost else 0)
    if costly:
        for row in await _young(connection, costly):
            for entry in costly:
                if _missed(row, entry):
                    charges.add((row["id"], 0, row["epoch"]), 0, entry.cost.scaleb(PICODOLLARS), 0)  # type: ignore[union-attr]  # it is costly
    if charges:
        await connection.execute(_SETTLE, *charges.columns())


class _Charges:
    """Charges added up: one row for each lease."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int, int], tuple[Decimal, Decimal, Decimal]] = {}

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, place: tuple[int, int, int], units: int, cost: Decimal, lost: int) -> None:
        before = self._sums.get(place, (_ZERO, _ZERO, _ZERO))
        self._sums[place] = (before[0] + units, before[1] + cost, before[2] + lost)

    def columns(self) -> Iterator[list[Any]]:
        for index in range(3):
            yield [place[index] for place in self._sums]
        for index in range(3):
            yield [sums[index] for sums in self._sums.values()]


async def _young(connection: asyncpg.Connection, entries: Sequence[Entry]) -> list[Any]:
    oldest = datetime.fromtimestamp(min(entry.started_at for entry in entries), UTC)
    # A batch has hundreds of calls, of a few who make them.
    one_of_each = {(entry.key_id, entry.user_id, entry.team_id, entry.end_user, entry.tags): entry for entry in entries}
    subjects = {subject for entry in one_of_each.values() for subject in subjects_of(entry)}
    kinds, names = zip(*subjects, strict=True)
    return list(await connection.fetch(_YOUNG, oldest - _HEARING, list(kinds), list(names)))


def _missed(row: Any, entry: Entry) -> bool:  # a row of _YOUNG
    """Whether a call counts towards an allowance that was not there yet when the call was admitted."""
    started = datetime.fromtimestamp(entry.started_at, UTC)
    return (
        row["starts_at"] <= started < row["created_at"] + _HEARING
        and all(allowance != row["id"] for allowance, *_ in entry.charges)
        and (row["subject"], row["name"]) in set(subjects_of(entry))
        and (not row["model"] or any(covers(row["model"], name) for name in (entry.model, entry.billed_model) if name))
    )


def subjects_of(entry: Entry) -> Iterable[tuple[SubjectKind, str]]:
    """Who a call counts for, under the names of `policy.allowances.SubjectKind`."""
    yield "global", ""
    if entry.key_id:
        yield "key", entry.key_id
    if entry.user_id:
        yield "user", entry.user_id
    if entry.team_id:
        yield "team", entry.team_id
    if entry.team_id and entry.user_id:
        yield "team_member", f"{entry.team_id}/{entry.user_id}"
    if entry.end_user:
        yield "customer", entry.end_user
    for tag in entry.tags:
        yield "tag", tag
