"""Is the request's content what the operation takes? Checked against botocore's input shapes, with AWS's texts.

Types, required members, enumerations, lengths and ranges are checked; patterns are not, so that made-up ids
work. Members that no shape lists are ignored, as AWS ignores most of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from botocore.model import OperationModel, Shape

from passthrough.errors import Refusal, invalid
from passthrough.sandbox.exchange import Received

_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "blob": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (str, int, float),
}


def document_of(received: Received, operation: OperationModel | None) -> dict[str, Any]:
    """The JSON body as a dict: {} when there is none, or when the operation takes raw bytes."""
    if operation is not None and (operation.input_shape is None or _payload_member(operation)):
        return {}
    if not received.body.strip():
        return {}
    try:
        document = msgspec.json.decode(received.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal(400, "SerializationException", "The request body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise Refusal(400, "SerializationException", "The request body must be a JSON object.")
    return document


def check(received: Received, operation: OperationModel, labels: Mapping[str, str], body: dict[str, Any]) -> None:
    """Raises the `ValidationException` or `SerializationException` that AWS would answer with."""
    shape = operation.input_shape
    if shape is None:
        return
    query = dict(parse_qsl(received.query, keep_blank_values=True))
    violations: list[str] = []
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        wire_name = member.serialization.get("name", name)
        if location is None and name != _payload_member(operation):
            present, value = wire_name in body and body[wire_name] is not None, body.get(wire_name)
            if present:
                violations += _violations(member, value, name)
        else:
            present = _present(received, name, location, wire_name, labels, query)
        if name in shape.required_members and not present:
            violations.append(f"Value at '{name}' failed to satisfy constraint: Member must not be null")
    if violations:
        count = len(violations)
        raise invalid(f"{count} validation error{'s' * (count > 1)} detected: {'; '.join(violations)}")


def _payload_member(operation: OperationModel) -> str | None:
    shape = operation.input_shape
    return None if shape is None else shape.serialization.get("payload")


def _present(
    received: Received,
    name: str,
    location: str | None,
    wire_name: str,
    labels: Mapping[str, str],
    query: Mapping[str, str],
) -> bool:
    if location == "uri":
        return name in labels or wire_name in labels
    if location == "querystring":
        return wire_name in query
    if location == "header":
        return received.header(wire_name) is not None
    return True  # the raw payload: an empty one is for the model to judge


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if getattr(shape, "is_document_type", False):
        return
    expected = _JSON_TYPES[shape.type_name]
    if type(value) not in expected:  # exactly: a bool is an int for isinstance
        raise Refusal(400, "SerializationException", f"The value at '{path}' must be a JSON {shape.type_name}.")
    yield from _own_violations(shape, value, path)
    if shape.type_name == "structure":
        yield from _member_violations(shape, value, path)
    elif shape.type_name == "list":
        for at, item in enumerate(value, start=1):
            yield from _violations(shape.member, item, f"{path}.{at}.member")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _violations(shape.value, item, f"{path}.{key}")


def _member_violations(shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, member in shape.members.items():
        inner = value.get(member.serialization.get("name", name))
        if inner is not None:
            yield from _violations(member, inner, f"{path}.{name}")
        elif name in shape.required_members:
            yield f"Value at '{path}.{name}' failed to satisfy constraint: Member must not be null"


def _own_violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """Enumerations, lengths and ranges of this value itself."""
    said = f"Value at '{path}' failed to satisfy constraint: Member must"
    if getattr(shape, "enum", None) and value not in shape.enum:
        values = ", ".join(shape.enum)
        wrong = f"Value '{value}' at '{path}' failed to satisfy constraint"
        yield f"{wrong}: Member must satisfy enum value set: [{values}]"
    measured, unit = (value, "value") if isinstance(value, int | float) else (_size(shape, value), "length")
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and measured < low:
        yield f"{said} have {unit} greater than or equal to {low}"
    if high is not None and measured > high:
        yield f"{said} have {unit} less than or equal to {high}"


def _size(shape: Shape, value: Any) -> int:
    """Bytes of a blob (which comes as base64), characters of a string, members of a list or map."""
    return len(value) * 3 // 4 if shape.type_name == "blob" else len(value)
