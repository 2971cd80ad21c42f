"""A budget begins with what was spent in its window already, also before anybody had set it.

Counted under the lock of the ledger's writers: a call is in the ledger and counted here, or it is stored later and
found by `allowances_settle`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg

from passthrough.policy.access import covers
from passthrough.policy.allowances import ENDLESS, PICODOLLARS, Limit, window
from passthrough.policy.ledger import first_call_id
from passthrough.storage.ledger_writer import TURN

# Without a window and of all models: the counter that `/key/…/reset_spend` sets.
_COUNTER = "SELECT coalesce(sum(spend), 0) FROM spend WHERE kind = $1 AND subject = $2"

# Sums of whole days, by billed model; of a key that was rotated also under its former names.
_DAYS = """
SELECT model, sum(spend) AS spend FROM ledger_daily WHERE day >= $1 AND spend <> 0 AND {whose} GROUP BY model
"""
_LABEL_DAYS = """
SELECT model, sum(spend) AS spend FROM ledger_daily_labels
WHERE day >= $1 AND label = $2 AND value = $3 AND spend <> 0 GROUP BY model
"""
_CALLS = """
SELECT coalesce(billed_model, model) AS model, sum(cost) AS spend FROM ledger
WHERE call_id >= $1 AND cost <> 0 AND {whose} GROUP BY 1
"""
_KEYS = "(SELECT $2 UNION SELECT former_id FROM former_keys WHERE key_id = $2)"
_WHOSE = {
    "key": f"key_id IN {_KEYS}",
    "user": "user_id = $2",
    "team": "team_id = $2",
    "team_member": "team_id || '/' || user_id = $2",
    "customer": "end_user = $2",
    "tag": "$2 = ANY (tags)",
    "global": "$2 = ''",
}
_OPEN = """
INSERT INTO allowances (subject, name, kind, period, model, starts_at, ends_at, used, most, soft)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
"""


async def open_budgets(connection: asyncpg.Connection, limits: Sequence[tuple[Limit, int]], now: float) -> None:
    """Make the rows of budgets that have none yet; `now` is PostgreSQL's clock. With each, how much it is now."""
    moment = datetime.fromtimestamp(now, UTC)
    async with connection.transaction():
        await connection.execute(TURN)
        for limit, most in limits:
            start, end = window(moment, limit.period)
            spent = (await _spent(connection, limit, start)).scaleb(PICODOLLARS)
            first = (limit.subject, limit.name, int(limit.kind), limit.period, limit.model)
            if limit.period == ENDLESS:
                start = datetime.fromtimestamp(0, UTC)
            soft = None if limit.soft is None else Decimal(limit.soft)
            await connection.execute(_OPEN, *first, start, end, spent, Decimal(most), soft)


async def _spent(connection: asyncpg.Connection, limit: Limit, start: datetime) -> Decimal:
    """USD that were spent since `start`, of what the limit counts."""
    if limit.period == ENDLESS and not limit.model and limit.subject != "global":
        return Decimal(await connection.fetchval(_COUNTER, limit.subject, limit.name))
    rows = await _by_model(connection, limit, start)
    models = (row for row in rows if not limit.model or covers(limit.model, row["model"] or ""))
    return sum((row["spend"] for row in models), Decimal(0))


async def _by_model(connection: asyncpg.Connection, limit: Limit, start: datetime) -> list[Any]:
    whose = _WHOSE[limit.subject]
    if limit.period != ENDLESS and limit.period[-1] in "smh":
        first = first_call_id(start.timestamp())
        return list(await connection.fetch(_CALLS.format(whose=whose), first, limit.name))
    day = start.date() if limit.period != ENDLESS else datetime.fromtimestamp(0, UTC).date()
    if limit.subject in {"customer", "tag"}:
        return list(await connection.fetch(_LABEL_DAYS, day, limit.subject, limit.name))
    return list(await connection.fetch(_DAYS.format(whose=whose), day, limit.name))
