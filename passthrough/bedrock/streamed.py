"""What a streamed answer says it consumed: one tally for each way in which Bedrock streams.

A tally is given the payloads of the events it wants, in order, and asked once, at the end. A stream that broke off
before its final figures gives what was seen, with the output estimated from the text that went by, and says so:
AWS bills what the model generated whether or not anybody read it.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from typing import Any, Protocol

import msgspec

from passthrough.bedrock.documents import UNREADABLE, Document, read_document
from passthrough.bedrock.sse import data_of
from passthrough.bedrock.usage import NOTHING, Usage, counts, model_name, of_document, overlay, with_own_model

# Four bytes of text a token is the floor that Claude's gateway for Bedrock uses too; it under-counts code and
# scripts other than Latin, which an estimate may and a reservation may not.
TEXT_BYTES_PER_TOKEN = 4


class Tally(Protocol):
    """Counts one stream's usage from its events."""

    wanted: frozenset[str]

    def take(self, name: str, payload: bytes) -> None: ...

    def usage(self) -> Usage: ...


class Unwatched:
    """For event streams that report nothing (flows, knowledge bases): only their boundaries matter."""

    wanted: frozenset[str] = frozenset()

    def take(self, name: str, payload: bytes) -> None:
        pass

    def usage(self) -> Usage:
        return NOTHING


class ConverseTally:
    """ConverseStream: the `metadata` event, which is the last, has it all."""

    wanted = frozenset({"metadata", "contentBlockDelta"})

    # {"contentBlockIndex":0,"delta":{"text":""}}: what a delta is without its text (and without its padding)
    _ENVELOPE_BYTES = 43
    _PADDING = b',"p":"'

    def __init__(self) -> None:
        self._seen = NOTHING
        self._final = False
        self._text_bytes = 0

    def take(self, name: str, payload: bytes) -> None:
        if name != "metadata":
            end = payload.rfind(self._PADDING)
            self._text_bytes += max(0, (end if end > 0 else len(payload)) - self._ENVELOPE_BYTES)
        elif (document := read_document(payload)) is not None:
            self._seen = overlay(self._seen, of_document(document))
            self._final = True

    def usage(self) -> Usage:
        return _settled(self._seen, final=self._final, text_bytes=self._text_bytes)


_CHUNK = b'{"bytes":"'
# How the deltas of Claude and Nova begin: recognised in base64, they are spared the decoding. Both are whole groups
# of three letters, so that their base64 does not depend on what follows.
_DELTA_STARTS = (b'{"type":"content_block_delt', b'{"contentBlockDelta":')
_DELTAS = tuple(_CHUNK + b2a_base64(start, newline=False) for start in _DELTA_STARTS)


class InvokeTally:
    """InvokeModelWithResponseStream: each `chunk` is a document of the model's own, in base64.

    The last `amazon-bedrock-invocationMetrics` wins; what it does not say (the split of cache writes by
    lifetime) is kept from the model's own usage. A guardrail that blocked ends with neither, but with the counts of
    the last chunk.
    """

    wanted = frozenset({"chunk"})

    # {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}: Claude's; others' are near
    _ENVELOPE_BYTES = 81

    def __init__(self) -> None:
        self._seen = NOTHING
        self._metrics = NOTHING
        self._last = b""
        self._final = False
        self._text_bytes = 0

    def take(self, name: str, payload: bytes) -> None:  # noqa: ARG002  # there is only one name
        self._last = payload
        if payload.startswith(_DELTAS):
            # 10: the length of _CHUNK
            size = (payload.find(b'"', 10) - 10) * 3 // 4 - self._ENVELOPE_BYTES
        else:
            chunk = self._decoded(payload)
            # `find` instead of `in`, which takes half as long again
            if chunk.find(b'usage"') >= 0 or chunk.find(b'-invocationMetrics"') >= 0:
                self._see(chunk)
                return
            size = len(chunk) - self._ENVELOPE_BYTES
        if size > 0:
            self._text_bytes += size

    def _see(self, chunk: bytes) -> None:
        document = read_document(chunk)
        if document is None:
            return
        metrics = counts(document.metrics)
        self._seen = overlay(self._seen, of_document(document))
        self._metrics = overlay(self._metrics, metrics)
        # A usage at the top comes with the end (Anthropic's message_delta, OpenAI's last chunk), as does
        # Nova's metadata; only Anthropic's message_start has one before.
        self._final = self._final or metrics.reported or bool(document.metadata) or counts(document.usage).reported

    def usage(self) -> Usage:
        seen, final = self._seen, self._final
        if not final and (document := read_document(self._decoded(self._last))) is not None:
            seen = overlay(seen, of_document(document))
            final = document.guardrail_action is not None or document.completion_reason is not None
        return _settled(overlay(seen, self._metrics), final=final, text_bytes=self._text_bytes)

    def _decoded(self, payload: bytes) -> bytes:
        """Return the model's document: the fast way where AWS writes `bytes` first, as it does."""
        try:
            if payload.startswith(_CHUNK):
                return a2b_base64(payload[10 : payload.index(b'"', 10)])
            return _decode_chunk(payload).data
        except (Base64Error, ValueError, *UNREADABLE):
            return b""


