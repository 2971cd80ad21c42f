"""The ledger: calls by month, their side tables, daily sums, and the view that users read.

Months are made by those who write calls, ahead of time; the default partition holds what none is there for.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
SUMS = ("calls", "failed_calls", "unpriced_calls", *TOKENS)

VIEW = """
CREATE VIEW ledger AS SELECT
    call.call_id, call.started_at, call.duration_ms, call.ttfb_ms,
    nullif(caller.key_id, '') AS key_id, nullif(caller.key_alias, '') AS key_alias,
    nullif(caller.user_id, '') AS user_id, nullif(caller.team_id, '') AS team_id,
    call.end_user, coalesce(call.tags, '{}') AS tags, call.session_id, call.client_ip,
    nullif(caller.user_agent, '') AS user_agent,
    nullif(route.service, '') AS service, nullif(route.operation, '') AS operation,
    nullif(route.model, '') AS model, nullif(route.billed_model, '') AS billed_model,
    nullif(route.region, '') AS region, nullif(route.identity, '') AS identity,
    call.status, call.error_type, call.upstream_request_id, call.client_invocation_id, call.attempt,
    call.request_bytes, call.response_bytes,
    call.input_tokens, call.output_tokens, call.cache_read_tokens, call.cache_write_tokens,
    call.cache_write_1h_tokens, call.usage_source, call.cost, call.price_status, call.outcome, call.stream,
    call.metadata, nullif(route.tier, '') AS tier, nullif(route.latency, '') AS latency, call.usage_details
FROM ledger_calls call
JOIN ledger_callers caller ON caller.id = call.caller
JOIN ledger_routes route ON route.id = call.route
"""


def upgrade() -> None:
    _side_table("ledger_callers", ("key_id", "key_alias", "user_id", "team_id", "user_agent"))
    _side_table(
        "ledger_routes",
        ("service", "operation", "model", "billed_model", "region", "identity", "tier", "latency"),
    )
    for owner in ("key_id", "user_id", "team_id"):
        op.create_index(f"ix_ledger_callers_{owner}", "ledger_callers", [owner])
    _calls()
    _daily("ledger_daily", ("key_id", "user_id", "team_id", "model"))
    _daily("ledger_daily_labels", ("label", "value", "team_id", "model"))
    op.create_index("ix_ledger_daily_key_id_day", "ledger_daily", ["key_id", "day"])
    op.execute(VIEW)


def downgrade() -> None:
    op.execute("DROP VIEW ledger")
    for table in ("ledger_daily_labels", "ledger_daily", "ledger_calls", "ledger_routes", "ledger_callers"):
        op.drop_table(table)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


def _side_table(name: str, columns: tuple[str, ...]) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Integer, sa.Identity(), nullable=False),
        sa.Column("digest", sa.Uuid, nullable=False),
        sa.Column("last_seen", sa.Date, nullable=False, server_default=sa.func.current_date()),
        *(_text(column) for column in columns),
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sa.UniqueConstraint("digest", name=f"uq_{name}_digest"),
    )


def _calls() -> None:
    op.create_table(
        "ledger_calls",
        sa.Column("call_id", sa.Uuid, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_bytes", sa.BigInteger, nullable=False),
        sa.Column("response_bytes", sa.BigInteger, nullable=False),
        sa.Column("caller", sa.Integer, nullable=False),
        sa.Column("route", sa.Integer, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("ttfb_ms", sa.Integer),
        *(sa.Column(name, sa.Integer) for name in TOKENS),
        sa.Column("attempt", sa.Integer),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("outcome", "price_status", "usage_source")),
        sa.Column("cost", sa.Numeric),
        sa.Column("error_type", sa.Text),
        sa.Column("client_ip", sa.Text),
        sa.Column("upstream_request_id", sa.Text),
        sa.Column("client_invocation_id", sa.Text),
        sa.Column("end_user", sa.Text),
        sa.Column("session_id", sa.Text),
        sa.Column("tags", postgresql.ARRAY(sa.Text)),
        sa.Column("metadata", postgresql.JSONB),
        sa.Column(
            "usage_details",
            postgresql.JSONB,
            comment="units, and usage by model, where a price needs them",
        ),
        sa.PrimaryKeyConstraint("call_id", name="pk_ledger_calls"),
        postgresql_partition_by="RANGE (call_id)",
    )
    op.execute("CREATE TABLE ledger_calls_default PARTITION OF ledger_calls DEFAULT")
    op.create_index("ix_ledger_calls_caller_call_id", "ledger_calls", ["caller", "call_id"])
    for name in ("end_user", "session_id"):
        op.create_index(
            f"ix_ledger_calls_{name}_call_id",
            "ledger_calls",
            [name, "call_id"],
            postgresql_where=sa.text(f"{name} IS NOT NULL"),
        )
    op.create_index(
        "ix_ledger_calls_unpriced",
        "ledger_calls",
        ["call_id"],
        postgresql_where=sa.text("price_status = 'unknown_model'"),
    )


def _daily(name: str, subject: tuple[str, ...]) -> None:
    op.create_table(
        name,
        sa.Column("day", sa.Date, nullable=False),
        *(sa.Column(column, sa.Text, nullable=False) for column in subject),
        *(sa.Column(column, sa.BigInteger, nullable=False, server_default=sa.text("0")) for column in SUMS),
        sa.Column("spend", sa.Numeric, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("day", *subject, name=f"pk_{name}"),
        comment={
            "ledger_daily": "Calls of a day (UTC) by key, its owners and the billed model; '' is nobody, or no model",
            "ledger_daily_labels": "The same by label: tag (a call counts under each of its tags) or customer",
        }[name],
    )
