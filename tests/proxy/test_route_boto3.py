"""Routing what boto3 puts on the wire: every operation that botocore can call, with labels of every shape."""

import datetime as dt
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.model import OperationModel, Shape

from passthrough.bedrock.operations import Service, operations
from passthrough.proxy.route import route

SERVICES: tuple[Service, ...] = ("bedrock-runtime", "bedrock-agent-runtime")
# botocore lists it, but has no transport that could call it; passthrough refuses it.
UNCALLABLE = {"InvokeModelWithBidirectionalStream"}
LABELS = (
    "a",
    "anthropic.claude-3-sonnet-20240229-v1:0",
    "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-sonnet-20240229-v1:0",
    "arn:aws:bedrock:eu-west-1:123456789012:custom-model/amazon.titan-v1/abcdef123456",
    "arn:aws:bedrock:eu-west-1:123456789012:flow/FLOW123456/alias/ALIAS12345/execution/0123-abcd",
    "arn:aws:sagemaker:us-east-1:123456789012:endpoint/mine",
    "a b+c~d_e-f.g!$&'()*,;=@",
    "converse",
    "s3://bucket/ordner/straße.pdf",
)


class OnTheWire(Exception):  # noqa: N818  # not an error: it ends the call where the bytes would leave
    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__(request.url)
        self.request = request


def stop(request: AWSPreparedRequest, **_: object) -> None:
    raise OnTheWire(request)


@pytest.fixture(scope="module")
def clients() -> dict[Service, Any]:
    session = boto3.session.Session(region_name="us-east-1")
    # Validation off: some labels here are shorter than botocore lets an ARN be.
    config = Config(signature_version=UNSIGNED, parameter_validation=False, retries={"total_max_attempts": 1})
    made = {name: session.client(name, endpoint_url="http://127.0.0.1:9/bedrock", config=config) for name in SERVICES}
    for client in made.values():
        client.meta.events.register("before-send", stop)
    return made


def value(shape: Shape) -> Any:
    """The least that botocore accepts for a shape. Recursive ones end, as only what is required is filled."""
    match shape.type_name:
        case "structure":
            names = list(shape.required_members) or list(shape.members)[: bool(shape.is_tagged_union)]
            return {} if shape.is_document_type else {name: value(shape.members[name]) for name in names}
        case "list":
            return [value(shape.member)] * shape.metadata.get("min", 1)
        case "map":
            return {"key": value(shape.value)}
        case "string":
            return (shape.enum or ["x" * max(shape.metadata.get("min", 1), 1)])[0]
        case "integer" | "long" | "float" | "double":
            return max(shape.metadata.get("min", 1), 1)
        case "boolean":
            return True
        case "blob":
            return b"{}"
        case "timestamp":
            return dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    raise AssertionError(shape)


def arguments(operation: OperationModel, labels: dict[str, str]) -> dict[str, Any]:
    if operation.input_shape is None:
        return {}
    # What goes into the query is filled too: it must not disturb the path.
    query = {
        name: value(member)
        for name, member in operation.input_shape.members.items()
        if member.serialization.get("location") == "querystring"
    }
    return query | value(operation.input_shape) | labels


def sent(client: Any, operation: OperationModel, labels: dict[str, str]) -> tuple[str, str]:
    """Method and request target as they would leave."""
    method = client.meta.method_to_api_mapping
    call = getattr(client, next(ours for ours, theirs in method.items() if theirs == operation.name))
    with pytest.raises(OnTheWire) as wire:
        call(**arguments(operation, labels))
    url = urlsplit(str(wire.value.request.url))
    return str(wire.value.request.method), url.path + (f"?{url.query}" if url.query else "")


CALLABLE = [
    (each.service, each.name)
    for each in operations()
    if each.service in SERVICES and not each.name.startswith(("OpenAI", "Anthropic")) and each.name not in UNCALLABLE
]


@pytest.mark.parametrize(("service", "name"), CALLABLE)
def test_what_boto3_sends_is_routed_to_its_operation_with_its_labels(
    clients: dict[Service, Any], service: Service, name: str
) -> None:
    client = clients[service]
    operation = client.meta.service_model.operation_model(name)
    ours = next(each for each in operations() if each.name == name)
    # All labels alike, and one of each kind beside its neighbours.
    for first, rest in (
        {*zip(LABELS, LABELS, strict=True), *product(LABELS[:3], LABELS[3:5])} if ours.labels else {("", "")}
    ):
        labels = dict.fromkeys(ours.labels, rest) | dict.fromkeys(ours.labels[:1], first)
        method, target = sent(client, operation, labels)
        call = route(method, target)
        assert (call.operation, dict(call.labels)) == (ours, labels)
        assert f"/bedrock{call.path}" + (f"?{call.query}" if call.query else "") == target
        assert call.model == labels.get("modelId")
        assert call.resource == next(iter(labels.values()), None)


def test_boto3_can_call_all_operations_but_the_bidirectional_one() -> None:
    assert len(CALLABLE) >= 45