class _Chunk(msgspec.Struct):
    data: bytes = msgspec.field(name="bytes", default=b"")


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class AgentTally:
    """InvokeAgent and InvokeInlineAgent: a sum over the model invocations in the `trace` events, by model.

    A trace names the model in one event (`modelInvocationInput`) and its usage in a later one
    (`modelInvocationOutput`), under the same trace id. The usage also stands as a string in `rawResponse` and, summed
    up, in other metadata: those are not counted.
    """

    wanted = frozenset({"trace"})

    _MAX_REMEMBERED = 64  # invocations of one call whose output has not come yet

    def __init__(self) -> None:
        self._models: dict[str, str] = {}  # trace id → model
        self._latest: str | None = None
        self._by_model: dict[str | None, Usage] = {}

    def take(self, name: str, payload: bytes) -> None:  # noqa: ARG002  # there is only one name
        if b"modelInvocation" not in payload:
            return
        try:
            trace = msgspec.json.decode(payload, type=_TracePart).trace
        except UNREADABLE:
            return
        for step in trace.values():
            if not isinstance(step, dict):
                continue
            self._remember(step.get("modelInvocationInput"))
            self._add(step.get("modelInvocationOutput"))

    def _remember(self, invocation: object) -> None:
        if not isinstance(invocation, dict):
            return
        model, trace_id = model_name(invocation.get("foundationModel")), invocation.get("traceId")
        if model is None:
            return
        self._latest = model
        if isinstance(trace_id, str) and len(self._models) < self._MAX_REMEMBERED:
            self._models[trace_id] = model

    def _add(self, output: object) -> None:
        if not isinstance(output, dict) or not isinstance(output.get("metadata"), dict):
            return
        used = counts(output["metadata"].get("usage"))
        if not used.reported:
            return
        model = self._models.pop(str(output.get("traceId")), self._latest)
        if len(self._by_model) >= self._MAX_REMEMBERED and model not in self._by_model:
            model = None  # no agent runs so many: what is left of them is a sum that nobody can price
        self._by_model[model] = _added(self._by_model.get(model, NOTHING), used)

    def usage(self) -> Usage:
        total = NOTHING
        for used in self._by_model.values():
            total = _added(total, used)
        parts = tuple(
            msgspec.structs.replace(used, model=model, source="stream") for model, used in self._by_model.items()
        )
        only = parts[0].model if len(parts) == 1 else None
        source = "stream" if parts else "none"
        # never known to be complete: the next event may name another invocation
        return msgspec.structs.replace(total, source=source, model=only, by_model=parts, complete=False)


class _TracePart(msgspec.Struct):
    trace: dict[str, Any] = msgspec.field(default_factory=dict)


class ShapedTally:
    """Server-sent events of the OpenAI- and Anthropic-shaped endpoints, fed as whole lines.

    OpenAI's chat reports in its last chunk, and only if the client asked (`stream_options.include_usage`); its
    Responses API in `response.completed`; Anthropic the input in `message_start` and the running output in
    `message_delta`.
    """

    # The text of a delta in any of the shapes; a `…done` event, which repeats the whole text, has no delta.
    _TEXT = re.compile(
        rb'"(?:content|text|delta|thinking|arguments|partial_json|reasoning_content)":"((?:[^"\\]++|\\.)*+)"'
    )

    def __init__(self) -> None:
        self._seen = NOTHING
        self._final = False
        self._text_bytes = 0
        self.fault: str | None = None  # the type of an error that ended the stream

    def take(self, lines: bytes) -> None:
        if b'usage":{' in lines or b'usage": {' in lines:
            for data in data_of(lines):
                if b'usage"' in data and (document := read_document(data)) is not None:
                    self._see(document)
        elif b"delta" in lines:
            self._text_bytes += sum(map(len, self._TEXT.findall(lines)))
        if b'"error"' in lines:  # beside the others: these are all the events of one read
            for data in data_of(lines):
                self.fault = self.fault or _fault_in(data)

    def _see(self, document: Document) -> None:
        self._seen = overlay(self._seen, with_own_model(of_document(document), document))
        answered = bool(document.response) and self._seen.output_tokens is not None
        self._final = self._final or answered or counts(document.usage).reported

    def usage(self) -> Usage:
        return _settled(self._seen, final=self._final, text_bytes=self._text_bytes)


class _Error(msgspec.Struct):
    type: str | None = None
    code: str | int | None = None


class _WithError(msgspec.Struct):
    error: _Error | None = None


def _fault_in(data: bytes) -> str | None:
    """The type of an error that both vendors send in a stream: `{"error": {"type": …, "message": …}}`."""
    try:
        error = msgspec.json.decode(data, type=_WithError).error
    except UNREADABLE:
        return None
    return None if error is None else error.type or str(error.code or "error")


def _settled(seen: Usage, *, final: bool, text_bytes: int) -> Usage:
    """Settle what was seen: as it is when the final figures were there, else with the output estimated."""
    if final:
        return msgspec.structs.replace(seen, source="stream" if seen.reported else "none")
    if not text_bytes and not seen.reported:
        return msgspec.structs.replace(seen, complete=False)
    output = max(seen.output_tokens or 0, -(-text_bytes // TEXT_BYTES_PER_TOKEN))
    return msgspec.structs.replace(seen, output_tokens=output, source="estimate", complete=False)


def _added(one: Usage, other: Usage) -> Usage:
    """Sum up two usages; None and a number is the number."""
    sums = {}
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"):
        known = [count for usage in (one, other) if (count := getattr(usage, name)) is not None]
        sums[name] = sum(known) if known else None
    return msgspec.structs.replace(NOTHING, **sums)
