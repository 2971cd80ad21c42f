"""A call as the bytes of its frame in the journal, which has room for what a call may say of itself and no more."""

import logging
from collections.abc import Sequence

import msgspec

from passthrough.errors import Unavailable
from passthrough.policy.ledger import Entry, bounded, storable
from passthrough.storage.ledger_frames import LARGEST_PAYLOAD_BYTES

_log = logging.getLogger(__name__)

_USUAL_PAYLOAD_BYTES = 4096  # up to here nobody looks how long each part is; most calls take about 500
_encode = msgspec.msgpack.Encoder().encode


def payload_of(entry: Entry) -> bytes:
    """Return the bytes of a call. Raises `Unavailable` when it cannot be brought below `LARGEST_PAYLOAD_BYTES`."""
    try:
        payload = _encode(entry)
    except (UnicodeEncodeError, OverflowError):
        entry = storable(entry)
        payload = _encode(entry)
    return payload if len(payload) <= _USUAL_PAYLOAD_BYTES else _long(entry)


def _long(entry: Entry) -> bytes:
    kept = bounded(entry)
    payload = _encode(kept)
    if len(payload) > LARGEST_PAYLOAD_BYTES and kept.tags:
        kept.tags = _without_the_last(kept.tags, len(payload) - LARGEST_PAYLOAD_BYTES)
        payload = _encode(kept)
        left_out = len(entry.tags) - len(kept.tags)
        _log.warning("tags of a call were left out", extra={"call_id": entry.call_id, "tags": left_out})
    if len(payload) > LARGEST_PAYLOAD_BYTES:
        payload = _encode(storable(entry))
    if len(payload) > LARGEST_PAYLOAD_BYTES:
        raise Unavailable("The call cannot be recorded: it names too much.", cause="an entry over 64 KiB")
    return payload


def _without_the_last(tags: Sequence[str], excess: int) -> tuple[str, ...]:
    """Return the tags without so many from the end that `excess` bytes go: those of the key come first."""
    kept = list(tags)
    while kept and excess > 0:
        excess -= len(_encode(kept.pop()))
    return tuple(kept)
