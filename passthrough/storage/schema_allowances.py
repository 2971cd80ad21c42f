"""The tables of allowances: what was used, who holds how much, and of which crossings somebody is to be told.

All that changes an allowance or its leases happens in the functions of migration 0003, under a lock on the
allowance's row, and rows are locked in the order of (subject, name, kind, period, model), byte by byte.

Always true, for each allowance: `held` is the sum of `granted - consumed` over its leases (where that is
positive), and `used + held + lost` has never been raised above the limit by a grant. `used` and `lost` are
picodollars for money, with as many decimals as costs have; the sum of `used` is the ledger's.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from passthrough.storage.schema import Base, Customer

# Few of them, whoever calls: a partial index tells whether there is one at all.
LIMITED_CUSTOMER = (
    "num_nonnulls(budget_id, max_budget, soft_budget, rpm_limit, tpm_limit, tpd_limit, max_parallel_requests) > 0 "
    "OR model_max_budget <> '{}'"
)
Index("ix_customers_limited", Customer.user_id, postgresql_where=text(LIMITED_CUSTOMER))

_ZERO = text("0")


def _amount(name: str) -> Column[int]:
    return Column(name, Numeric, nullable=False, server_default=_ZERO)


allowances = Table(
    "allowances",
    Base.metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("subject", "name")),
    Column("kind", SmallInteger, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("period", "model")),
    Column("epoch", BigInteger, nullable=False, server_default=_ZERO),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("ends_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    _amount("used"),
    _amount("held"),
    _amount("lost"),
    Column("most", Numeric, nullable=False),
    Column("soft", Numeric),
    Column("warned", SmallInteger, nullable=False, server_default=_ZERO),
    UniqueConstraint("subject", "name", "kind", "period", "model", name="uq_allowances_account"),
    comment="What was used of each allowance in its current window (number: epoch), by all workers together",
    # rows are updated often, and none of what changes is indexed: room for versions on the same page
    postgresql_with={"fillfactor": 60},
)
Index("ix_allowances_created_at", allowances.c.created_at, postgresql_where=text("kind = 3"))

allowance_holders = Table(
    "allowance_holders",
    Base.metadata,
    Column("holder", Text, primary_key=True),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    comment="Workers; the name is that of the journal which has the calls that they made",
)

allowance_leases = Table(
    "allowance_leases",
    Base.metadata,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("allowance", BigInteger, ForeignKey(allowances.c.id, ondelete="CASCADE"), nullable=False),
    Column("holder", Text, ForeignKey(allowance_holders.c.holder), nullable=False),
    _amount("granted"),
    _amount("consumed"),
    _amount("free"),
    UniqueConstraint("allowance", "holder"),
    comment="granted: in all, less what was given back; consumed: known to be used (money: by the ledger); "
    "free: as of the last report",
    postgresql_with={"fillfactor": 60},
)
Index("ix_allowance_leases_holder", allowance_leases.c.holder)

allowance_events = Table(
    "allowance_events",
    Base.metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    *(Column(name, Text, nullable=False) for name in ("subject", "name")),
    Column("kind", SmallInteger, nullable=False),
    *(Column(name, Text, nullable=False) for name in ("period", "model", "threshold")),
    Column("used", Numeric, nullable=False),
    Column("most", Numeric, nullable=False),
    Column("ends_at", DateTime(timezone=True)),
    Column("told_at", DateTime(timezone=True)),
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("tries", Integer, nullable=False, server_default=_ZERO),
    Column("done_at", DateTime(timezone=True)),
    comment="Thresholds that were crossed: logged once (told_at), and sent until a webhook took it (done_at)",
)
Index("ix_allowance_events_due_at", allowance_events.c.due_at, postgresql_where=text("done_at IS NULL"))
