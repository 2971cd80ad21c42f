"""The directory of keys: a digest in, a `VirtualKey` with its owners' restrictions out, without a query mostly."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from sqlalchemy import ARRAY, Text, bindparam, func, select

from passthrough.policy.keys import SANDBOX, VirtualKey
from passthrough.storage.allowances_limits import budgets_of_key, limits_of_key, with_limits
from passthrough.storage.changes import Changes
from passthrough.storage.customers import RestrictedCustomers
from passthrough.storage.database import Database, reachable
from passthrough.storage.directory import Counts, Directory, Found
from passthrough.storage.schema import FormerKey, Key, Team, TeamMember, User

_LOOKUP_SECONDS: Final = 2.0  # a caller waits for this; a PostgreSQL that is slower counts as away


class KeyDirectory:
    """Keys by the digest of their text; open it with `key_directory`.

    `cached` gives a key that is known to be right at this moment, `customer` an end user who is restricted.
    """

    def __init__(self, directory: Directory[VirtualKey], customers: RestrictedCustomers, changes: Changes) -> None:
        self._directory = directory
        self._customers = customers
        self._changes = changes
        # bound here: the path of a call pays for one lookup, not for two calls
        self.cached = directory.cached
        self.customer = customers.get

    async def find(self, key_id: str) -> VirtualKey | None:
        """None when there is no such key; raises `Unavailable` when that cannot be found out at the moment."""
        return await self._directory.find(key_id)

    async def listening(self) -> None:
        """Wait until changes are heard and, with that, keys are cached."""
        await self._changes.listening.wait()

    async def caught_up(self) -> None:
        """Return when every change that was committed before is obeyed here, or soon when PostgreSQL is away."""
        await self._changes.caught_up()

    def problem(self) -> str | None:
        """Why no key can be known here yet; None once PostgreSQL has been reached, whether it is there now or not."""
        return None if self._customers.read.is_set() else "PostgreSQL has not been reached yet"

    @property
    def counts(self) -> Counts:
        return self._directory.counts

    def __len__(self) -> int:
        return len(self._directory)


@asynccontextmanager
async def key_directory(
    database: Database,
    *,
    outage_seconds: float = 3600.0,
    size: int = 20_000,
    sandbox: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[KeyDirectory]:
    """Own a directory and its listening connection.

    `size` bounds the cached keys; `outage_seconds` is how long known keys are served while PostgreSQL is away.
    `sandbox`: the keys that open nothing but the sandbox are known here; elsewhere they do not exist.
    """
    loader = _Loader(database, sandbox=sandbox)
    directory = Directory("key", loader.load, clock=clock, outage_seconds=outage_seconds, size=size)
    customers = RestrictedCustomers(database)
    changes = Changes(database, directory, customers)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run()) for run in (changes.run, directory.run, customers.run)]
        try:
            # else the first calls of a worker that name an end user would be told to come again
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOKUP_SECONDS):
                    await customers.read.wait()
            yield KeyDirectory(directory, customers, changes)
        finally:
            for task in tasks:
                task.cancel()


class _Loader:
    def __init__(self, database: Database, *, sandbox: bool) -> None:
        self._database = database
        self._sandbox = sandbox

    async def load(self, key_ids: list[str]) -> Mapping[str, Found[VirtualKey]]:
        with reachable():
            async with asyncio.timeout(_LOOKUP_SECONDS), self._database.engine.connect() as connection:
                rows = (await connection.execute(LOOKUP, {"key_ids": key_ids})).mappings().all()
        return {row["asked"]: _found(dict(row)) for row in rows if self._sandbox or not row["metadata"].get(SANDBOX)}


def _lookup() -> Any:  # sqlalchemy's type of a select of forty columns helps nobody
    asked = func.unnest(bindparam("key_ids", type_=ARRAY(Text))).table_valued("asked", name="wanted").render_derived()
    former = FormerKey.__table__
    own = func.coalesce(former.c.key_id, asked.c.asked)
    columns: list[Any] = [
        asked.c.asked,
        former.c.valid_until,
        *Key.__table__.c,
        User.models.label("user_models"),
        User.blocked.label("user_blocked"),
        Team.models.label("team_models"),
        Team.blocked.label("team_blocked"),
        Team.model_aliases,
        Team.tags.label("team_tags"),
        TeamMember.allowed_models,
    ]
    return with_limits(
        select(*columns)
        .select_from(asked)
        .outerjoin(former, former.c.former_id == asked.c.asked)
        .join(Key, Key.key_id == own)
        .outerjoin(User, User.user_id == Key.user_id)
        .outerjoin(Team, Team.team_id == Key.team_id)
        .outerjoin(TeamMember, (TeamMember.team_id == Key.team_id) & (TeamMember.user_id == Key.user_id))
    )


LOOKUP: Final = _lookup()


def _found(row: Mapping[str, Any]) -> Found[VirtualKey]:
    key = virtual_key(row)
    subjects = {f"key:{row['asked']}", f"key:{key.key_id}"}
    if key.user_id is not None:
        subjects.add(f"user:{key.user_id}")
    if key.team_id is not None:
        subjects.add(f"team:{key.team_id}")
    subjects.update(f"budget:{budget_id}" for budget_id in budgets_of_key(row))
    return Found(key, tuple(subjects), hidden=len(repr(key.metadata)))


def virtual_key(row: Mapping[str, Any]) -> VirtualKey:
    """Merge a key's row with what its user, team and membership restrict."""
    blocked_by = next((who for who in ("", "user_", "team_") if row[f"{who}blocked"]), None)
    rotation = row["key_rotation_at"] if row["auto_rotate"] else None
    end = min((at for at in (row["expires"], rotation, row["valid_until"]) if at is not None), default=None)
    model_lists = _model_lists(row)
    return VirtualKey(
        key_id=row["key_id"],
        key_name=row["key_name"],
        key_alias=row["key_alias"],
        user_id=row["user_id"],
        team_id=row["team_id"],
        models=tuple(row["models"]) if model_lists else (),  # LiteLLM's words for "all" are no models
        model_lists=model_lists,
        aliases={**(row["model_aliases"] or {}), **row["aliases"]},
        allowed_routes=tuple(row["allowed_routes"]),
        allowed_regions=tuple(row["allowed_regions"]),
        region=row["region"],
        tags=tuple(dict.fromkeys((*row["tags"], *(row["team_tags"] or ())))),
        metadata=row["metadata"],
        limits=limits_of_key(row),
        needs_end_user="user" in row["enforced_params"],
        expires_at=end.timestamp() if end else None,
        rotation_due=end is not None and end == rotation,
        blocked=blocked_by is not None,
        blocked_by="" if blocked_by is None else (blocked_by[:-1] or "virtual key"),
    )


def _model_lists(row: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    key, user, team, member = (
        tuple(row[name] or ()) for name in ("models", "user_models", "team_models", "allowed_models")
    )
    if "all-team-models" in key:
        key = ()  # LiteLLM's word for "my team's list decides"
    if row["team_id"] is not None and "no-default-models" in user:
        user = ()  # LiteLLM's word for "nothing outside of teams"; without a team it matches nothing
    lists = (_patterns(models) for models in (key, user, team, member))
    return tuple(dict.fromkeys(models for models in lists if models))


def _patterns(models: tuple[str, ...]) -> tuple[str, ...]:
    """LiteLLM's patterns in our words: its word for everything, and its provider's prefix, which ids lack."""
    if "all-proxy-models" in models:
        return ()
    return tuple(model.removeprefix("bedrock/") for model in models)
