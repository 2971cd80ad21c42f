"""The tables of keys, their owners, what they spent and who changed them.

Columns bear LiteLLM's names, because that is what scripts read. What a call moves (spend) stands apart from what
an administrator sets, in narrow rows: a busy key's counter must not rewrite its wide row and every index on it,
nor wake each worker's key cache.

Money is exact (`numeric`), times are `timestamptz`. Triggers of migration 0001 announce every change of a table
marked *announced* on the channel `CHANGES`, in the transaction that makes it.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Numeric,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CHANGES: Final = "passthrough_changes"
"""The NOTIFY channel; a payload is `key:ID`, `user:ID`, `team:ID`, `customer:ID` or `budget:ID`."""

Time = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Money = Annotated[Decimal, mapped_column(Numeric)]
Words = Annotated[list[str], mapped_column(ARRAY(Text), server_default=text("'{}'"))]
Json = Annotated[dict[str, Any], mapped_column(JSONB, server_default=text("'{}'"))]
JsonList = Annotated[list[Any], mapped_column(JSONB, server_default=text("'[]'"))]


class Base(DeclarativeBase):
    """Names every constraint, so that a later migration can take hold of it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, int: BigInteger}  # noqa: RUF012  # SQLAlchemy's own convention


class Stamped:
    """Who made and last changed a row, and when."""

    created_at: Mapped[Time] = mapped_column(server_default=func.now())
    created_by: Mapped[str] = mapped_column(server_default="")
    updated_at: Mapped[Time] = mapped_column(server_default=func.now())
    updated_by: Mapped[str] = mapped_column(server_default="")


class Limited:
    """Limits of a key, user, team, customer or shared budget; None is no limit. Stored here, enforced elsewhere.

    Rates are per minute (`rpm`, `tpm`) or day (`tpd`), budgets in USD per `budget_duration`, whose current
    window ends at `budget_reset_at`.
    """

    max_budget: Mapped[Money | None]
    soft_budget: Mapped[Money | None]
    budget_duration: Mapped[str | None]
    budget_reset_at: Mapped[Time | None]
    rpm_limit: Mapped[int | None]
    tpm_limit: Mapped[int | None]
    tpd_limit: Mapped[int | None]
    max_parallel_requests: Mapped[int | None]
    model_max_budget: Mapped[Json]


class Owned:
    """What a key, user or team has beyond its limits."""

    models: Mapped[Words]
    metadata_: Mapped[Json] = mapped_column("metadata")
    blocked: Mapped[bool] = mapped_column(server_default=text("false"))
    budget_limits: Mapped[JsonList]
    model_rpm_limit: Mapped[Json]
    model_tpm_limit: Mapped[Json]


class Budget(Limited, Stamped, Base):
    """A budget that several subjects refer to by id; announced."""

    __tablename__ = "budgets"

    budget_id: Mapped[str] = mapped_column(primary_key=True)


class User(Limited, Owned, Stamped, Base):
    """Somebody who owns keys; announced."""

    __tablename__ = "users"
    __table_args__ = (Index("ix_users_created_at", "created_at", "user_id"),)

    user_id: Mapped[str] = mapped_column(primary_key=True)
    user_alias: Mapped[str | None]
    user_email: Mapped[str | None]
    user_role: Mapped[str | None]
    budget_id: Mapped[str | None] = mapped_column(ForeignKey(Budget.budget_id), index=True)


class Team(Limited, Owned, Stamped, Base):
    """A group that shares lists and limits; announced."""

    __tablename__ = "teams"
    __table_args__ = (Index("ix_teams_created_at", "created_at", "team_id"),)

    team_id: Mapped[str] = mapped_column(primary_key=True)
    team_alias: Mapped[str | None] = mapped_column(index=True)
    model_aliases: Mapped[Json]
    tags: Mapped[Words]
    budget_id: Mapped[str | None] = mapped_column(ForeignKey(Budget.budget_id), index=True)
    team_member_budget: Mapped[Money | None]
    team_member_budget_duration: Mapped[str | None]
    team_member_rpm_limit: Mapped[int | None]
    team_member_tpm_limit: Mapped[int | None]


