"""What can be done with keys; each of these is one transaction, and nobody's HTTP."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.admin import owners
from passthrough.admin.patch import columns, exact, expiry
from passthrough.admin.restrictions import check_restrictions
from passthrough.admin.schemas.keys import GenerateKey, KeyFields, ServiceAccountKey, UpdateKey
from passthrough.admin.schemas.requests import given
from passthrough.admin.secrecy import refuse_keys
from passthrough.errors import Refusal, invalid
from passthrough.policy.keys import digest, display_name, key_id_of, mint
from passthrough.storage.allowances_state import states_of_key
from passthrough.storage.audit import Actor
from passthrough.storage.database import Database, reachable
from passthrough.storage.key_pages import Filter, Page, page_of, rows_of
from passthrough.storage.owners import set_counter
from passthrough.storage.rows import KEYS, TEAMS, USERS, Row, Taken
from passthrough.storage.schema import FormerKey, Key

# Of a request's fields, those that are no columns of a key.
_NO_COLUMNS: Final = frozenset({"key", "key_type", "spend", "new_key", "grace_period"})


@dataclass(frozen=True, slots=True)
class Made:
    """A key that was made: its row, and its text, which is nowhere else."""

    row: Row
    key: str


class Keys:
    """Keys in the database. `clock` gives seconds since 1970; `reserved` are digests that no key may have."""

    def __init__(self, database: Database, clock: Callable[[], float], *, reserved: Collection[str] = ()) -> None:
        self._database = database
        self._clock = clock
        self._reserved = reserved

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    async def generate(self, request: GenerateKey, actor: Actor) -> Made:
        """Make a key; raises a 400 for what cannot be, such as an alias that is taken."""
        async with self._database.begin() as connection:
            return await self.generate_in(connection, request, actor)

    async def generate_for_team(self, request: ServiceAccountKey, actor: Actor) -> Made:
        """As `generate`, for a team alone; a 400 when there is no such team."""
        async with self._database.begin() as connection:
            if not await TEAMS.get(connection, [request.team_id]):
                raise invalid("There is no team of this team_id: create it with /team/new first.", param="team_id")
            return await self.generate_in(connection, request, actor)

    async def generate_in(self, connection: AsyncConnection, request: GenerateKey, actor: Actor) -> Made:
        """As `generate`, in a transaction that makes more than a key."""
        text, key_id = self.new_text(request.key, param="key")
        values = await self.columns(connection, request, {}, actor, key_id=key_id)
        if await connection.scalar(select(FormerKey.key_id).where(FormerKey.former_id == key_id)):
            raise explained(Taken("pk_keys"), values)
        try:
            await KEYS.create(connection, {**values, "key_id": key_id, "key_name": display_name(text)}, actor)
        except Taken as taken:
            raise explained(taken, values) from None
        if isinstance(request.spend, float):
            await set_counter(connection, "key", key_id, exact(request.spend))
        (row,) = await rows_of(connection, [key_id])
        return Made(row, text)

    def new_text(self, wanted: str | None, *, param: str) -> tuple[str, str]:
        """The text of a key, as wanted or a fresh one, and its digest; a 400 for one that is somebody else's."""
        text = wanted or mint()
        key_id = digest(text)
        if key_id in self._reserved:  # it would be taken for the administrator's wherever it is shown
            raise invalid("This text is the master key: choose another, or leave it out.", param=param)
        return text, key_id

    async def update(self, request: UpdateKey, actor: Actor) -> Row:
        """Change what was given of the key that `key` names, or `key_alias` alone; 404 if there is none."""
        async with self._database.begin() as connection:
            key_id = await self._named(connection, request)
            (before,) = await self.locked(connection, [key_id])
            values = await self.columns(connection, request, before, actor)
            if request.key is None:
                values.pop("key_alias", None)
            try:
                await KEYS.change(connection, before, values, actor)
            except Taken as taken:
                raise explained(taken, values) from None
            if isinstance(request.spend, float):
                await set_counter(connection, "key", before["key_id"], exact(request.spend))
            (row,) = await rows_of(connection, [before["key_id"]])
        return row

    async def block(self, reference: str, actor: Actor, *, blocked: bool) -> Row:
        """Block or unblock a key; 404 if there is none."""
        async with self._database.begin() as connection:
            (before,) = await self.locked(connection, [key_id_of(reference)])
            action = "blocked" if blocked else "unblocked"
            await KEYS.change(connection, before, {"blocked": blocked}, actor, action=action)
            (row,) = await rows_of(connection, [before["key_id"]])
        return row

    async def delete(self, references: Sequence[str], aliases: Sequence[str], actor: Actor) -> None:
        """Delete all of the named keys, or, where one does not exist (404), none."""
        async with self._database.begin() as connection:
            ids = [key_id_of(reference) for reference in references]
            ids += [await _id_of_alias(connection, alias) for alias in aliases]
            rows = await self.locked(connection, ids)
            await KEYS.remove(connection, rows, actor)

    async def info(self, references: Sequence[str]) -> list[Row]:
        """The rows of the named keys that exist."""
        async with self._database.begin() as connection:
            return await rows_of(connection, [key_id_of(reference) for reference in references])

    async def left(self, key_id: str) -> list[Row]:
        """What is left of each limit that binds a key, under the names of the API."""
        with reachable():
            async with self._database.engine.connect() as connection:
                return [state.fields() for state in await states_of_key(connection, key_id, self.now())]

    async def reset_spend(self, reference: str, amount: float, actor: Actor) -> tuple[Row, Decimal]:
        """Lower a key's counter to `amount`; gives the row and what the counter was."""
        async with self._database.begin() as connection:
            (before,) = await self.locked(connection, [key_id_of(reference)])
            (row,) = await rows_of(connection, [before["key_id"]])
            spent = row["spend"] or Decimal(0)
            key_id = before["key_id"]
            await owners.lower_counter(connection, "key", KEYS.name, key_id, spent=spent, amount=amount, actor=actor)
            (row,) = await rows_of(connection, [before["key_id"]])
        return row, spent

    async def page(self, which: Filter, page: Page) -> tuple[list[Row], int]:
        """A page of keys, and how many there are in all."""
        async with self._database.begin() as connection:
            return await page_of(connection, which, page, self.now())

    async def locked(self, connection: AsyncConnection, key_ids: Sequence[str]) -> list[Row]:
        """The rows of all these ids, former ones included, locked; 404 if one is missing."""
        former = await connection.execute(
            select(FormerKey.former_id, FormerKey.key_id).where(
                FormerKey.former_id.in_(key_ids), FormerKey.valid_until > self.now()
            )
        )
        current = {row.former_id: row.key_id for row in former}
        wanted = list(dict.fromkeys(current.get(key_id, key_id) for key_id in key_ids))
        rows = await KEYS.get(connection, wanted, lock=True)
        if len(rows) < len(wanted):
            raise unknown_key()
        return [rows[key_id] for key_id in wanted]

    async def _named(self, connection: AsyncConnection, request: UpdateKey) -> str:
        if request.key is not None:
            return key_id_of(request.key)
        if not isinstance(request.key_alias, str):
            raise invalid("Name the key by 'key', or by 'key_alias'.", param="key")
        return await _id_of_alias(connection, request.key_alias)

    async def columns(
        self,
        connection: AsyncConnection,
        request: KeyFields,
        before: Mapping[str, Any],
        actor: Actor,
        *,
        key_id: str = "",
    ) -> dict[str, Any]:
        """The columns that a request sets in a row that was `before`; raises a 400 for what does not go together.

        `key_id` is the digest of the key's new text, if it gets one. An owner that nobody created before is created,
        without limits.
        """
        now = self.now()
        values = columns({name: value for name, value in given(request).items() if name not in _NO_COLUMNS}, now)
        if "duration" in values:
            values["expires"] = expiry(values["duration"], now, param="duration")
        check_restrictions({**before, **values})
        if {"auto_rotate", "rotation_interval"} & values.keys():
            merged = {**before, **values}
            started = merged.get("last_rotation_at") or merged.get("created_at") or now
            interval = merged.get("rotation_interval") if merged.get("auto_rotate") else None
            values["key_rotation_at"] = expiry(interval, started, param="rotation_interval")
        await refuse_keys(connection, values, {key_id, *self._reserved})
        for rows, name in ((USERS, "user_id"), (TEAMS, "team_id")):
            if values.get(name) is not None:
                await rows.ensure(connection, values[name], actor)
        return values


