"""Ids of the side tables' rows: what callers and routes have in common is stored once.

Each shipper remembers the ids that it has met; only the first meeting of a day asks the database, which also
tells `prune` that the row is still in use.
"""

import hashlib
from collections.abc import Iterable
from datetime import date
from uuid import UUID

import asyncpg

_MOST_REMEMBERED = 50_000  # about 20 MB; a flood of made-up model names must not fill the memory

Values = tuple[str, ...]


class SideTable:
    """One side table; `columns` in the order of the values."""

    def __init__(self, table: str, columns: tuple[str, ...]) -> None:
        self._ids: dict[Values, int] = {}
        self._day: date | None = None
        names = ", ".join(columns)
        arrays = ", ".join(f"${number}::text[]" for number in range(3, len(columns) + 3))
        self._find = (
            f"INSERT INTO {table} AS side (last_seen, digest, {names}) "  # noqa: S608  # our own names
            f"SELECT $1::date, * FROM unnest($2::uuid[], {arrays}) ORDER BY 2 "
            "ON CONFLICT (digest) DO UPDATE SET last_seen = greatest(side.last_seen, excluded.last_seen) "
            "RETURNING digest, id"
        )

    async def ids(self, connection: asyncpg.Connection, wanted: Iterable[Values], today: date) -> dict[Values, int]:
        """Return a mapping that has the id of each of the wanted rows; makes those that are new.

        Must run outside of a transaction that may be rolled back: the ids are remembered.
        """
        if self._day != today or len(self._ids) > _MOST_REMEMBERED:
            self._ids, self._day = {}, today
        missing = {_digest(values): values for values in wanted if values not in self._ids}
        if missing:
            columns = zip(*missing.values(), strict=True)
            rows = await connection.fetch(self._find, today, list(missing), *(list(column) for column in columns))
            for row in rows:
                self._ids[missing[row["digest"]]] = row["id"]
        return self._ids


def _digest(values: Values) -> UUID:
    # Lengths keep ("a", "bc") apart from ("ab", "c").
    text = "".join(f"{len(value)}:{value}" for value in values)
    return UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])
