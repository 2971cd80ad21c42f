"""Keys, their owners, what they spent, who changed them; and the word of every change.

The previous version of the code is still running while a migration does, and after it. So: expand, backfill,
contract, in three releases. Nothing of passthrough is imported here, because it changes and this must not.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Announces a row's id in the transaction that changes it; the old id too, where an update moved it.
_NOTIFY = """
CREATE FUNCTION passthrough_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('passthrough_changes', TG_ARGV[0] || ':' || (to_jsonb(OLD) ->> TG_ARGV[1]));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('passthrough_changes', TG_ARGV[0] || ':' || (to_jsonb(NEW) ->> TG_ARGV[1]));
    END IF;
    RETURN NULL;
END $$
"""
_ANNOUNCED = (
    ("keys", "key", "key_id"),
    ("former_keys", "key", "former_id"),
    ("users", "user", "user_id"),
    ("teams", "team", "team_id"),
    ("team_members", "team", "team_id"),
    ("customers", "customer", "user_id"),
    ("budgets", "budget", "budget_id"),
)
# pg_trgm in miniature: an extension would have to be installed, and may be forbidden. Two blanks before the
# word let a term of one or two letters find its beginning.
_TRIGRAMS = """
CREATE FUNCTION passthrough_trigrams(word text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_agg(DISTINCT substr('  ' || lower(word), n, 3)) FROM generate_series(1, length(word)) AS n
$$
"""
_SEARCH_TRIGRAMS = """
CREATE FUNCTION passthrough_search_trigrams(term text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN length(term) < 3 THEN passthrough_trigrams(term) ELSE
        (SELECT array_agg(DISTINCT substr(lower(term), n, 3)) FROM generate_series(1, length(term) - 2) AS n)
    END
$$
"""


def _word(name: str, *constraints: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), *constraints, **options)


def _words(name: str) -> sa.Column[Any]:
    return sa.Column(name, ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False)


def _json(name: str, empty: str = "{}") -> sa.Column[Any]:
    return sa.Column(name, JSONB(), server_default=sa.text(f"'{empty}'"), nullable=False)


def _flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger())


def _money(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Numeric())


def _time(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def _stamps() -> list[sa.Column[Any]]:
    return [
        _time("created_at", server_default=sa.text("now()"), nullable=False),
        _word("created_by", server_default="", nullable=False),
        _time("updated_at", server_default=sa.text("now()"), nullable=False),
        _word("updated_by", server_default="", nullable=False),
    ]


def _limits() -> list[sa.Column[Any]]:
    return [
        _money("max_budget"),
        _money("soft_budget"),
        _word("budget_duration"),
        _time("budget_reset_at"),
        _number("rpm_limit"),
        _number("tpm_limit"),
        _number("tpd_limit"),
        _number("max_parallel_requests"),
        _json("model_max_budget"),
    ]


def _owned() -> list[sa.Column[Any]]:
    return [
        _words("models"),
        _json("metadata"),
        _flag("blocked"),
        _json("budget_limits", "[]"),
        _json("model_rpm_limit"),
        _json("model_tpm_limit"),
    ]


def _budget(table: str) -> sa.Column[Any]:
    return _word("budget_id", sa.ForeignKey("budgets.budget_id", name=f"fk_{table}_budget_id"))


def _table(name: str, key: tuple[str, ...], columns: list[Any]) -> None:
    op.create_table(name, *columns, sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"))


def upgrade() -> None:
    for function in (_NOTIFY, _TRIGRAMS, _SEARCH_TRIGRAMS):
        op.execute(function)
    _create_owners()
    _create_team_members()
    _create_keys()
    _create_accounts()
    for table, kind, column in _ANNOUNCED:
        op.execute(
            f"CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION passthrough_notify('{kind}', '{column}')"
        )


def _create_owners() -> None:
    _table("budgets", ("budget_id",), [_word("budget_id"), *_limits(), *_stamps()])
    user = [_word("user_id"), _word("user_alias"), _word("user_email"), _word("user_role"), _budget("users")]
    _table("users", ("user_id",), [*user, *_limits(), *_owned(), *_stamps()])
    team = [_word("team_id"), _word("team_alias"), _json("model_aliases"), _words("tags"), _budget("teams")]
    member = [
        _money("team_member_budget"),
        _word("team_member_budget_duration"),
        _number("team_member_rpm_limit"),
        _number("team_member_tpm_limit"),
    ]
    _table("teams", ("team_id",), [*team, *member, *_limits(), *_owned(), *_stamps()])
    customer = [_word("user_id"), _word("alias"), _flag("blocked"), _words("models"), _word("allowed_model_region")]
    _table("customers", ("user_id",), [*customer, _budget("customers"), *_limits(), *_stamps()])
    op.create_index("ix_teams_team_alias", "teams", ["team_alias"])
    op.create_index(
        "ix_customers_restricted",
        "customers",
        ["user_id"],
        postgresql_where=sa.text("blocked = true OR cardinality(models) > 0"),
    )
    for table, column in (("users", "user_id"), ("teams", "team_id"), ("customers", "user_id")):
        op.create_index(f"ix_{table}_budget_id", table, ["budget_id"])
        op.create_index(f"ix_{table}_created_at", table, ["created_at", column])


def _create_team_members() -> None:
    columns = [
        _word("team_id", sa.ForeignKey("teams.team_id", name="fk_team_members_team_id", ondelete="CASCADE")),
        _word("user_id", sa.ForeignKey("users.user_id", name="fk_team_members_user_id", ondelete="CASCADE")),
        _word("role", server_default="user", nullable=False),
        _words("allowed_models"),
        _money("max_budget_in_team"),
        _word("budget_duration"),
        _time("budget_reset_at"),
        _number("rpm_limit"),
        _number("tpm_limit"),
    ]
    _table("team_members", ("team_id", "user_id"), columns)
    op.create_index("ix_team_members_user_id", "team_members", ["user_id"])


def _create_keys() -> None:
    columns = [
        _word("key_id"),
        _word("key_name", nullable=False),
        _word("key_alias"),
        _word("user_id", sa.ForeignKey("users.user_id", name="fk_keys_user_id")),
        _word("team_id", sa.ForeignKey("teams.team_id", name="fk_keys_team_id")),
        _json("aliases"),
        _words("allowed_routes"),
        _words("allowed_regions"),
        _word("region"),
        _words("tags"),
        _words("enforced_params"),
        _time("expires"),
        _word("duration"),
        _budget("keys"),
        _money("temp_budget_increase"),
        _time("temp_budget_expiry"),
        _flag("auto_rotate"),
        _word("rotation_interval"),
        sa.Column("rotation_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _time("last_rotation_at"),
        _time("key_rotation_at"),
        *_limits(),
        *_owned(),
        *_stamps(),
        sa.UniqueConstraint("key_alias", name="uq_keys_key_alias"),
        sa.CheckConstraint("key_id ~ '^[0-9a-f]{64}$'", name="ck_keys_key_id_is_a_digest"),
    ]
    _table("keys", ("key_id",), columns)
    op.create_index("ix_keys_budget_id", "keys", ["budget_id"])
    for column in ("created_at", "updated_at", "expires", "max_budget"):
        op.create_index(f"ix_keys_{column}", "keys", [column, "key_id"])
    for column in ("user_id", "team_id"):
        op.create_index(f"ix_keys_{column}", "keys", [column, "created_at", "key_id"])
    op.create_index("ix_keys_status", "keys", ["blocked", "expires"])
    op.create_index(
        "ix_keys_alias_trigrams", "keys", [sa.text("passthrough_trigrams(key_alias)")], postgresql_using="gin"
    )


def _create_accounts() -> None:
    reference = sa.ForeignKey("keys.key_id", name="fk_former_keys_key_id", onupdate="CASCADE", ondelete="CASCADE")
    former = [_word("former_id"), _word("key_id", reference, nullable=False), _time("valid_until", nullable=False)]
    _table("former_keys", ("former_id",), former)
    op.create_index("ix_former_keys_key_id", "former_keys", ["key_id"])
    spent = [
        sa.Column(name, sa.Numeric(), server_default=sa.text("0"), nullable=False) for name in ("spend", "total_spend")
    ]
    _table("spend", ("kind", "subject"), [_word("kind"), _word("subject"), *spent, _time("last_active")])
    op.create_index("ix_spend_kind_spend", "spend", ["kind", "spend", "subject"])
    audit = [
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True)),
        _time("updated_at", server_default=sa.text("now()"), nullable=False),
        *(_word(name, nullable=False) for name in ("changed_by", "action", "table_name", "object_id")),
        _word("client_ip"),
        sa.Column("before_value", JSONB()),
        sa.Column("updated_values", JSONB()),
    ]
    _table("audit", ("id",), audit)
    op.create_index("ix_audit_updated_at", "audit", ["updated_at", "id"])
    op.create_index("ix_audit_object_id", "audit", ["object_id", "updated_at", "id"])


def downgrade() -> None:
    tables = ("audit", "spend", "former_keys", "keys", "team_members", "customers", "teams", "users", "budgets")
    for table in tables:
        op.drop_table(table)
    for function in ("passthrough_search_trigrams", "passthrough_trigrams", "passthrough_notify"):
        op.execute(f"DROP FUNCTION {function}")
