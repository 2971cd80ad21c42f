"""Every operation of both services, called by boto3: what it sends reaches AWS, what AWS answers reaches it."""

import json
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.model import Shape

from tests.conformance.conftest import Clients, Wire
from tests.conformance.judge import signature_of, untouched
from tests.fakes.running import Blocking
from tests.sandbox.examples import MODELS, OPERATIONS, arguments_for, faults_in

DEEPEST = 8


def method_of(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def call(client: Any, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call an operation and read its answer to the end."""
    answer: dict[str, Any] = getattr(client, method_of(name))(**arguments)
    for member, value in answer.items():
        if hasattr(value, "read"):
            answer[member] = value.read()
        elif hasattr(value, "close"):
            answer[member] = list(value)
    return answer


def everything(shape: Shape | None, depth: int = 0) -> Any:
    """Arguments with every member that the shape has, to a depth at which shapes that hold themselves end."""
    if shape is None:
        return {}
    if getattr(shape, "is_document_type", False):
        return {"é": [1.5, None, "/:%"]}
    if shape.type_name == "structure":
        return {name: everything(member, depth + 1) for name, member in members_of(shape, depth).items()}
    if shape.type_name == "list":
        return [everything(shape.member, depth + 1)] * max(1, shape.metadata.get("min", 1))
    if shape.type_name == "map":
        return {"key": everything(shape.value, depth + 1)}
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else "a b+c/d=e:f".ljust(shape.metadata.get("min", 1), "~")
    plain = {"blob": b"\x00\xff{}", "timestamp": 1_700_000_000, "boolean": True, "float": 0.5, "double": 0.5}
    return plain.get(shape.type_name, max(1, shape.metadata.get("min", 1)))


def members_of(shape: Shape, depth: int) -> dict[str, Shape]:
    if getattr(shape, "is_tagged_union", False):  # one of them, not one that holds the union again
        return dict(sorted(shape.members.items(), key=lambda item: item[1].type_name == "list")[:1])
    if depth < DEEPEST:
        return dict(shape.members)
    return {name: shape.members[name] for name in shape.required_members}


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_boto3_and_aws_see_the_bytes_that_the_other_sent(
    service: str, name: str, wire: Wire, clients: Clients, key: str
) -> None:
    client = clients(service, aws_access_key_id=key)
    operation = MODELS[service].operation_model(name)

    answer = call(client, name, arguments_for(operation))

    assert faults_in(operation, answer) == []
    untouched(wire.exchange)
    assert signature_of(wire.exchange.forwarded).region == "us-east-1"
    assert key.encode() not in wire.upstream_bytes


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_every_parameter_that_boto3_knows_is_forwarded_as_it_was_sent(
    service: str, name: str, wire: Wire, clients: Clients, key: str
) -> None:
    client = clients(service, aws_access_key_id=key)
    operation = MODELS[service].operation_model(name)
    arguments = everything(operation.input_shape)

    with suppress(ClientError):  # the sandbox knows AWS's rules; what matters here is that AWS was asked
        call(client, name, arguments)

    untouched(wire.exchange)
    signed = signature_of(wire.exchange.forwarded).headers
    sent = {field.decode().lower() for field, _ in wire.exchange.asked.fields}
    ours = {"x-amz-date", "x-amz-security-token"}
    assert {field for field in sent if field.startswith(("x-amz-", "x-amzn-"))} - ours <= set(signed)
    assert key.encode() not in wire.upstream_bytes


@pytest.mark.parametrize("suffix", ["", "/", "-websocket"])
def test_the_bidirectional_stream_is_refused_in_words(suffix: str, proxy: Blocking, wire: Wire, key: str) -> None:
    url = f"{proxy.bedrock}/model/amazon.nova-sonic-v1%3A0/invoke-with-bidirectional-stream{suffix}"
    request = urllib.request.Request(url, b"frames", {"Authorization": f"Bearer {key}"})  # noqa: S310  # it is http

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)  # noqa: S310  # as above

    with refused.value as answer:
        assert answer.status == 400
        assert answer.headers["x-amzn-ErrorType"] == "ValidationException"
        assert "HTTP/2" in json.loads(answer.read())["message"]
    assert wire.upstream_bytes == b""


def test_calls_at_the_same_time_get_each_their_own_answer(clients: Clients, key: str) -> None:
    client = clients("bedrock-runtime", aws_access_key_id=key, config={"max_pool_connections": 32})
    bodies = [f"{number}:".encode() * (1 + number * 97 % 5000) for number in range(200)]

    def echoed(body: bytes) -> bytes:
        answer: bytes = client.invoke_model(modelId="sandbox.echo", body=body)["body"].read()
        return answer

    with ThreadPoolExecutor(32) as threads:
        assert list(threads.map(echoed, bodies)) == bodies


def test_there_are_as_many_operations_as_botocore_lists() -> None:
    assert len(OPERATIONS) == sum(len(model.operation_names) for model in MODELS.values()) - 1
