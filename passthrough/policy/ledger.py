"""The ledger's one row: what a call was, whose, and what it cost.

An `Entry` is opened when a request arrives, filled while the call goes by, and written when it ends, however
it ends. Its names are the columns that users read (`GET /spend/logs/v2`), so none may be renamed. Journals of
an older release are read by a newer one and the other way round: fields are only ever appended, with a
default.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from passthrough.bedrock.usage import Usage, UsageSource

Outcome = Literal["ok", "client_error", "upstream_error", "refused", "client_gone", "cut"]
PriceStatus = Literal["priced", "unknown_model", "not_metered"]

_RANDOM_BYTES = 4096  # a memory page; for some 250 to 500 calls

Charge = tuple[int, int, int, int, bool]
"""Of an allowance of money: its id, the lease's number, the window's, picodollars, and whether those are no cost.

They are no cost when nobody knows what the call cost: then they are what it had reserved.
"""


class Entry(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    """One call. `started_at` is in seconds since 1970, `cost` in USD, exact; None is "nobody said", never 0.

    The journal holds entries as arrays, in this order. `gc=False`: an entry refers to no other object that
    could refer back, and thousands are open at once.
    """

    call_id: str
    started_at: float
    duration_ms: int = 0
    ttfb_ms: int | None = None
    key_id: str | None = None
    key_alias: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    end_user: str | None = None
    tags: tuple[str, ...] = ()
    session_id: str | None = None
    client_ip: str | None = None
    user_agent: str | None = None
    service: str | None = None
    operation: str | None = None
    model: str | None = None
    billed_model: str | None = None
    region: str | None = None
    identity: str | None = None
    status: int = 0
    error_type: str | None = None
    upstream_request_id: str | None = None
    client_invocation_id: str | None = None
    attempt: int | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    usage_source: UsageSource = "none"
    cost: Decimal | None = None
    price_status: PriceStatus = "not_metered"
    outcome: Outcome = "ok"
    stream: bool = False
    # Not among the names of interface §4, kept so that a call can be priced again and found again:
    metadata: str | None = None  # a JSON object, as text: nobody here looks inside
    units: dict[str, float] | None = None
    tier: str | None = None
    latency: str | None = None
    by_model: tuple[Usage, ...] = ()
    charges: tuple[Charge, ...] = ()  # what the allowances are charged when the row is stored

    def measured(self, usage: Usage) -> None:
        """Take over what the meter saw."""
        self.input_tokens = usage.input_tokens
        self.output_tokens = usage.output_tokens
        self.cache_read_tokens = usage.cache_read_tokens
        self.cache_write_tokens = usage.cache_write_tokens
        self.cache_write_1h_tokens = usage.cache_write_1h_tokens
        self.usage_source = usage.source
        self.units = dict(usage.units) if usage.units else None
        self.tier = usage.tier
        self.latency = usage.latency
        self.by_model = usage.by_model

    def usage(self) -> Usage:
        """What the meter saw, as a stored call remembers it: enough to price it again."""
        return Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cache_read_tokens=self.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens,
            source=self.usage_source,
            model=self.billed_model,
            tier=self.tier,
            latency=self.latency,
            units=self.units or {},
            by_model=self.by_model,
        )


class _Random:
    """Gives random words of 64 bits, of which it asks the kernel for many at a time."""

    def __init__(self) -> None:
        self._words: Iterator[int] = iter(())
        # What is left when a process forks is for the parent alone.
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self) -> int:
        word = next(self._words, None)
        if word is None:
            self._words = iter(memoryview(os.urandom(_RANDOM_BYTES)).cast("Q"))
            word = next(self._words)
        return word

    def _forget(self) -> None:
        self._words = iter(())


_random = _Random()


class CallIds:
    """Makes UUIDv7s (RFC 9562 §5.7) that only ever grow, also when the clock stands or steps back.

    48 bits of milliseconds, then 74 bits (`rand_a` and `rand_b` together) that are drawn anew each
    millisecond and counted up within one, by a random step so that ids cannot be guessed (RFC 9562 §6.2,
    method 2). One per process or thread: it takes no lock.
    """

    def __init__(self) -> None:
        self._milliseconds = -1
        self._head = ""
        self._tail = 0

    def __call__(self, now: float) -> str:
        """Return the id of a call that begins at `now`, in seconds since 1970."""
        milliseconds = int(now * 1000)
        if milliseconds > self._milliseconds:
            self._milliseconds = milliseconds
            self._head = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7"
            # 73 bits: the highest stays free, so that counting up cannot overflow within a millisecond.
            self._tail = _random() << 9 | _random() >> 55
        else:
            self._tail += 1 + (_random() >> 32)
        tail = self._tail
        variant = 0x8000 | tail >> 48 & 0x3FFF
        return f"{self._head}{tail >> 62:03x}-{variant:04x}-{tail & 0xFFFF_FFFF_FFFF:012x}"


uuid7 = CallIds()


def first_call_id(moment: float) -> str:
    """Return what no id of `moment` (seconds since 1970) or later sorts below: a bound for ranges of time."""
    digits = f"{max(0, round(moment * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def time_of(call_id: str) -> float:
    """Return the moment, in seconds since 1970, that a call's id carries."""
    return int(call_id[:8] + call_id[9:13], 16) / 1000


