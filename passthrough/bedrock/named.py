"""Which model a request's body asks for, for the record; what may run is decided by `policy.access`, strictly."""

from collections.abc import Iterator
from typing import Any

import msgspec

from passthrough.bedrock.operations import Body, BodyPath, Operation
from passthrough.bedrock.usage import UNREADABLE


class _Shaped(msgspec.Struct):
    """OpenAI's and Anthropic's shapes name it at the top; the rest, long conversations, is skipped unread."""

    model: str | None = None


def model_in_body(operation: Operation, body: Body) -> str | None:
    """Return the first model that the body names where the operation has one; None if it cannot be read."""
    if not operation.body_models:
        return None
    try:
        if operation.body_models == (("model",),):
            return msgspec.json.decode(body, type=_Shaped).model
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    return next((value for path in operation.body_models for value in _values(document, path)), None)


def _values(value: Any, path: BodyPath) -> Iterator[str]:  # any JSON value
    if not path:
        if isinstance(value, str):
            yield value
        return
    step, rest = path[0], path[1:]
    if isinstance(value, list) and step == "[]":
        below = value
    elif isinstance(value, dict):
        below = list(value.values()) if step == "{}" else [value[step]] if step in value else []
    else:
        below = []
    for item in below:
        yield from _values(item, rest)
