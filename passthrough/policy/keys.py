"""A virtual key: who is calling and what they may do, as one frozen value that every later step reads.

A key is a secret that its holder sends and nobody keeps: it is minted here, shown once, and from then on known
by its SHA-256 digest alone. Whatever restricts it, its owners' restrictions included, is in the value, so that
admission decides without asking anybody.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from passthrough.errors import unauthenticated
from passthrough.policy.allowances import Limit

KEY_PREFIX: Final = "sk-"  # LiteLLM's, so that its users' checks and secret scanners go on working
SHORTEST_KEY: Final = 16  # characters of a custom key, LiteLLM's bound
LONGEST_KEY: Final = 512  # a header field may hold 16 KB; a key is a word, not a text

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualKey:
    """A key as admission sees it.

    `key_id` is the hexadecimal SHA-256 of the key (LiteLLM's `token`). `models` is the key's own list, empty
    for all; `model_lists` are all lists that bind (the key's, its user's, its team's): every one must allow.
    `aliases` turns a name that the client uses into a model id. `region` is pinned, `allowed_regions` are
    patterns. `limits` are the key's and its owners'. `expires_at` is in seconds since 1970. `blocked_by` names
    whose block it is. `restricted`: whether any list binds, found out once for all the calls that ask.
    """

    key_id: str
    key_name: str = ""
    key_alias: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    models: tuple[str, ...] = ()
    model_lists: tuple[tuple[str, ...], ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    allowed_routes: tuple[str, ...] = ()
    allowed_regions: tuple[str, ...] = ()
    region: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    limits: tuple[Limit, ...] = ()
    needs_end_user: bool = False
    expires_at: float | None = None
    rotation_due: bool = False
    blocked: bool = False
    blocked_by: str = ""
    is_master: bool = False
    restricted: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "restricted", any(self.model_lists) or bool(self.models))


MASTER: Final = VirtualKey(key_id="master", key_name="master", key_alias="master", is_master=True)
"""The administrator: may do everything. Its `key_id` is no digest, so no key can be mistaken for it."""


def digest(key: str) -> str:
    """Hexadecimal SHA-256 of a key as presented; the only form in which it is kept or compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def mint() -> str:
    """Make a new key of 256 random bits; LiteLLM's have 128, and the first letters are the same."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def display_name(key: str) -> str:
    """Give what may be shown of a key for ever: `sk-...` and its last four characters."""
    return f"{KEY_PREFIX}...{key[-4:]}"


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


REPLACED: Final = 0.0
"""When a text ended that was replaced without grace: before any clock, since replicas go by their own."""

SANDBOX: Final = "passthrough_sandbox"
"""In the metadata of a key: it opens nothing but the sandbox, whoever else serves from the same database."""


def key_id_of(reference: str) -> str:
    """Read the key id from how an administrator names a key: the key itself, or its digest.

    Never for authentication: there a digest is a secret like any other text, and is hashed again.
    """
    return reference if is_digest(reference) else digest(reference)


def admit_key(key: VirtualKey, now: float) -> None:
    """Refuse a key that may not be used at all at `now` (seconds since 1970)."""
    if key.blocked:
        whose = key.blocked_by or "key"
        raise unauthenticated(f"The {whose} is blocked: ask your administrator to unblock the {whose}.")
    if key.expires_at == REPLACED:
        raise unauthenticated("The virtual key was replaced by another: ask your administrator for its successor.")
    if key.expires_at is not None and key.expires_at <= now:
        when = datetime.fromtimestamp(key.expires_at, UTC).isoformat(timespec="seconds")
        if key.rotation_due:
            raise unauthenticated(
                f"The virtual key was due for rotation at {when}: ask your administrator for its successor."
            )
        raise unauthenticated(f"The virtual key expired at {when}: ask your administrator for a new one.")
