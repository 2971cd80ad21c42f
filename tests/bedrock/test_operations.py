"""The table of operations against botocore's service models."""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader

from passthrough.bedrock.operations import (
    ModelPlace,
    Operation,
    Service,
    _derive,
    _place,
    _service_model,
    first_segment,
    operations,
    services,
)

PLACES = {
    ModelPlace.PATH: """Converse ConverseStream CountTokens InvokeModel InvokeModelWithBidirectionalStream
        InvokeModelWithResponseStream""",
    ModelPlace.BODY: """StartAsyncInvoke RetrieveAndGenerate RetrieveAndGenerateStream Rerank InvokeInlineAgent
        OptimizePrompt GenerateQuery AgenticRetrieveStream""",
    ModelPlace.AWS: "InvokeAgent InvokeFlow StartFlowExecution Retrieve",
    ModelPlace.NONE: """ApplyGuardrail InvokeGuardrailChecks GetAsyncInvoke ListAsyncInvokes CheckIngestedDocumentAcl
        CreateInvocation CreateSession DeleteAgentMemory DeleteSession EndSession GetAgentMemory GetDocumentContent
        GetExecutionFlowSnapshot GetFlowExecution GetIngestedDocumentAcl GetInvocationStep GetSession
        ListFlowExecutionEvents ListFlowExecutions ListInvocationSteps ListInvocations ListSessions
        ListTagsForResource PutInvocationStep StopFlowExecution TagResource UntagResource UpdateSession""",
}


def listed(service: Service) -> dict[str, Operation]:
    return {each.name: each for each in operations() if each.service == service}


def named(name: str) -> Operation:
    return next(each for each in operations() if each.name == name)


def derived(shape: dict[str, Any], uri: str = "/dream") -> Operation:
    """Give what an operation of tomorrow's botocore would be."""
    model = {
        "name": "Dream",
        "http": {"method": "POST", "requestUri": uri},
        "input": {"shape": "In"},
        "output": {"shape": "Out"},
    }
    shapes = {"In": shape, "Out": {"type": "structure", "members": {}}, "Text": {"type": "string"}}
    return _derive("bedrock-runtime", model, shapes)


@pytest.mark.parametrize("service", ["bedrock-runtime", "bedrock-agent-runtime"])
def test_every_operation_that_botocore_lists_is_served_as_it_lists_it(service: Service) -> None:
    model = Loader().load_service_model(service, "service-2")
    ours = listed(service)
    for name, theirs in model["operations"].items():
        assert (ours[name].method, ours[name].uri) == (theirs["http"]["method"], theirs["http"]["requestUri"])
    assert {name for name in ours if not name.startswith(("OpenAI", "Anthropic"))} == set(model["operations"])


@pytest.mark.parametrize(("place", "names"), PLACES.items())
def test_the_46_known_operations_have_their_places(place: ModelPlace, names: str) -> None:
    assert {name: named(name).model_place for name in names.split()} == dict.fromkeys(names.split(), place)
    assert sum(len(names.split()) for names in PLACES.values()) == 46


def test_streaming_operations_are_those_whose_output_is_an_event_stream() -> None:
    assert {each.name for each in operations() if each.streams} == {
        "AgenticRetrieveStream",
        "ConverseStream",
        "InvokeAgent",
        "InvokeFlow",
        "InvokeInlineAgent",
        "InvokeModelWithBidirectionalStream",
        "InvokeModelWithResponseStream",
        "OptimizePrompt",
        "RetrieveAndGenerateStream",
    }
    assert [each.name for each in operations() if each.duplex] == ["InvokeModelWithBidirectionalStream"]


@pytest.mark.parametrize(
    ("name", "has_body"),
    [
        ("Converse", True),
        ("InvokeModel", True),
        ("CreateSession", True),
        ("TagResource", True),
        ("EndSession", False),
        ("ListSessions", False),
        ("StopFlowExecution", False),
        ("UntagResource", False),
        ("GetAsyncInvoke", False),
    ],
)
def test_an_operation_has_a_body_if_something_is_neither_in_path_query_nor_header(name: str, has_body: bool) -> None:  # noqa: FBT001  # a table's column
    assert named(name).has_body is has_body


