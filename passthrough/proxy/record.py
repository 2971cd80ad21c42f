"""The last step: one log line and one row for every call, however it ended. Nothing else records.

A `Record` is opened before anything is decided and closed once: by the last byte of a whole answer, before
the client can have it, or else when the handler has done with the call. Calls whose answers end in the same turn of the
event loop are recorded together.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec
from aiohttp import web

from passthrough.bedrock.named import model_in_body
from passthrough.bedrock.operations import Body, Operation
from passthrough.bedrock.usage import NOTHING, Usage
from passthrough.errors import Refusal, Unavailable
from passthrough.policy.allowance_holds import UNLIMITED, Hold
from passthrough.policy.buckets import TokenBucket
from passthrough.policy.keys import VirtualKey
from passthrough.policy.ledger import Entry, Outcome, uuid7
from passthrough.proxy import attribution

_log = logging.getLogger(__name__)

# Calls of strangers that are recorded at once, and then a second: whoever has no key, or one that was blocked or has
# expired, must not fill disks with rows.
STRANGERS_AT_ONCE = 1000
STRANGERS_A_SECOND = 10.0
BYTES_PER_TOKEN = 4  # of English text, the usual rule of thumb
UNAUTHENTICATED = 401  # no key, or none that may be used
CLIENT_CLOSED_REQUEST = 499  # nginx's number for "nobody waits for an answer any more"
FIRST_SUCCESS = 200
FIRST_CLIENT_ERROR = 400
FIRST_SERVER_ERROR = 500


class Ledger(Protocol):
    """Where rows go, durable as the journal promises; `Unavailable` when they cannot be.

    `append` does so before it returns, `append_soon` before it calls `then` with None or the error.
    """

    def append(self, entry: Entry) -> None: ...
    def append_soon(self, entry: Entry, then: Callable[[Unavailable | None], None]) -> None: ...


class Lines(Protocol):
    """Where log lines go."""

    def write(self, entry: Entry) -> None: ...


class Counters(Protocol):
    """What is counted of a call that has ended."""

    def call_ended(self, entry: Entry) -> None: ...


class Answer(Protocol):
    """What arrived of an answer's body, and whether the whole request went up."""

    @property
    def received_bytes(self) -> int: ...
    @property
    def asked(self) -> bool: ...


class Meter(Protocol):
    """What an answer consumed; and, once that was asked for, what was wrong with a stream in spite of its status."""

    @property
    def fault(self) -> str | None: ...
    @property
    def cut(self) -> bool: ...
    def usage(self) -> Usage: ...


Price = Callable[[Entry, Usage], None]


