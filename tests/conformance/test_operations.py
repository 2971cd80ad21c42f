"""Every operation of both services, called by boto3: what it sends reaches AWS, what AWS answers reaches it."""

import re
from typing import Any

import pytest

from tests.conformance.conftest import Clients, Wire
from tests.conformance.judge import signature_of, untouched
from tests.sandbox.examples import MODELS, OPERATIONS, arguments_for, faults_in

MODEL = "anthropic.claude-3-5-sonnet-20241022-v2:0"


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


def test_there_are_as_many_operations_as_botocore_lists() -> None:
    assert len(OPERATIONS) == sum(len(model.operation_names) for model in MODELS.values()) - 1
