"""Rows of keys as answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from passthrough.admin.keys import status_of
from passthrough.admin.schemas.keys import KeyRow

Answer = TypeVar("Answer", bound=KeyRow)


def key_answer(row: Mapping[str, Any], now: datetime, kind: type[Answer], **more: Any) -> Answer:
    """A row under the names of the API; a key that never was counted has spent nothing."""
    shown = {
        **row,
        "token": row["key_id"],
        "status": status_of(row, now),
        "spend": row["spend"] or 0,
        "total_spend": row["total_spend"] or 0,
    }
    return msgspec.convert({**shown, **more}, kind)


def key_row(row: Mapping[str, Any], now: datetime) -> KeyRow:
    return key_answer(row, now, KeyRow)