def test_labels_are_botocores_member_names_in_the_order_of_the_path() -> None:
    assert named("GetFlowExecution").labels == ("flowIdentifier", "flowAliasIdentifier", "executionIdentifier")
    assert named("CreateSession").labels == ()


def test_an_operation_nobody_placed_is_unknown() -> None:
    assert derived({"type": "structure", "members": {"text": {"shape": "Text"}}}).model_place is ModelPlace.UNKNOWN


def test_a_new_operation_below_a_model_has_its_model_in_the_path() -> None:
    members = {"modelId": {"shape": "Text", "location": "uri", "locationName": "modelId"}}
    dream = derived({"type": "structure", "members": members}, uri="/model/{modelId}/dream")
    assert (dream.model_place, dream.labels, dream.has_body) == (ModelPlace.PATH, ("modelId",), False)
    assert dream.body_models == ()


def test_a_new_operation_whose_body_can_name_a_model_has_it_in_the_body() -> None:
    dream = derived({"type": "structure", "members": {"modelArn": {"shape": "Text"}}})
    assert (dream.model_place, dream.body_models) == (ModelPlace.BODY, (("modelArn",),))


def test_an_operation_that_starts_to_take_a_model_stops_being_free_of_models() -> None:
    assert _place("CreateSession", (), ()) is ModelPlace.NONE
    assert _place("CreateSession", (), (("modelArn",),)) is ModelPlace.BODY


def test_a_recursive_shape_is_walked_to_an_end() -> None:
    members = {"modelId": {"shape": "Text"}, "then": {"shape": "In"}}
    assert derived({"type": "structure", "members": members}).body_models == (("modelId",),)


def test_where_the_body_decides_the_table_says_where_in_the_body() -> None:
    for each in operations():
        if each.model_place is ModelPlace.BODY:
            assert each.body_models or each.body_resources, each.name
    assert named("StartAsyncInvoke").body_models == (("modelId",),)
    assert named("OptimizePrompt").body_models == (("targetModelId",),)
    assert named("OpenAIChatCompletions").body_models == (("model",),)
    inline = named("InvokeInlineAgent")
    assert ("foundationModel",) in inline.body_models
    assert ("collaborators", "[]", "foundationModel") in inline.body_models
    assert ("collaboratorConfigurations", "[]", "agentAliasArn") in inline.body_resources
    (knowledge_base,) = named("GenerateQuery").body_resources
    assert knowledge_base[-1] == "knowledgeBaseArn"


def test_an_operation_that_aws_decides_may_name_further_models_in_its_body() -> None:
    assert {path[-1] for path in named("Retrieve").body_models} == {"modelArn"}
    assert named("InvokeFlow").body_models == ()


def test_the_first_segment_of_a_path_belongs_to_one_service() -> None:
    assert {(first_segment(each.uri), each.service) for each in operations()} == set(services().items())


def test_the_control_plane_is_only_read() -> None:
    assert {name: each.method for name, each in listed("bedrock").items()} == dict.fromkeys(
        ("GetFoundationModel", "GetInferenceProfile", "ListFoundationModels", "ListInferenceProfiles"), "GET"
    )


def test_a_model_file_in_the_users_home_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "bedrock-runtime" / "2999-01-01"
    home.mkdir(parents=True)
    (home / "service-2.json").write_text(json.dumps({"metadata": {}, "operations": {}, "shapes": {}}))
    monkeypatch.setattr(Loader, "CUSTOMER_DATA_PATH", str(tmp_path))
    assert Loader().load_service_model("bedrock-runtime", "service-2")["operations"] == {}, "botocore itself reads it"
    assert "Converse" in _service_model("bedrock-runtime")["operations"]
