"""Which model a request's body asks for, for the record; what may run is decided by `policy.access`, strictly."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from passthrough.bedrock.documents import UNREADABLE
from passthrough.bedrock.models import LONGEST_ID
from passthrough.bedrock.operations import Body, BodyPath, Operation

# A body of 64 MiB can be 20 million empty objects, which decoded are 2 GB and take 10 seconds. The longest honest
# body is text and base64: a conversation of a million tokens has some 100,000 members.
MOST_PARTS: Final = 1_000_000


def is_intricate(body: Body) -> bool:
    """Whether a body is made of more parts than should be decoded whole: by commas and brackets, in strings too."""
    return len(body) > MOST_PARTS and body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_PARTS


class _Shaped(msgspec.Struct):
    """OpenAI's and Anthropic's shapes name it at the top; the rest, long conversations, is skipped unread."""

    model: str | None = None


def model_in_body(operation: Operation, body: Body) -> str | None:
    """Return the first model that the body names where the operation has one; None if it cannot be read, or be one."""
    if not operation.body_models:
        return None
    try:
        if operation.body_models == (("model",),):
            return _plausible(msgspec.json.decode(body, type=_Shaped).model)
        document = None if is_intricate(body) else msgspec.json.decode(body)
    except UNREADABLE:
        return None
    return _plausible(next((value for path in operation.body_models for value in _values(document, path)), None))


def _plausible(model: str | None) -> str | None:
    """What goes into logs and caches is no megabytes long, and what goes into PostgreSQL has no NUL."""
    return model if model and len(model) <= LONGEST_ID and model.isprintable() else None


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
