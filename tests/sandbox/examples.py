"""Arguments for every operation, and a judge of every answer, both from botocore's shapes."""

import re
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.validate import ParamValidator

from tests.sandbox.client import HELLO

SERVICES = ("bedrock-runtime", "bedrock-agent-runtime")
MODELS = {name: ServiceModel(Loader().load_service_model(name, "service-2"), name) for name in SERVICES}
OPERATIONS = [
    (service, name)
    for service, model in MODELS.items()
    for name in model.operation_names
    if name != "InvokeModelWithBidirectionalStream"  # boto3 has no method for it
]
_OWN: dict[str, dict[str, Any]] = {
    "Converse": {"messages": HELLO},
    "ConverseStream": {"messages": HELLO},
    "InvokeModel": {"body": b'{"messages": [{"role": "user", "content": "hi"}]}'},
    "InvokeModelWithResponseStream": {"body": b'{"messages": [{"role": "user", "content": "hi"}]}'},
}


def arguments_for(operation: OperationModel) -> dict[str, Any]:
    """The required members, made up, and what the operation wants beyond its shape."""
    shape = operation.input_shape
    return {**(_example(shape) if shape is not None else {}), **_OWN.get(operation.name, {})}


def _example(shape: Shape) -> Any:
    kind, least = shape.type_name, shape.metadata.get("min", 1)
    if getattr(shape, "is_document_type", False):
        return {"a": 1}
    if kind == "structure":
        members = {name: member for name, member in shape.members.items() if name in shape.required_members}
        if getattr(shape, "is_tagged_union", False):
            members = dict(list(shape.members.items())[:1])
        return {name: _example(member) for name, member in members.items()}
    if kind == "list":
        return [_example(shape.member)] * max(1, least)
    if kind == "map":
        return {"key": _example(shape.value)}
    if kind == "string":
        return shape.enum[0] if shape.enum else "abc123def4".ljust(least, "0")
    return {"blob": b"{}", "timestamp": 1_700_000_000, "boolean": True, "float": 0.5}.get(kind, max(1, least))


def faults_in(operation: OperationModel, answer: dict[str, Any]) -> list[str]:
    """What is wrong with an answer that boto3 parsed: types, required members, ranges, enumerations, patterns."""
    shape = operation.output_shape
    answer = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
    if shape is None:
        return [] if not answer else [f"members out of nowhere: {answer}"]
    found: list[str] = []
    if operation.has_event_stream_output:
        stream = operation.get_event_stream_output()
        member = next(name for name, inner in shape.members.items() if inner.name == stream.name)
        for event in answer.pop(member):
            ((name, value),) = event.items()
            found += _faults(stream.members[name], value, name)
        missing = set(shape.required_members) - set(answer) - {member}
        return found + [f"{name} is missing" for name in missing]
    if "body" in shape.members:
        answer["body"] = bytes(answer["body"])
    return _faults(shape, answer, operation.name)


def _faults(shape: Shape, value: Any, path: str) -> list[str]:
    report = ParamValidator().validate(value, shape)
    return ([report.generate_report()] if report.has_errors() else []) + list(_finer(shape, value, path))


def _finer(shape: Shape, value: Any, path: str) -> list[str]:
    """Enumerations, patterns and greatest lengths, which botocore leaves to the server."""
    kind = shape.type_name
    if getattr(shape, "is_document_type", False):
        return []
    if kind == "structure":
        unknown = [f"{path}.{name} is in no shape" for name in value if name not in shape.members]
        known = ((shape.members[name], inner, name) for name, inner in value.items() if name in shape.members)
        return unknown + [fault for member, inner, name in known for fault in _finer(member, inner, f"{path}.{name}")]
    if kind in {"list", "map"}:
        inner_shape = shape.member if kind == "list" else shape.value
        inners = value if kind == "list" else value.values()
        return [fault for inner in inners for fault in _finer(inner_shape, inner, f"{path}[]")]
    if kind != "string":
        return []
    pattern = shape.metadata.get("pattern", "")
    if shape.enum and value not in shape.enum:
        return [f"{path} is {value!r}, not one of {shape.enum}"]
    if len(value) > shape.metadata.get("max", len(value)):
        return [f"{path} is too long"]
    if pattern and "\\P{" not in pattern and not re.fullmatch(pattern, value):
        return [f"{path} is {value!r}, not {pattern}"]
    return []
