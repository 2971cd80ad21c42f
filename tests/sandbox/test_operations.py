"""Every operation of both services, called by boto3, answered with what its own shape allows."""

import asyncio
import re

import pytest

from passthrough.sandbox import Received, Sandbox
from tests.sandbox.client import ask_for, call
from tests.sandbox.conftest import Clients
from tests.sandbox.examples import MODELS, OPERATIONS, arguments_for, faults_in

STREAMS = [
    (service, name) for service, name in OPERATIONS if MODELS[service].operation_model(name).has_event_stream_output
]


def _method(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def test_the_services_have_the_operations_that_the_sandbox_was_written_for() -> None:
    assert len(OPERATIONS) == 45


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
async def test_boto3_reads_an_answer_that_is_valid_in_every_member(
    service: str, name: str, sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox, service)
    operation = MODELS[service].operation_model(name)

    answer = await call(client, _method(name), **arguments_for(operation))

    assert re.fullmatch(r"[0-9a-f-]{36}", answer["ResponseMetadata"]["RequestId"])
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == operation.http["responseCode"]
    assert faults_in(operation, answer) == []


@pytest.mark.parametrize(("service", "name"), STREAMS)
async def test_a_stream_has_every_event_type_of_its_shape_when_it_is_asked_for(
    service: str, name: str, sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox, service)
    ask_for(client, "every-event")
    operation = MODELS[service].operation_model(name)
    stream = operation.get_event_stream_output()

    answer = await call(client, _method(name), **arguments_for(operation))

    events = next(value for value in answer.values() if isinstance(value, list))
    expected = [event for event, shape in stream.members.items() if not shape.metadata.get("exception")]
    assert sorted(name for event in events for name in event) == sorted(expected)
    assert faults_in(operation, answer) == []


async def test_an_answer_speaks_of_what_the_request_named(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox, "bedrock-agent-runtime", region="eu-west-1")
    identifier = "arn:aws:bedrock:eu-west-1:123456789012:session/0e2dbd5a-5b1b-4c3e-8a6d-7d9c2f4b1a00"

    ended = await call(client, "end_session", sessionIdentifier=identifier)
    flow = await call(
        client,
        "get_flow_execution",
        flowIdentifier="FLOWABCDEF",
        flowAliasIdentifier="ALIASABCDE",
        executionIdentifier="e1",
    )

    assert ended["sessionId"] == "0e2dbd5a-5b1b-4c3e-8a6d-7d9c2f4b1a00"
    assert ended["sessionArn"] == identifier
    assert ended["sessionStatus"] == "ENDED"
    assert (flow["flowIdentifier"], flow["flowAliasIdentifier"]) == ("FLOWABCDEF", "ALIASABCDE")


async def test_a_flow_runs_to_its_end_without_asking_back(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox, "bedrock-agent-runtime")
    inputs = [{"content": {"document": "x"}, "nodeName": "FlowInput"}]

    answer = await call(client, "invoke_flow", flowIdentifier="F", flowAliasIdentifier="A", inputs=inputs)

    assert [name for event in answer["responseStream"] for name in event] == ["flowOutputEvent", "flowCompletionEvent"]
    assert answer["executionId"]


async def test_a_paginator_comes_to_an_end(sandbox: Sandbox, clients: Clients, journal: list[Received]) -> None:
    client = clients(sandbox, "bedrock-runtime")

    pages = await asyncio.to_thread(lambda: list(client.get_paginator("list_async_invokes").paginate()))

    assert len(pages) == len(journal) == 1
