"""The pieces of a stream as bytes: Bedrock's event-stream frames and SSE events."""

import base64
from random import Random
from typing import Any

import msgspec

from passthrough.bedrock.eventstream import encode

# Bedrock pads the payloads of bedrock-runtime with a prefix of this, of random length, so that the sizes of
# frames on the wire say nothing about the text in them (seen in recorded traffic; undocumented).
_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_lengths = Random()  # noqa: S311  # padding, no secret


def event(event_type: str, payload: dict[str, Any], *, padded: bool = False) -> bytes:
    """One event with a JSON payload; with `padded`, Bedrock's padding key `p` beside the data."""
    if padded:
        payload = {**payload, "p": _PADDING[: _lengths.randint(1, len(_PADDING))]}
    return raw_event(event_type, msgspec.json.encode(payload), "application/json")


def raw_event(event_type: str, payload: bytes, content_type: str) -> bytes:
    return encode({":event-type": event_type, ":content-type": content_type, ":message-type": "event"}, payload)


def chunk(document: dict[str, Any]) -> bytes:
    """One `chunk` of InvokeModelWithResponseStream: the model's own JSON, as base64 in JSON."""
    data = base64.b64encode(msgspec.json.encode(document)).decode()
    return event("chunk", {"bytes": data}, padded=True)


def error_frame(code: str, message: str) -> bytes:
    """An unmodelled error inside a stream."""
    return encode({":message-type": "error", ":error-code": code, ":error-message": message}, b"")


def sse(document: dict[str, Any], *, name: str | None = None) -> bytes:
    """One server-sent event; Anthropic and OpenAI's Responses name theirs."""
    head = f"event: {name}\n" if name else ""
    return head.encode() + b"data: " + msgspec.json.encode(document) + b"\n\n"
