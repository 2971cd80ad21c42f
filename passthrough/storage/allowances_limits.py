"""Limits out of rows: of a key with its owners, of customers, and those that a whole deployment shares.

Some shared budgets (`/budget/new`) say by their id for whom they are, because there is no other row to say it:
`global` for everybody together, `tag:NAME` for calls with a tag, `default:key`, `default:user`, `default:team`,
`default:team_member` and `default:customer` for each of them that has no value of its own.

`metadata.shadow_limits` of a key, user or team lists fields of it that are to refuse nobody; `*` is all.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Select, Text, cast, func

from passthrough.policy.allowances import Limit, SubjectKind, inherited, limits_of
from passthrough.storage.schema import Budget, Key, Team, TeamMember, User
from passthrough.storage.schema_allowances import LIMITED_CUSTOMER

SHARED: Final = """
SELECT row_to_json(budgets)::text AS budget FROM budgets
WHERE budget_id = 'global' OR budget_id LIKE 'tag:%' OR budget_id LIKE 'default:%'
"""
CUSTOMERS: Final = """
SELECT user_id, row_to_json(customers)::text AS own, row_to_json(budgets)::text AS shared
FROM customers LEFT JOIN budgets USING (budget_id) WHERE user_id = ANY ($1)
"""
ANY_CUSTOMER: Final = f"SELECT EXISTS (SELECT FROM customers WHERE {LIMITED_CUSTOMER}) AS limited"  # noqa: S608  # our own text
_LIMITS: Final = frozenset(
    {
        "max_budget",
        "soft_budget",
        "budget_duration",
        "rpm_limit",
        "tpm_limit",
        "tpd_limit",
        "max_parallel_requests",
        "model_max_budget",
    }
)
_MEMBER: Final = {  # ours: the member's own, and what the team says of each member
    "max_budget": ("max_budget_in_team", "team_member_budget"),
    "budget_duration": ("budget_duration", "team_member_budget_duration"),
    "rpm_limit": ("rpm_limit", "team_member_rpm_limit"),
    "tpm_limit": ("tpm_limit", "team_member_tpm_limit"),
}
_OWNERS: Final[dict[str, Any]] = {"user": User.__table__, "team": Team.__table__, "member": TeamMember.__table__}
_SHARED: Final = {who: Budget.__table__.alias(f"{who}_shared") for who in ("key", "user", "team")}
_REFERRING: Final[dict[str, Any]] = {"key": Key.budget_id, "user": User.budget_id, "team": Team.budget_id}


def with_limits(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Add to a lookup of keys, joined with their owners, what `limits_of_key` reads: rows as JSON text."""
    for who, budget in _SHARED.items():
        query = query.outerjoin(budget, budget.c.budget_id == _REFERRING[who])
    rows = [(f"{who}_row", table) for who, table in _OWNERS.items()]
    rows += [(f"{who}_shared", budget) for who, budget in _SHARED.items()]
    return query.add_columns(*(cast(func.row_to_json(table.table_valued()), Text).label(name) for name, table in rows))


def limits_of_key(row: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Read the limits of a key and of its owners from a row of the lookup."""
    user, team, member = (_object(row[f"{who}_row"]) for who in ("user", "team", "member"))
    found = [*_limits("key", row["key_id"], row, _object(row["key_shared"]))]
    if user:
        found += _limits("user", user["user_id"], user, _object(row["user_shared"]))
    if team:
        found += _limits("team", team["team_id"], team, _object(row["team_shared"]))
    if team and user:
        name = f"{team['team_id']}/{user['user_id']}"
        found += _limits("team_member", name, _member(member, team), None)
    return tuple(found)


def budgets_of_key(row: Mapping[str, Any]) -> Iterator[str]:
    """Name the shared budgets whose change changes the key."""
    for who in _SHARED:
        budget = _object(row[f"{who}_shared"])
        if budget:
            yield budget["budget_id"]


def limits_of_customer(name: str, own: str, shared: str | None) -> tuple[Limit, ...]:
    return _limits("customer", name, _object(own), _object(shared))


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """What budgets with such ids as `global` say. `any` tells whether a call without limits of its own has any."""

    everybody: tuple[Limit, ...] = ()
    tags: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        return bool(self.everybody or self.tags or self.defaults)

    def of(self, limits: Sequence[Limit], subjects: Iterable[tuple[SubjectKind, str]]) -> Iterator[Limit]:
        """Yield what applies to a call besides `limits`, those of its subjects."""
        yield from self.everybody
        set_already = {(limit.subject, limit.field) for limit in limits}
        for kind, name in subjects:
            if kind == "tag":
                yield from self.tags.get(name, ())
            elif kind in self.defaults:
                for limit in limits_of(kind, name, self.defaults[kind]):
                    if (kind, limit.field) not in set_already:
                        yield limit


def shared_limits(budgets: Iterable[str]) -> SharedLimits:
    """Read the budgets that `SHARED` finds."""
    everybody: tuple[Limit, ...] = ()
    tags, defaults = {}, {}
    for text in budgets:
        budget = _object(text)
        kind, _, name = budget["budget_id"].partition(":")
        if kind == "global":
            everybody = limits_of("global", "", budget)
        elif kind == "tag":
            tags[name] = limits_of("tag", name, budget)
        else:
            defaults[name] = budget
    return SharedLimits(everybody, tags, defaults)


def _limits(
    kind: SubjectKind, name: str, own: Mapping[str, Any], shared: Mapping[str, Any] | None
) -> tuple[Limit, ...]:
    budget = {field: value for field, value in (shared or {}).items() if field in _LIMITS}
    fields = inherited(own, budget)
    fields["shadow_limits"] = (own.get("metadata") or {}).get("shadow_limits")
    return limits_of(kind, name, fields)


def _member(member: Mapping[str, Any], team: Mapping[str, Any]) -> dict[str, Any]:
    fields = {}
    for ours, (own, theirs) in _MEMBER.items():
        value = member.get(own) if member else None
        fields[ours] = team[theirs] if value is None else value
    return fields


def _object(text: str | None) -> dict[str, Any]:
    """A row as PostgreSQL writes it; amounts stay the decimals that they are."""
    row: dict[str, Any] = json.loads(text, parse_float=Decimal) if text else {}
    return row
