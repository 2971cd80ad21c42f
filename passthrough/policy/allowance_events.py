"""What is told when a budget, or a day's tokens, come near their end: once for each threshold and window.

The body is signed as `t=SECONDS,v1=HEX`, HEX being HMAC-SHA256 over `SECONDS.BODY` with the shared secret, so that a
receiver can tell who speaks and that it is not an old message repeated.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from passthrough.policy.allowances import PICODOLLARS, Kind

SIGNATURE_HEADER: Final = "X-Passthrough-Signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A crossing. `threshold` is a percentage, or `soft`; `used` and `most` are in the units of the kind.

    `name` is whose limit it is; of a key its SHA-256, with `key_alias` as it is when this is told.
    """

    number: int
    at: datetime
    subject: str
    name: str
    kind: Kind
    period: str
    model: str
    threshold: str
    used: Decimal
    most: Decimal
    ends_at: datetime | None
    key_alias: str | None = None

    def fields(self) -> dict[str, str | int | None]:
        """Give it as a flat record: for the log, and as JSON for the webhook. Amounts of money are exact texts."""
        scale = -PICODOLLARS if self.kind == Kind.MONEY else 0
        return {
            "id": self.number,
            "event": "soft_budget_crossed" if self.threshold == "soft" else "threshold_crossed",
            "at": _moment(self.at),
            "subject": self.subject,
            "name": self.name,
            "key_alias": self.key_alias,
            "kind": "usd" if self.kind == Kind.MONEY else self.kind.name.lower(),
            "threshold": self.threshold,
            "used": f"{self.used.scaleb(scale).normalize():f}",
            "limit": f"{self.most.scaleb(scale).normalize():f}",
            "window": self.period or None,
            "model": self.model or None,
            "resets_at": None if self.ends_at is None else _moment(self.ends_at),
        }

    def body(self) -> bytes:
        return json.dumps(self.fields()).encode()


def signature(secret: str, seconds: int, body: bytes) -> str:
    """Sign a body that is sent at `seconds` since 1970."""
    digest = hmac.new(secret.encode(), b"%d.%b" % (seconds, body), hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