class Record:
    """The record of one call. `entry` is filled by the handler as it learns things."""

    __slots__ = ("_began", "_outcome", "_recorder", "_secret", "_served", "answer", "closed", "entry", "hold", "meter")

    def __init__(self, recorder: "Recorder", entry: Entry, began: float) -> None:
        self._recorder = recorder
        self._began = began
        self.closed = False
        self._outcome: Outcome | None = None
        self._secret = ""  # the key as it was presented
        self._served = False  # AWS said that it served the call, and the client was told otherwise
        self.entry = entry
        self.hold: Hold = UNLIMITED  # what the call has reserved of its allowances
        self.meter: Meter | None = None
        self.answer: Answer | None = None

    def belongs_to(self, key: VirtualKey, secret: str) -> None:
        """Say whose call it is; `secret` is the key as it was presented, of which nothing may be recorded."""
        entry = self.entry
        self._secret = secret
        attribution.take_out_key(entry, secret)
        entry.key_id, entry.key_alias = key.key_id, key.key_alias
        entry.user_id, entry.team_id = key.user_id, key.team_id
        if key.tags:
            entry.tags = (*key.tags, *(tag for tag in entry.tags if tag not in key.tags))

    def request_body(self, operation: Operation, body: Body) -> None:
        """Read what a body says for the record: the model where it stands there, and Converse's attribution."""
        entry = self.entry
        model, metadata = entry.model, entry.metadata
        if model is None:
            entry.model = model_in_body(operation, body)
        attribution.attribute_by_body(entry, body)
        if (entry.model is not model or entry.metadata is not metadata) and self._secret:
            attribution.take_out_key(entry, self._secret)

    def refused(self, refusal: Refusal, *, outcome: Outcome = "refused") -> None:
        self._served = FIRST_SUCCESS <= self.entry.status < FIRST_CLIENT_ERROR
        self.entry.status = refusal.status
        self.entry.error_type = refusal.code
        self._outcome = outcome

    def client_gone(self) -> None:
        self._outcome = "client_gone"
        self.entry.status = self.entry.status or CLIENT_CLOSED_REQUEST

    def cut(self) -> None:
        self._outcome = "cut"

    def answer_begins(self) -> None:
        self.entry.ttfb_ms = self._milliseconds()

    def close(self, end: Callable[[], None] | None = None) -> None:
        """Record the call, the first time this is called; then `end` its answer, where that is to wait for it."""
        if self.closed:
            if end is not None:
                end()
            return
        self.closed = True
        entry = self.entry
        entry.duration_ms = self._milliseconds()
        answer = self.answer
        if answer is not None:
            entry.response_bytes = answer.received_bytes
        usage = self._usage()
        entry.outcome = self._how_it_ended()
        if entry.key_id is None:
            attribution.disown(entry)
        locked_out = entry.key_id is None or (entry.outcome == "refused" and entry.status == UNAUTHENTICATED)
        if locked_out and not self._recorder.has_room_for_a_stranger():
            self._recorder.count(entry)
            return
        left = end is None and self._outcome == "client_gone"  # and nobody has read on for the figures
        unheard = answer is not None and (entry.ttfb_ms is None or self._served or left) and answer.asked
        # they lead back here: without them bodies are freed with the call
        self.meter = self.answer = None
        self._recorder.take(entry, usage, self.hold, unheard=unheard, end=end)

    def _how_it_ended(self) -> Outcome:
        entry, meter = self.entry, self.meter
        outcome = self._outcome or _outcome_of(entry.status)
        if meter is None or not (meter.fault or meter.cut):
            return outcome
        if meter.fault:  # `throttlingException` in a stream is ThrottlingException elsewhere
            entry.error_type = entry.error_type or meter.fault[:1].upper() + meter.fault[1:]
        return outcome if outcome != "ok" else "upstream_error" if meter.fault else "cut"

    def _usage(self) -> Usage:
        usage = self.meter.usage() if self.meter is not None else NOTHING
        if usage.source == "estimate" and usage.input_tokens is None:
            # the answer broke before it said; the body is what the tokens were made of
            return msgspec.structs.replace(usage, input_tokens=-(-self.entry.request_bytes // BYTES_PER_TOKEN))
        return usage

    def _milliseconds(self) -> int:
        return round((self._recorder.monotonic() - self._began) * 1000)


class Recorder:
    """Opens records, and takes what they hold when they close.

    `clock` gives seconds since 1970, `monotonic` seconds that never step back. `price` fills the cost.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        lines: Lines,
        counters: Counters,
        price: Price,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._lines = lines
        self._counters = counters
        self._price = price
        self._clock = clock
        self.monotonic = monotonic
        self._strangers = TokenBucket(at_once=STRANGERS_AT_ONCE, a_second=STRANGERS_A_SECOND, now=monotonic())
        self._unrecorded = 0

    def open(self, request: web.BaseRequest) -> Record:
        now = self._clock()
        entry = Entry(call_id=uuid7(now), started_at=now, client_ip=request.remote)
        attribution.attribute(entry, request.headers)
        return Record(self, entry, self.monotonic())

    def has_room_for_a_stranger(self) -> bool:
        """Whether a call of somebody without a valid key gets a row; the log says how many did not."""
        if not self._strangers.take(self.monotonic()):
            self._unrecorded += 1
            return False
        if self._unrecorded:
            _log.warning("calls without a valid key were counted, but not recorded", extra={"calls": self._unrecorded})
            self._unrecorded = 0
        return True

    def count(self, entry: Entry) -> None:
        """Take a call into the metrics alone."""
        self._counters.call_ended(entry)

    def take(
        self, entry: Entry, usage: Usage, hold: Hold, *, unheard: bool, end: Callable[[], None] | None = None
    ) -> None:
        """Settle what the call held, write the row and the line. Never raises: the answer is on its way already.

        `unheard`: the request went up, and no answer came, or not all of it, or none that can be told. `end`, if there
        is one, is called between row and line; else both are written at once.
        """
        try:
            entry.measured(usage)
            self._price(entry, usage)
        except Exception:  # noqa: BLE001  # whatever fails in metering, the row is not lost for it
            _log.exception("a call could not be priced", extra={"call_id": entry.call_id})
        # after the price, before the row: the row takes the charge along
        hold.settle(entry, unheard=unheard, partial=unheard and not usage.complete)
        if end is not None:
            self._ledger.append_soon(entry, partial(self._taken, entry, hold, end))
            return
        try:
            self._ledger.append(entry)
        except Unavailable as error:
            self._taken(entry, hold, None, error)
        else:
            self._taken(entry, hold, None, None)

    def _taken(self, entry: Entry, hold: Hold, end: Callable[[], None] | None, problem: Unavailable | None) -> None:
        try:
            if end is not None:
                end()  # before what nobody waits for
        finally:
            if problem is None:
                hold.written()
            else:
                _log.error("a call could not be recorded", extra={"call_id": entry.call_id, "cause": problem.cause})
            self._counters.call_ended(entry)
            self._lines.write(entry)


def _outcome_of(status: int) -> Outcome:
    if status >= FIRST_SERVER_ERROR:
        return "upstream_error"
    return "client_error" if status >= FIRST_CLIENT_ERROR else "ok"
