"""Keys as tables for a terminal."""

from collections.abc import Iterable

import msgspec
from rich.table import Table

from passthrough.admin.schemas.keys import KeyRow

_encode = msgspec.json.Encoder(decimal_format="number").encode


def key_table(row: KeyRow) -> Table:
    """One key: a line for each field that holds something."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in msgspec.structs.asdict(row).items():
        if value not in (None, [], {}, ""):
            table.add_row(name, value if isinstance(value, str) else _encode(value).decode().strip('"'))
    return table


def keys_table(rows: Iterable[KeyRow]) -> Table:
    """Many keys: a line each."""
    table = Table(box=None, pad_edge=False)
    for name in ("alias", "key", "status", "user", "team", "models", "expires"):
        table.add_column(name, overflow="fold")
    for name in ("spend", "budget"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.key_alias or "",
            row.key_name,
            row.status,
            row.user_id or "",
            row.team_id or "",
            ", ".join(row.models),
            f"{row.expires:%Y-%m-%d %H:%M}" if row.expires else "",
            f"{row.spend:,.4f}",
            f"{row.max_budget:,.2f}" if row.max_budget is not None else "",
        )
    return table
