"""A key's text is replaced, and its row, its counters and its history stay.

The former text may go on opening the key for a grace period, so that its holders can change over one by one.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.admin.keys import Keys, Made, explained
from passthrough.admin.patch import exact, expiry
from passthrough.admin.schemas.keys import RegenerateKey
from passthrough.policy.keys import REPLACED, display_name, key_id_of
from passthrough.storage.audit import Actor
from passthrough.storage.database import Database
from passthrough.storage.key_pages import rows_of
from passthrough.storage.owners import set_counter
from passthrough.storage.rows import KEYS, Row, Taken
from passthrough.storage.schema import FormerKey, Spend

_AT_ONCE: Final = datetime.fromtimestamp(REPLACED, UTC)


class Rotation:
    """Gives keys new texts; the rest of a request is an update like any other."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def rotate(self, reference: str, request: RegenerateKey, actor: Actor) -> Made:
        """Replace a key's text by `new_key` or a fresh one; 404 if there is no such key."""
        text, key_id = self._keys.new_text(request.new_key, param="new_key")
        now = self._keys.now()
        former_until = expiry(request.grace_period, now, param="grace_period") or _AT_ONCE
        async with self._database.begin() as connection:
            (before,) = await self._keys.locked(connection, [key_id_of(reference)])
            values = await self._keys.columns(connection, request, before, actor, key_id=key_id)
            values |= self._rotated(before, values, now)
            await _check_free(connection, key_id, before)
            try:
                identity = {"key_id": key_id, "key_name": display_name(text)}
                await KEYS.change(connection, before, {**values, **identity}, actor, action="rotated")
            except Taken as taken:
                raise explained(taken, values) from None
            await _move(connection, before["key_id"], key_id, former_until)
            if isinstance(request.spend, float):
                await set_counter(connection, "key", key_id, exact(request.spend))
            (row,) = await rows_of(connection, [key_id])
        return Made(row, text)

    def _rotated(self, before: Row, values: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        merged = {**before, **values}
        interval = merged["rotation_interval"] if merged["auto_rotate"] else None
        return {
            "rotation_count": before["rotation_count"] + 1,
            "last_rotation_at": now,
            "key_rotation_at": expiry(interval, now, param="rotation_interval"),
        }


async def _check_free(connection: AsyncConnection, key_id: str, before: Row) -> None:
    """A text that another key had may not be used again: its late ledger rows would be this key's."""
    holder = await connection.scalar(select(FormerKey.key_id).where(FormerKey.former_id == key_id))
    if key_id == before["key_id"] or holder not in {None, before["key_id"]}:
        raise explained(Taken("pk_keys"), {})


async def _move(connection: AsyncConnection, former_id: str, key_id: str, until: datetime) -> None:
    """Earlier texts lead to the new row by their foreign key; this one and the counter follow here."""
    await connection.execute(delete(FormerKey).where(FormerKey.former_id == key_id))
    await connection.execute(insert(FormerKey).values(former_id=former_id, key_id=key_id, valid_until=until))
    counter = Spend.kind == "key"
    await connection.execute(delete(Spend).where(counter, Spend.subject == key_id))
    await connection.execute(update(Spend).where(counter, Spend.subject == former_id).values(subject=key_id))
