"""Phase 6: what a call consumed, read from the bytes going by.

`meter` chooses a `Meter` by operation and answer; the relay feeds it what it passes on, and asks once, at the end.
A meter does no I/O, keeps at most the tail of an answer, and never raises: metering must not touch the call. What
it cannot read it gives up on, says so in `gave_up`, and the call has no usage.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import msgspec

from passthrough.bedrock.answer_headers import usage_of_headers
from passthrough.bedrock.coding import COMPRESSED, Inflater
from passthrough.bedrock.documents import MEMBERS, Document, read_converse, read_document
from passthrough.bedrock.eventstream import FrameScanner
from passthrough.bedrock.operations import Body, Call
from passthrough.bedrock.requested import units_requested
from passthrough.bedrock.sieve import Sieve
from passthrough.bedrock.sse import WholeLines
from passthrough.bedrock.streamed import AgentTally, ConverseTally, InvokeTally, ShapedTally, Tally, Unwatched
from passthrough.bedrock.usage import NOTHING, Usage, of_document, overlay, policy_units, with_own_model

MAX_HELD_BYTES = 64 * 1024  # of an answer in JSON; what is longer goes through a sieve

_TALLIES: Mapping[str, Callable[[], Tally]] = MappingProxyType(
    {
        "ConverseStream": ConverseTally,
        "InvokeModelWithResponseStream": InvokeTally,
        "InvokeAgent": AgentTally,
        "InvokeInlineAgent": AgentTally,
    }
)
_SHAPED = frozenset(
    {"OpenAIChatCompletions", "OpenAICompletions", "OpenAIEmbeddings", "OpenAIResponses", "AnthropicMessages"}
)


class Meter:
    """Watches one answer; this one, the base of the others, watches nothing because nothing is reported.

    After `usage`, `fault` is the exception that a stream carried, `cut` says that an event stream ended inside a frame
    (or was none), `gave_up` that the answer was not what its headers promised, or too large to follow.
    """

    fault: str | None = None
    cut = gave_up = False

    @property
    def at_boundary(self) -> bool:
        """False inside a frame of an event stream, when no frame of ours can be put behind what was sent."""
        return True

    def feed(self, data: bytes) -> None:
        """Take body bytes as they go by, content-encoded as on the wire."""
        try:
            self._read(data)
        except Exception:  # noqa: BLE001  # a mistake in metering costs its figures, not the call
            self.gave_up = True

    def usage(self) -> Usage:
        """Tell what was seen so far."""
        try:
            return self._settle()
        except Exception:  # noqa: BLE001  # as in feed
            self.gave_up = True
            return Usage(complete=False)

    def _read(self, data: bytes) -> None:
        pass

    def _settle(self) -> Usage:
        return NOTHING


class _Known(Meter):
    """All is known before the body: from the answer's headers, or from the request."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def _settle(self) -> Usage:
        return self._usage


class _Json(Meter):
    """An answer that is one JSON object, with its usage among the top-level members."""

    def __init__(self, from_headers: Usage = NOTHING) -> None:
        self._from_headers = from_headers
        self._held: bytes | bytearray = b""
        self._sieve: Sieve | None = None

    def _read(self, data: bytes) -> None:
        if self._sieve is not None:
            self._sieve.feed(data)
        elif len(self._held) + len(data) > MAX_HELD_BYTES:
            self._sieve = Sieve(MEMBERS)
            self._sieve.feed(bytes(self._held) + data)
            self._held = b""
        elif not self._held:
            self._held = data  # most answers come in one piece, which is not copied
        else:
            self._held = bytearray(self._held) if isinstance(self._held, bytes) else self._held
            self._held += data

    def _document(self) -> tuple[Document | None, bool]:
        """Return what bears on usage, and whether the object came to its end."""
        if self._sieve is None:
            document = self._read_whole(self._held)
            if document is not None:
                return document, True
            # Cut or garbled: the sieve finds what was whole.
            self._sieve = Sieve(MEMBERS)
            self._sieve.feed(bytes(self._held))
        document = read_document(self._sieve.object())
        self.gave_up = self.gave_up or document is None or (self._sieve.missed and not self._sieve.closed)
        return document, self._sieve.closed

    def _settle(self) -> Usage:
        document, closed = self._document()
        usage = self._read_usage(document) if document is not None else NOTHING
        if self._from_headers is not NOTHING:
            usage = overlay(usage, self._from_headers)
            if self._from_headers.reported:
                return msgspec.structs.replace(usage, source="headers")
        return msgspec.structs.replace(usage, source="body" if usage.reported else "none", complete=closed)

    def _read_whole(self, answer: bytes | bytearray) -> Document | None:
        return read_document(answer)

    def _read_usage(self, document: Document) -> Usage:
        return of_document(document)


class _ConverseJson(_Json):
    """Converse's, which nearly always has the one shape."""

    def _read_whole(self, answer: bytes | bytearray) -> Document | None:
        return read_converse(answer)


class _ShapedJson(_Json):
    """As OpenAI's and Anthropic's APIs answer: the model that ran is named in the answer."""

    def _read_usage(self, document: Document) -> Usage:
        return with_own_model(of_document(document), document)