def unknown_key(*names: str) -> Refusal:
    """`names`: by what else a key can be named, where it is looked for."""
    ways = " or ".join(("itself", "its SHA-256", *names))
    return Refusal(404, "", f"There is no such key: name an existing one by {ways}.", param="key")


def status_of(row: Mapping[str, Any], now: datetime) -> str:
    """LiteLLM's word for the state of a key."""
    if row["blocked"]:
        return "revoked"
    ends = [row["expires"], row["key_rotation_at"] if row["auto_rotate"] else None]
    return "expired" if any(end is not None and end <= now for end in ends) else "active"


def explained(taken: Taken, values: Mapping[str, Any]) -> Refusal:
    """Say in LiteLLM's terms which constraint a request broke."""
    match taken.constraint:
        case "uq_keys_key_alias":
            return invalid(f"The key alias {values['key_alias']} is taken: choose another.", param="key_alias")
        case "pk_keys":
            return invalid("This key is there already: choose another.", param="key")
        case "fk_keys_budget_id":
            return invalid("There is no budget of this budget_id: create it with /budget/new first.", param="budget_id")
        case "fk_keys_user_id" | "fk_keys_team_id":
            return Refusal(409, "", "The key's user or team is being deleted: try again.", param=taken.constraint[8:])
        case _:
            raise taken


async def _id_of_alias(connection: AsyncConnection, alias: str) -> str:
    key_id = await connection.scalar(select(Key.key_id).where(Key.key_alias == alias))
    if key_id is None:
        raise Refusal(404, "", "There is no key of this alias: name an existing one.", param="key_alias")
    return str(key_id)
