"""The statements that store calls, or prices of calls, and move every sum by what that changed.

The parts of a statement share one snapshot and one list of rows that it changed (`fresh`), so that a call is either
in the ledger and in every sum, or in none. Sums are added to in the order of their keys.
"""

from passthrough.storage.schema_ledger import SUM_COLUMNS, TOKEN_COLUMNS, ledger_calls

_COLUMNS = ", ".join(column.name for column in ledger_calls.columns)

# Per call. Model, tags and customer are what somebody typed. A model gets a line in reports when AWS has shown that it
# exists, by anything but a refusal other than a throttling; tags and customer when the call consumed something. Else
# whoever has a key, one without a budget too, could write as many lines as they like for nothing.
_METERED = "(fresh.price_status <> 'not_metered')"
_KNOWN = f"""({_METERED} OR fresh.outcome IN ('ok', 'cut', 'upstream_error')
    OR (fresh.outcome = 'client_error' AND fresh.status = 429))"""
_SUBJECT = f"""
    (fresh.started_at AT TIME ZONE 'UTC')::date AS day, fresh.started_at,
    caller.key_id, caller.user_id, caller.team_id, coalesce(fresh.end_user, '') AS customer, fresh.tags,
    CASE WHEN NOT {_KNOWN} THEN ''
         WHEN route.billed_model <> '' THEN route.billed_model ELSE route.model END AS model,
    {_METERED} AS metered,
    coalesce(fresh.cost, 0) AS spend,
"""
_FROM = """
FROM fresh
JOIN ledger_callers caller ON caller.id = fresh.caller
JOIN ledger_routes route ON route.id = fresh.route
"""

# A call that failed was not answered as asked; one whose client left was.
_NEW = f"""
SELECT {_SUBJECT}
    1 AS calls,
    (fresh.outcome NOT IN ('ok', 'client_gone'))::int AS failed_calls,
    (fresh.price_status = 'unknown_model')::int AS unpriced_calls,
    {", ".join(f"coalesce(fresh.{name}, 0) AS {name}" for name in TOKEN_COLUMNS)}
{_FROM}
"""

# It was counted when it was new: what moves is its cost, which was nothing, and that it has one.
_PRICED = f"""
SELECT {_SUBJECT}
    0 AS calls, 0 AS failed_calls, -1 AS unpriced_calls,
    {", ".join(f"0 AS {name}" for name in TOKEN_COLUMNS)}
{_FROM}
"""

# A tag counts once per call, however often the call bears it.
_LABELLED = """
SELECT call.*, 'customer' AS label, call.customer AS value FROM call WHERE call.customer <> '' AND call.metered
UNION ALL
SELECT call.*, 'tag', tag.value FROM call
CROSS JOIN LATERAL (SELECT DISTINCT unnest(call.tags)) AS tag (value) WHERE call.metered
"""

# A key that was rotated keeps its counter, also for the calls that still name its former digest.
_SUBJECTS = """
SELECT 'key' AS kind, coalesce(former.key_id, call.key_id) AS subject, spend, started_at
FROM call LEFT JOIN former_keys former ON former.former_id = call.key_id WHERE call.key_id <> ''
UNION ALL SELECT 'user', user_id, spend, started_at FROM call WHERE user_id <> ''
UNION ALL SELECT 'team', team_id, spend, started_at FROM call WHERE team_id <> ''
UNION ALL SELECT 'team_member', team_id || '/' || user_id, spend, started_at
FROM call WHERE team_id <> '' AND user_id <> ''
UNION ALL SELECT label, value, spend, started_at FROM labelled
"""

_MOVE_COUNTERS = """
INSERT INTO spend AS held (kind, subject, spend, total_spend, last_active)
SELECT kind, subject, sum(spend), sum(spend), max(started_at) FROM subjects
GROUP BY kind, subject ORDER BY kind, subject
ON CONFLICT (kind, subject) DO UPDATE SET
    spend = held.spend + excluded.spend,
    total_spend = held.total_spend + excluded.total_spend,
    last_active = greatest(held.last_active, excluded.last_active)
"""


def _roll_up(table: str, key: str, source: str) -> str:
    sums = ", ".join(f"sum({name})" for name in SUM_COLUMNS)
    moved = ", ".join(f"{name} = held.{name} + excluded.{name}" for name in SUM_COLUMNS)
    return f"""
INSERT INTO {table} AS held ({key}, {", ".join(SUM_COLUMNS)})
SELECT {key}, {sums} FROM {source} GROUP BY {key} ORDER BY {key}
ON CONFLICT ({key}) DO UPDATE SET {moved}
"""  # noqa: S608  # our own names, nobody's input


_MOVE_SUMS = f"""
labelled AS MATERIALIZED ({_LABELLED}),
subjects AS ({_SUBJECTS}),
counters AS ({_MOVE_COUNTERS}),
days AS ({_roll_up("ledger_daily", "day, key_id, user_id, team_id, model", "call")}),
labels AS ({_roll_up("ledger_daily_labels", "day, label, value, team_id, model", "labelled")})
"""

STORE_BATCH = f"""
WITH fresh AS MATERIALIZED (
    INSERT INTO ledger_calls ({_COLUMNS}) SELECT {_COLUMNS} FROM ledger_batch ORDER BY call_id
    ON CONFLICT (call_id) DO NOTHING
    RETURNING *
),
call AS MATERIALIZED ({_NEW}),
{_MOVE_SUMS}
SELECT count(*) AS stored,
    CASE WHEN count(*) < (SELECT count(*) FROM ledger_batch) THEN coalesce(array_agg(call_id), '{{}}') END AS which
FROM fresh
"""  # noqa: S608  # our own names, nobody's input

STORE_PRICES = f"""
WITH fresh AS MATERIALIZED (
    UPDATE ledger_calls SET cost = priced.cost, price_status = 'priced'
    FROM unnest($1::uuid[], $2::numeric[]) AS priced (call_id, cost)
    WHERE ledger_calls.call_id = priced.call_id AND price_status = 'unknown_model'
    RETURNING ledger_calls.*
),
call AS MATERIALIZED ({_PRICED}),
{_MOVE_SUMS}
SELECT count(*), coalesce(sum(cost), 0) FROM fresh
"""  # noqa: S608  # our own names, nobody's input
