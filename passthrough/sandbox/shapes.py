"""Values made from botocore's output shapes: for every operation an answer that its own client accepts.

A member that the request named too (a session id, a flow id…) has the request's value. Of a union the text is
taken, or else the first member; of an enumeration a cheerful value; lists have one item; recursion ends at the
second level.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.model import OperationModel, Shape

from passthrough.sandbox import samples
from passthrough.sandbox.exchange import Answer, Asked, HeaderPairs, Streamed, json_answer
from passthrough.sandbox.frames import event, raw_event

_UUID = re.compile(r"[a-f0-9]{8}(-[a-f0-9]{4}){3}-[a-f0-9]{12}")
# Which event comes first, where the order of the model's members is not that of a conversation.
_EVENT_ORDER: Mapping[str, tuple[str, ...]] = {
    "AgenticRetrieveStream": ("traceEvent", "responseEvent", "result"),
    "InvokeAgent": ("trace", "chunk", "files", "returnControl"),
    "InvokeInlineAgent": ("trace", "chunk", "files", "returnControl"),
    "InvokeFlow": ("flowTraceEvent", "flowOutputEvent", "flowMultiTurnInputRequestEvent", "flowCompletionEvent"),
    "ConverseStream": ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop"),
    "OptimizePrompt": ("analyzePromptEvent", "optimizedPromptEvent"),
    "RetrieveAndGenerateStream": ("output", "citation", "guardrail"),
}  # fmt: skip
_SIMPLE: Mapping[str, object] = {
    "blob": base64.b64encode(b"sandbox").decode(),
    "boolean": True,
    "float": 0.87,  # a score between 0 and 1, which is all that the models have
    "double": 0.87,
}
PADDED = frozenset({"ConverseStream", "InvokeModelWithResponseStream"})


def answer(asked: Asked, operation: OperationModel) -> Answer | Streamed:
    """The answer of an operation that has no realistic one of its own."""
    shape = operation.output_shape
    status = int(operation.http.get("responseCode", 200))
    if shape is None:
        return Answer(b"", status=status)
    maker = Maker(asked)
    if operation.has_event_stream_output:
        return every_event(asked, operation)
    body = {
        wire_name(member, name): maker.value(member, name)
        for name, member in shape.members.items()
        if not member.serialization.get("location") and maker.wanted(name, shape)
    }
    return json_answer(body, status=status, headers=output_headers(asked, operation))


def every_event(asked: Asked, operation: OperationModel) -> Streamed:
    """A stream with every event type of the shape, once."""
    members = operation.get_event_stream_output().members
    order = _EVENT_ORDER.get(operation.name, ())
    names = [name for name in (*order, *(name for name in members if name not in order)) if name in members]
    return events(asked, operation, [name for name in names if not members[name].metadata.get("exception")])


def events(asked: Asked, operation: OperationModel, names: Sequence[str]) -> Streamed:
    """A stream with events of these types."""
    members = operation.get_event_stream_output().members
    pieces = [_event(asked, name, members[name], padded=operation.name in PADDED) for name in names]
    return Streamed(pieces, output_headers(asked, operation))


def output_headers(asked: Asked, operation: OperationModel) -> HeaderPairs:
    """The required members of the output that travel as headers, and those that the request named."""
    shape = operation.output_shape
    if shape is None:
        return ()
    maker = Maker(asked)
    return tuple(
        (member.serialization["name"], str(maker.value(member, name)))
        for name, member in shape.members.items()
        if member.serialization.get("location") == "header"
        and (name in shape.required_members or maker.named(name) is not None or name == "executionId")
    )


def wire_name(member: Shape, name: str) -> str:
    return str(member.serialization.get("name", name))


def _event(asked: Asked, name: str, shape: Shape, *, padded: bool) -> bytes:
    payloads = [member for member in shape.members.values() if member.serialization.get("eventpayload")]
    value = Maker(asked).value(shape, name)
    if payloads and payloads[0].type_name == "blob":
        return raw_event(name, b"sandbox", "application/octet-stream")
    return event(name, value, padded=padded)


class Maker:
    """Makes JSON values for shapes, for one request."""

    def __init__(self, asked: Asked) -> None:
        self._now = datetime.fromtimestamp(asked.now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        given = {**asked.document, **asked.labels}
        self._given = {name: value for name, value in given.items() if isinstance(value, str) and value}
        session = self._given.get("sessionIdentifier", "").rpartition("/")[2]
        if _UUID.fullmatch(session):
            self._given["sessionId"] = session
        self._words = {
            "region": asked.region,
            "account": samples.ACCOUNT,
            "sessionId": self._given.get("sessionId", samples.UUID),
        }
        self._outcomes = samples.BY_OPERATION.get(asked.name, {})
        self._open: list[str] = []

    def named(self, name: str) -> str | None:
        """What the request itself says of this member."""
        return self._given.get(name)

    def wanted(self, name: str, shape: Shape) -> bool:
        return name in shape.required_members or name not in samples.UNWELCOME

    def value(self, shape: Shape, name: str) -> Any:
        """A value of this shape, for a member of this name."""
        if getattr(shape, "is_document_type", False):
            return {"sandbox": True}
        match shape.type_name:
            case "structure":
                return self._structure(shape)
            case "list":
                return [] if self._is_open(shape.member) else [self.value(shape.member, name)]
            case "map":
                return {"sandbox": self.value(shape.value, name)}
            case "string":
                return self._string(shape, name)
            case "integer" | "long":
                return max(samples.INTEGERS.get(name, 1), shape.metadata.get("min", 0))
            case simple:
                return {**_SIMPLE, "timestamp": self._now}[simple]

    def _structure(self, shape: Shape) -> dict[str, Any]:
        self._open.append(shape.name)
        try:
            members = {
                name: member
                for name, member in shape.members.items()
                if self.wanted(name, shape) and (not self._is_open(member) or name in shape.required_members)
            }
            if getattr(shape, "is_tagged_union", False):
                chosen = "text" if "text" in members else next(iter(members))
                members = {chosen: members[chosen]}
            return {wire_name(member, name): self.value(member, name) for name, member in members.items()}
        finally:
            self._open.pop()

    def _is_open(self, shape: Shape) -> bool:
        """Whether a value of this shape would be inside another one of the same shape."""
        inner = shape.member if shape.type_name == "list" else shape
        return inner.name in self._open

    def _string(self, shape: Shape, name: str) -> str:
        if shape.enum:
            words = (*self._outcomes.get(name, "").split(), *samples.CHEERFUL)
            return str(next((word for word in words if word in shape.enum), shape.enum[0]))
        given = self.named(name)
        first = [samples.BY_MEMBER[name]] if name in samples.BY_MEMBER else []
        candidates = [template.format(**self._words) for template in (*first, *samples.BY_PATTERN)]
        if given is not None:
            candidates.insert(0, given)
        return next((text for text in candidates if fits(shape, text)), candidates[0])


def fits(shape: Shape, text: str) -> bool:
    """Whether a string is within the shape's lengths and matches its pattern."""
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max")
    if len(text) < low or (high is not None and len(text) > high):
        return False
    pattern = _pattern(shape.metadata.get("pattern"))
    return pattern is None or pattern.fullmatch(text) is not None


def _pattern(pattern: str | None) -> re.Pattern[str] | None:
    """A Java pattern as Python's; None when there is none, or when it has a Unicode category, which `re` has not."""
    if pattern is None or r"\p{" in pattern.lower():
        return None
    return re.compile(pattern)
