"""The text of a key is kept nowhere: not as the name of something either, from where it would get into the audit."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sqlalchemy import select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from passthrough.errors import invalid
from passthrough.policy.keys import KEY_PREFIX, SHORTEST_KEY, digest
from passthrough.storage.schema import FormerKey, Key


async def refuse_keys(connection: AsyncConnection, values: Mapping[str, Any], also: Collection[str] = ()) -> None:
    """Refuse values that hold the text of a key: of one that is there, or of which the digest is in `also`."""
    found = {digest(text): name for name, value in values.items() for text in _texts(value)}
    asked = [key_id for key_id in found if key_id not in also]
    known = also if not asked else {*also, *await _known(connection, asked)}
    for key_id, name in found.items():
        if key_id in known:
            raise invalid(
                f"The field '{name}' holds the text of a key, which is kept nowhere: send another.", param=name
            )


async def _known(connection: AsyncConnection, key_ids: list[str]) -> Collection[str]:
    current = select(Key.key_id).where(Key.key_id.in_(key_ids))
    former = select(FormerKey.former_id).where(FormerKey.former_id.in_(key_ids))
    return (await connection.scalars(union_all(current, former))).all()


def _texts(value: Any) -> Iterator[str]:
    """What of a field could be a key, by its look: so nearly no request costs a query."""
    match value:
        case str() if value.startswith(KEY_PREFIX) and len(value) >= SHORTEST_KEY:
            yield value
        case Mapping():
            for pair in value.items():
                for part in pair:
                    yield from _texts(part)
        case list() | tuple():
            for part in value:
                yield from _texts(part)
        case _:
            pass