class TeamMember(Base):
    """A user in a team, and what holds for them there alone; announced as a change of the team."""

    __tablename__ = "team_members"

    team_id: Mapped[str] = mapped_column(ForeignKey(Team.team_id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey(User.user_id, ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(server_default="user")
    allowed_models: Mapped[Words]
    max_budget_in_team: Mapped[Money | None]
    budget_duration: Mapped[str | None]
    budget_reset_at: Mapped[Time | None]
    rpm_limit: Mapped[int | None]
    tpm_limit: Mapped[int | None]


class Customer(Limited, Stamped, Base):
    """An end user that calls name by a header; announced."""

    __tablename__ = "customers"
    __table_args__ = (
        Index("ix_customers_created_at", "created_at", "user_id"),
        Index(
            "ix_customers_restricted",
            "user_id",
            postgresql_where=text("blocked = true OR cardinality(models) > 0"),
        ),
    )

    user_id: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str | None]
    blocked: Mapped[bool] = mapped_column(server_default=text("false"))
    models: Mapped[Words]
    allowed_model_region: Mapped[str | None]
    budget_id: Mapped[str | None] = mapped_column(ForeignKey(Budget.budget_id), index=True)


class Key(Limited, Owned, Stamped, Base):
    """A virtual key, under the SHA-256 of its text, which is kept nowhere; announced.

    The pairs of indexes serve the pages of `/key/list` in each order that it offers; `ix_keys_status`, whose few
    distinct values take some seven bytes a key, counts them. The last one finds a piece of an alias (a search term
    of three characters or more is a set of three-letter groups).
    """

    __tablename__ = "keys"
    __table_args__ = (
        CheckConstraint("key_id ~ '^[0-9a-f]{64}$'", name="key_id_is_a_digest"),
        Index("ix_keys_created_at", "created_at", "key_id"),
        Index("ix_keys_updated_at", "updated_at", "key_id"),
        Index("ix_keys_expires", "expires", "key_id"),
        Index("ix_keys_max_budget", "max_budget", "key_id"),
        Index("ix_keys_status", "blocked", "expires"),
        Index("ix_keys_user_id", "user_id", "created_at", "key_id"),
        Index("ix_keys_team_id", "team_id", "created_at", "key_id"),
        Index("ix_keys_alias_trigrams", text("passthrough_trigrams(key_alias)"), postgresql_using="gin"),
    )

    key_id: Mapped[str] = mapped_column(primary_key=True)
    key_name: Mapped[str]
    key_alias: Mapped[str | None] = mapped_column(unique=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey(User.user_id))
    team_id: Mapped[str | None] = mapped_column(ForeignKey(Team.team_id))
    aliases: Mapped[Json]
    allowed_routes: Mapped[Words]
    allowed_regions: Mapped[Words]
    region: Mapped[str | None]
    tags: Mapped[Words]
    enforced_params: Mapped[Words]
    expires: Mapped[Time | None]
    duration: Mapped[str | None]
    budget_id: Mapped[str | None] = mapped_column(ForeignKey(Budget.budget_id), index=True)
    temp_budget_increase: Mapped[Money | None]
    temp_budget_expiry: Mapped[Time | None]
    auto_rotate: Mapped[bool] = mapped_column(server_default=text("false"))
    rotation_interval: Mapped[str | None]
    rotation_count: Mapped[int] = mapped_column(server_default=text("0"))
    last_rotation_at: Mapped[Time | None]
    key_rotation_at: Mapped[Time | None]


class FormerKey(Base):
    """A digest that a rotated key had before; announced as a change of that digest.

    It opens the key until `valid_until`, and for ever tells a late ledger row whose it is.
    """

    __tablename__ = "former_keys"

    former_id: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey(Key.key_id, onupdate="CASCADE", ondelete="CASCADE"), index=True)
    valid_until: Mapped[Time]


class Spend(Base):
    """What a subject has spent, USD: `spend` since its counter was last reset, `total_spend` ever.

    `kind` is `key`, `user`, `team`, `customer`, `team_member` or `tag`; a team member's `subject` is
    `TEAM_ID/USER_ID`. The ledger moves these in the transaction that inserts its rows.
    """

    __tablename__ = "spend"
    __table_args__ = (Index("ix_spend_kind_spend", "kind", "spend", "subject"),)

    kind: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    spend: Mapped[Money] = mapped_column(server_default=text("0"))
    total_spend: Mapped[Money] = mapped_column(server_default=text("0"))
    last_active: Mapped[Time | None]


class Audit(Base):
    """One administrative change: who, from where, what, before and after. Never key material."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_updated_at", "updated_at", "id"),
        Index("ix_audit_object_id", "object_id", "updated_at", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    updated_at: Mapped[Time] = mapped_column(server_default=func.now())
    changed_by: Mapped[str]
    client_ip: Mapped[str | None]
    action: Mapped[str]
    table_name: Mapped[str]
    object_id: Mapped[str]
    before_value: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    updated_values: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