class _Guardrail(_Json):
    """Policy units instead of tokens."""

    def _read_usage(self, document: Document) -> Usage:
        return Usage(units=policy_units(document.usage))


class _Events(Meter):
    """An event stream: its boundaries for the relay, its usage by a tally."""

    def __init__(self, tally: Tally, from_headers: Usage = NOTHING) -> None:
        self._tally = tally
        self._take = tally.take
        self._scanner = FrameScanner(tally.wanted)
        self._from_headers = from_headers

    @property
    def at_boundary(self) -> bool:
        return self._scanner.at_boundary

    def feed(self, data: bytes) -> None:
        # As the base's, without the detour through `_read`: this runs for every streamed frame.
        try:
            for name, payload in self._scanner.feed(data):
                self._take(name, payload)
        except Exception:  # noqa: BLE001  # as in the base
            self.gave_up = True

    def _settle(self) -> Usage:
        self.fault, self.cut = self._scanner.fault, not self._scanner.at_boundary
        self.gave_up = self.gave_up or self._scanner.broken or self._scanner.missed
        usage = overlay(self._tally.usage(), self._from_headers)
        return msgspec.structs.replace(usage, complete=False) if self.cut or self.fault is not None else usage


class _ServerSent(Meter):
    """Server-sent events of the OpenAI- and Anthropic-shaped endpoints."""

    def __init__(self) -> None:
        self._lines = WholeLines()
        self._tally = ShapedTally()

    def _read(self, data: bytes) -> None:
        self._tally.take(self._lines.feed(data))

    def _settle(self) -> Usage:
        self.gave_up = self.gave_up or self._lines.missed
        self.fault = self._tally.fault
        return self._tally.usage()


class _Compressed(Meter):
    """Stands before another meter when the body is compressed."""

    def __init__(self, inner: Meter) -> None:
        self._inner = inner
        self._inflater = Inflater()

    @property
    def at_boundary(self) -> bool:
        return _is_plain(self._inner)

    def _read(self, data: bytes) -> None:
        if not self.gave_up:
            for piece in self._inflater.feed(data):
                self._inner.feed(piece)

    def _settle(self) -> Usage:
        usage = self._inner.usage()
        self.fault, self.cut = self._inner.fault, self._inner.cut
        self.gave_up = self.gave_up or self._inner.gave_up
        return usage


class _Unreadable(Meter):
    """For a body in a coding that we do not undo; `inner` tells what its headers said."""

    gave_up = True

    def __init__(self, inner: Meter) -> None:
        self._inner = inner

    @property
    def at_boundary(self) -> bool:
        return _is_plain(self._inner)

    def _settle(self) -> Usage:
        return msgspec.structs.replace(self._inner.usage(), complete=False)


def _is_plain(inner: Meter) -> bool:
    """Whether a compressed body is no event stream: into one that is, no frame of ours can be put."""
    return not isinstance(inner, _Events)


def meter(call: Call, status: int, fields: Mapping[str, str], request: Body = b"") -> Meter:
    """Choose the meter of an answer; `fields` are the answer's headers by lower-case name.

    `request` is the request's body, needed where the price goes by it.
    """
    if not 200 <= status < 300:  # noqa: PLR2004  # only a success consumes: errors carry no usage
        return Meter()
    inner = _by_shape(call, _media_type(fields.get("content-type", "")), fields, request)
    encoding = fields.get("content-encoding")
    if encoding is None or type(inner) in {Meter, _Known}:
        return inner
    encoding = encoding.strip().lower()
    if encoding in {"identity", ""}:
        return inner
    return _Compressed(inner) if encoding in COMPRESSED else _Unreadable(inner)


@lru_cache(maxsize=64)  # a few are all there are
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _by_shape(call: Call, content_type: str, fields: Mapping[str, str], request: Body) -> Meter:
    name = call.operation.name
    if content_type == "application/vnd.amazon.eventstream":
        return _Events(_TALLIES.get(name, Unwatched)(), usage_of_headers(fields))
    if name in _SHAPED:
        return _ServerSent() if content_type == "text/event-stream" else _ShapedJson()
    match name:
        case "Converse":
            return _ConverseJson()
        case "InvokeModel":
            return _invoked(call, fields, request)
        case "ApplyGuardrail" | "InvokeGuardrailChecks":
            return _Guardrail()
        case "Rerank":
            return _by_units(units_requested(name, None, request))
        case _:
            return Meter()


def _invoked(call: Call, fields: Mapping[str, str], request: Body) -> Meter:
    """InvokeModel: the headers have it all, except how cache writes split, and what older models leave out."""
    known = usage_of_headers(fields)
    if units := units_requested("InvokeModel", call.model, request):
        return _by_units(units, known)
    whole = known.input_tokens is not None and (known.output_tokens is not None or "embed" in (call.model or ""))
    if whole and not known.cache_write_tokens:
        return _Known(msgspec.structs.replace(known, source="headers"))
    return _Json(known)


def _by_units(units: Mapping[str, float], known: Usage = NOTHING) -> Meter:
    return _Known(msgspec.structs.replace(known, units=units, source="body")) if units else Meter()
