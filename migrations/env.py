"""Runs the migrations on the connection that `passthrough migrate` or a test hands over."""

from alembic import context
from sqlalchemy import Connection

from passthrough.storage import schema_allowances, schema_ledger


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=schema_allowances.Base.metadata,
        transaction_per_migration=True,
        compare_server_default=True,
        include_name=lambda name, kind, _: kind != "table" or not schema_ledger.is_month(name or ""),
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