# What a call may say of itself. With what is usual of its key it fits into a frame of the journal, 64 KiB.
LONGEST_TEXT = 512  # characters of one text; boto3's User-Agent has some 250, AWS's longest model id about 140
MOST_TAGS = 100  # of a call; its key may have as many
LONGEST_METADATA = 4096  # bytes of JSON


def bounded(entry: Entry) -> Entry:
    """Return the entry with nothing in it that is longer than a call may say; what it may say stays as it is."""
    kept = copy.copy(entry)
    for name in Entry.__struct_fields__:
        value = getattr(kept, name)
        if isinstance(value, str) and name != "metadata":
            setattr(kept, name, value[:LONGEST_TEXT])
    kept.tags = tuple(tag[:LONGEST_TEXT] for tag in entry.tags[: 2 * MOST_TAGS])
    if entry.metadata and len(entry.metadata.encode()) > LONGEST_METADATA:
        kept.metadata = None  # half of it would be no JSON
    return kept


# Of a call that was refused for what is in it. PostgreSQL takes 2,704 bytes into an entry of an index, and the longest
# has three texts: a tag or customer, a team and a model.
_SHORT_TEXT = 256  # characters
_MOST_ITEMS = 32  # tags, units, parts of one call
_LARGEST_INTEGER = 2**31 - 1  # PostgreSQL's integer, which most columns of numbers are; the others:
_LARGEST = {"request_bytes": 2**63 - 1, "response_bytes": 2**63 - 1, "status": 2**15 - 1}  # bigint, smallint


def storable(entry: Entry) -> Entry:
    """Return the entry without what a journal or PostgreSQL refuses, and without what is absurdly long.

    Lone surrogates (header bytes that were no UTF-8), NUL, huge integers, long texts, metadata: such a call is still a
    call, and must not keep others out.
    """
    clean = Entry(call_id=entry.call_id, started_at=entry.started_at)
    for name in Entry.__struct_fields__:
        value = _storable(getattr(entry, name), _LARGEST.get(name, _LARGEST_INTEGER))
        if value is not None:
            setattr(clean, name, value)
    clean.charges = entry.charges  # ours, and worth nothing if anything of them is changed
    clean.metadata = None
    return clean


def _storable(value: Any, largest: int = _LARGEST_INTEGER) -> Any:  # of any field; None: as if nobody had said
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return text[:_SHORT_TEXT]
    if isinstance(value, int):
        return value if abs(value) <= largest else None
    if isinstance(value, tuple):
        return tuple(_storable(item) for item in value[:_MOST_ITEMS])
    if isinstance(value, Mapping):
        return {_storable(key): item for key, item in list(value.items())[:_MOST_ITEMS]}
    if isinstance(value, Usage):
        return Usage(input_tokens=_storable(value.input_tokens), output_tokens=_storable(value.output_tokens))
    return value
