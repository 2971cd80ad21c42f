"""Allowances as administrators and key holders see them, and the counters that administrators set."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.policy.allowances import PICODOLLARS, Kind, Limit, merged, window
from passthrough.policy.ledger import Entry
from passthrough.storage.allowances_desk import ALIVE_SECONDS, CHANNEL
from passthrough.storage.allowances_limits import SHARED, shared_limits
from passthrough.storage.allowances_settle import subjects_of
from passthrough.storage.keys import LOOKUP, virtual_key
from passthrough.storage.schema_allowances import allowance_holders, allowance_leases, allowances

_REPORT_SECONDS: Final = 0.05  # a worker answers within some ms
_LOST_SECONDS: Final = 600  # a worker that was not heard of for so long, and that nobody could bury

# Locks the allowances first, as everybody does. Of a single model not more can have been spent than of all together.
_FORGIVE: Final = text(f"""
WITH locked AS MATERIALIZED (
    SELECT id FROM allowances WHERE subject = :subject AND name = :name AND kind = {int(Kind.MONEY)}
    ORDER BY period COLLATE "C", model COLLATE "C" FOR UPDATE
), gone AS (
    DELETE FROM allowance_leases lease USING locked, allowance_holders holder
    WHERE lease.allowance = locked.id AND holder.holder = lease.holder
    AND holder.seen_at < now() - make_interval(secs => {_LOST_SECONDS})
    RETURNING lease.allowance, greatest(0, lease.granted - lease.consumed) AS outstanding
)
UPDATE allowances SET lost = 0,
    used = CASE WHEN model = '' THEN :used ELSE least(used, :used) END,
    warned = CASE WHEN model = '' OR used > :used THEN 0 ELSE warned END,
    held = held - coalesce((SELECT sum(outstanding) FROM gone WHERE gone.allowance = allowances.id), 0)
FROM locked WHERE allowances.id = locked.id
""")  # noqa: S608  # our own numbers

_ACCOUNT: Final = (allowances.c.subject, allowances.c.name, allowances.c.kind, allowances.c.period, allowances.c.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowanceState:
    """One allowance: money in USD, else whole numbers.

    `used` is known to be used, `held` reserved for calls under way (or spent a moment ago), or leased by a worker that
    was not heard of for a while, `lost` was reserved by calls whose cost nobody will know.
    """

    limit: Limit
    most: Decimal
    used: Decimal
    held: Decimal
    lost: Decimal
    resets_at: datetime | None

    @property
    def remaining(self) -> Decimal:
        return max(Decimal(0), self.most - self.used - self.held - self.lost)

    def fields(self) -> dict[str, Any]:
        """Give it under the names of the admin API: `field` is LiteLLM's name of the limit."""
        limit = self.limit
        return {
            "subject": limit.subject,
            "name": limit.name,
            "field": limit.field,
            "unit": "usd" if limit.kind == Kind.MONEY else limit.kind.name.lower(),
            "model": limit.model or None,
            "window": limit.period or None,
            "limit": self.most,
            "used": self.used,
            "held": self.held,
            "lost": self.lost,
            "remaining": self.remaining,
            "resets_at": self.resets_at,
            "shadow": limit.shadow,
        }


async def states(
    connection: AsyncConnection, limits: Sequence[Limit], now: datetime, *, fresh: bool = False
) -> list[AllowanceState]:
    """Tell the state of each limit, in one query. One that was never used is whole.

    What workers have used is as of their last report; `fresh` asks them to report now, and waits a moment for it.
    """
    if not limits:
        return []
    if fresh:
        await _have_reported(connection, limits)
    # What a worker leased ahead of calls is anybody's for the asking, unless it cannot be asked.
    alive = allowance_holders.c.seen_at > func.now() - timedelta(seconds=ALIVE_SECONDS)
    free = (
        select(func.coalesce(func.sum(allowance_leases.c.free), 0))
        .join(allowance_holders, allowance_holders.c.holder == allowance_leases.c.holder)
        .where(allowance_leases.c.allowance == allowances.c.id, alive)
        .scalar_subquery()
    )
    columns = (*_ACCOUNT, allowances.c.used, allowances.c.held, allowances.c.lost, allowances.c.ends_at)
    query = select(*columns, free.label("free")).where(tuple_(*_ACCOUNT).in_([limit.account for limit in limits]))
    found = {tuple(row[:5]): row for row in (await connection.execute(query)).all()}
    return [_state(limit, found.get(limit.account), now) for limit in limits]


async def states_of_key(connection: AsyncConnection, key_id: str, now: datetime) -> list[AllowanceState]:
    """Tell the state of every allowance that binds the calls of a key, but for what a call's tags and customer add."""
    row = (await connection.execute(LOOKUP, {"key_ids": [key_id]})).mappings().first()
    if row is None:
        return []
    key = virtual_key(dict(row))
    shared = shared_limits((await connection.execute(text(SHARED))).scalars())
    owners = subjects_of(Entry(call_id="", started_at=0.0, key_id=key_id, user_id=key.user_id, team_id=key.team_id))
    return await states(connection, merged([*key.limits, *shared.of(key.limits, owners)]), now, fresh=True)


async def _have_reported(connection: AsyncConnection, limits: Sequence[Limit]) -> None:
    """Ask all workers for a report. Also in a transaction, in which what they say can be seen once it is said."""
    query = select(allowances.c.id).where(tuple_(*_ACCOUNT).in_([limit.account for limit in limits]))
    ids = (await connection.execute(query.where(allowances.c.held > 0))).scalars().all()
    if ids:
        await connection.execute(text("SELECT pg_notify(:channel, :words)"), _words(ids))
        await connection.commit()  # else nobody hears it
        await asyncio.sleep(_REPORT_SECONDS)


def _words(ids: Sequence[int]) -> dict[str, str]:
    return {"channel": CHANNEL, "words": " ".join(["report", *map(str, ids)])}


def _state(limit: Limit, row: Any, now: datetime) -> AllowanceState:  # a row of the query above
    scale = -PICODOLLARS if limit.kind == Kind.MONEY else 0
    current = row is not None and (row.ends_at is None or row.ends_at > now)
    used, held, lost = (row.used, row.held - row.free, row.lost) if current else (Decimal(0),) * 3
    ends = row.ends_at if current else None if limit.anchored else window(now, limit.period)[1]
    return AllowanceState(
        limit=limit,
        most=Decimal(limit.most_at(now.timestamp())).scaleb(scale),
        used=used.scaleb(scale),
        held=max(Decimal(0), held).scaleb(scale),
        lost=lost.scaleb(scale),
        resets_at=ends,
    )


async def count_from(connection: AsyncConnection, subject: str, name: str, amount: Decimal) -> None:
    """Set what a subject has spent of its budgets, in USD, of single models at most that; what was lost is forgiven.

    Call in the transaction that sets its spend counter. Calls under way keep what they have reserved; what machines
    hold that are gone is given back.
    """
    await connection.execute(_FORGIVE, {"subject": subject, "name": name, "used": amount.scaleb(PICODOLLARS)})
