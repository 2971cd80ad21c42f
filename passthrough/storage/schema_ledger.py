"""The tables of the ledger: calls by month, what they have in common, and the sums that reports read.

A call is one narrow row. What thousands of calls share (who called, where it went) stands once in a side
table; the view `ledger` (migration 0002) joins them, under the names that users know. A side
table's row is found by a digest of its columns, because together they are too long for an index, and ''
stands there for what nobody said.

`ledger_calls` is partitioned by range of `call_id`. A UUIDv7 begins with its time, so a month is a range of
ids, the primary key can be the id alone, and a call is found by it, and shipped twice is stored once, without
knowing its month. The ids order the calls by time as well: no other index on time is needed.

Roll-ups, and the counters of `spend`, move in the transaction that inserts the calls they sum; a new price
moves them in the transaction that changes the call.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Identity,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from passthrough.storage.schema import Base

CALLER_COLUMNS = ("key_id", "key_alias", "user_id", "team_id", "user_agent")
ROUTE_COLUMNS = ("service", "operation", "model", "billed_model", "region", "identity", "tier", "latency")
TOKEN_COLUMNS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
)
SUM_COLUMNS = ("calls", "failed_calls", "unpriced_calls", *TOKEN_COLUMNS, "spend")


def _name(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="", **options)


def _sums() -> list[Column[Any]]:
    """Return what is summed for a day: calls, those that failed, those without a price, tokens, USD."""
    return [
        Column(name, Numeric if name == "spend" else BigInteger, nullable=False, server_default=text("0"))
        for name in SUM_COLUMNS
    ]


def _side_table(name: str, columns: tuple[str, ...]) -> Table:
    """`last_seen` is the last day on which calls were stored that refer to the row: what prune goes by."""
    return Table(
        name,
        Base.metadata,
        Column("id", Integer, Identity(), primary_key=True),
        Column("digest", Uuid, nullable=False),
        Column("last_seen", Date, nullable=False, server_default=func.current_date()),
        *(_name(column) for column in columns),
        UniqueConstraint("digest"),
    )


ledger_callers = _side_table("ledger_callers", CALLER_COLUMNS)
ledger_routes = _side_table("ledger_routes", ROUTE_COLUMNS)
Index("ix_ledger_callers_key_id", ledger_callers.c.key_id)
Index("ix_ledger_callers_team_id", ledger_callers.c.team_id)
Index("ix_ledger_callers_user_id", ledger_callers.c.user_id)

# Columns stand widest first: PostgreSQL pads each to its alignment.
ledger_calls = Table(
    "ledger_calls",
    Base.metadata,
    Column("call_id", Uuid, primary_key=True),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("request_bytes", BigInteger, nullable=False),
    Column("response_bytes", BigInteger, nullable=False),
    Column("caller", Integer, nullable=False),
    Column("route", Integer, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("ttfb_ms", Integer),
    *(Column(name, Integer) for name in TOKEN_COLUMNS),
    Column("attempt", Integer),
    Column("status", SmallInteger, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("price_status", Text, nullable=False),
    Column("usage_source", Text, nullable=False),
    Column("cost", Numeric),
    Column("error_type", Text),
    Column("client_ip", Text),
    Column("upstream_request_id", Text),
    Column("client_invocation_id", Text),
    Column("end_user", Text),
    Column("session_id", Text),
    Column("tags", ARRAY(Text)),
    Column("metadata", JSONB),
    Column("usage_details", JSONB, comment="units, and usage by model, where a price needs them"),
    postgresql_partition_by="RANGE (call_id)",
)
Index("ix_ledger_calls_caller_call_id", ledger_calls.c.caller, ledger_calls.c.call_id)
Index(
    "ix_ledger_calls_end_user_call_id",
    ledger_calls.c.end_user,
    ledger_calls.c.call_id,
    postgresql_where=ledger_calls.c.end_user.is_not(None),
)
Index(
    "ix_ledger_calls_session_id_call_id",
    ledger_calls.c.session_id,
    ledger_calls.c.call_id,
    postgresql_where=ledger_calls.c.session_id.is_not(None),
)
Index(
    "ix_ledger_calls_unpriced",
    ledger_calls.c.call_id,
    postgresql_where=text("price_status = 'unknown_model'"),
)

ledger_daily = Table(
    "ledger_daily",
    Base.metadata,
    Column("day", Date, primary_key=True),
    *(Column(name, Text, primary_key=True) for name in ("key_id", "user_id", "team_id", "model")),
    *_sums(),
    comment="Calls of a day (UTC) by key, its owners and the billed model; '' is nobody, or no model",
)
Index("ix_ledger_daily_key_id_day", ledger_daily.c.key_id, ledger_daily.c.day)

ledger_daily_labels = Table(
    "ledger_daily_labels",
    Base.metadata,
    Column("day", Date, primary_key=True),
    *(Column(name, Text, primary_key=True) for name in ("label", "value", "team_id", "model")),
    *_sums(),
    comment="The same by label: tag (a call counts under each of its tags) or customer",
)


def is_month(table: str) -> bool:
    """Tell the partitions of `ledger_calls` from tables that a migration must account for."""
    return table.startswith("ledger_calls_")
