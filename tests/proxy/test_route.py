"""Routing: which call a raw request target is, and which targets are refused."""

from urllib.parse import quote

import pytest

from passthrough.bedrock.operations import Call, ModelPlace, operations
from passthrough.errors import Refusal
from passthrough.proxy import route as phase
from passthrough.proxy.route import METHODS, route

SONNET = "anthropic.claude-3-sonnet-20240229-v1:0"
IMPORTED = "arn:aws:bedrock:us-east-1:123456789012:imported-model/abc"
FLOW = "arn:aws:bedrock:eu-west-1:123456789012:flow/FLOW123456"
ALIAS = f"{FLOW}/alias/ALIAS12345"
EXECUTION = f"{ALIAS}/execution/0123-abcd"
GUARDRAIL = "arn:aws:bedrock:us-east-1:123456789012:guardrail/abcd"


def refused(method: str, target: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        route(method, target)
    return caught.value


def unlisted(call: Call) -> bool:
    return call.operation.name == "" and call.operation.model_place is ModelPlace.UNKNOWN


@pytest.mark.parametrize(
    ("segment", "model"),
    [
        ("anthropic.claude-3-sonnet-20240229-v1%3A0", SONNET),  # AWS's SDKs
        ("anthropic.claude-3-sonnet-20240229-v1%3a0", SONNET),
        (SONNET, SONNET),  # Anthropic's SDKs
        ("%61nthropic.claude-3-sonnet-20240229-v1:0", SONNET),  # nobody, but the same to AWS
        ("arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aimported-model%2Fabc", IMPORTED),
        ("arn%3aaws%3Abedrock%3aus-east-1%3A123456789012%3Aimported-model%2fabc", IMPORTED),
        ("arn:aws:bedrock:us-east-1:123456789012:imported-model%2Fabc", IMPORTED),
        (IMPORTED, IMPORTED),  # Vercel's SDK, and hands
        (
            "arn:aws:bedrock:us-east-1:123456789012:custom-model/a.b/abc",
            "arn:aws:bedrock:us-east-1:123456789012:custom-model/a.b/abc",
        ),
        ("us.amazon.nova-pro-v1:0", "us.amazon.nova-pro-v1:0"),
        ("a+b", "a+b"),  # a plus is a plus in a path
        ("converse", "converse"),
        ("model/converse", "model/converse"),
        ("x" * 2048, "x" * 2048),
    ],
)
@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("converse", "Converse"),
        ("converse-stream", "ConverseStream"),
        ("invoke", "InvokeModel"),
        ("invoke-with-response-stream", "InvokeModelWithResponseStream"),
        ("count-tokens", "CountTokens"),
    ],
)
def test_a_model_comes_in_many_encodings_and_its_path_is_not_touched(
    segment: str, model: str, verb: str, name: str
) -> None:
    call = route("POST", f"/bedrock/model/{segment}/{verb}")
    assert (call.operation.name, call.model, call.resource) == (name, model, model)
    assert call.labels == {"modelId": model}
    assert call.path == f"/model/{segment}/{verb}"


@pytest.mark.parametrize(
    ("method", "path", "name", "labels"),
    [
        ("GET", f"/async-invoke/{IMPORTED}", "GetAsyncInvoke", (IMPORTED,)),
        ("GET", "/async-invoke", "ListAsyncInvokes", ()),
        ("POST", f"/guardrail/{GUARDRAIL}/version/1/apply", "ApplyGuardrail", (GUARDRAIL, "1")),
        ("POST", f"/guardrail/{GUARDRAIL.replace(':', '%3A')}/version/2/apply", "ApplyGuardrail", (GUARDRAIL, "2")),
        ("POST", f"/flows/{FLOW}/aliases/{ALIAS}", "InvokeFlow", (FLOW, ALIAS)),
        ("POST", f"/flows/{FLOW}/aliases/{ALIAS}/executions", "StartFlowExecution", (FLOW, ALIAS)),
        ("GET", f"/flows/{FLOW}/aliases/{ALIAS}/executions/{EXECUTION}", "GetFlowExecution", (FLOW, ALIAS, EXECUTION)),
        (
            "GET",
            f"/flows/F/aliases/{ALIAS}/executions/{EXECUTION}/events",
            "ListFlowExecutionEvents",
            ("F", ALIAS, EXECUTION),
        ),
        ("GET", f"/sessions/{FLOW}/", "GetSession", (FLOW,)),
        ("DELETE", f"/tags/{FLOW}", "UntagResource", (FLOW,)),
    ],
)
def test_arns_may_come_with_literal_slashes_wherever_a_label_stands(
    method: str, path: str, name: str, labels: tuple[str, ...]
) -> None:
    call = route(method, f"/bedrock{path}")
    assert (call.operation.name, tuple(call.labels.values()), call.path) == (name, labels, path)
    assert call.resource == (labels[0] if labels else None)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("PUT", "/sessions/", "CreateSession"),
        ("PUT", "/sessions", ""),
        ("PUT", "/sessions/s/", "UpdateSession"),
        ("PATCH", "/sessions/s", "EndSession"),
        ("PATCH", "/sessions/s/", ""),
        ("GET", "/sessions/s", ""),
        ("PUT", "/sessions/s/invocations/", "CreateInvocation"),
        ("POST", "/sessions/s/invocations/", "ListInvocations"),
        ("POST", "/sessions/s/invocations", ""),
        ("POST", "/sessions/s/invocationSteps/", "ListInvocationSteps"),
        ("POST", "/sessions/s/invocationSteps/i", "GetInvocationStep"),
        ("POST", "/agents/s", "InvokeInlineAgent"),
        ("POST", "/agents/s/", ""),  # bedrock-agent's PrepareAgent: not this host's
        ("GET", "/agents/s", ""),
        ("POST", "/rerank", "Rerank"),
        ("POST", "/rerank/", ""),
        ("POST", "/retrieveAndGenerate", "RetrieveAndGenerate"),
        ("POST", "/retrieveAndGenerateStream", "RetrieveAndGenerateStream"),
        ("POST", "/model/m/converse/", ""),
        ("POST", "/model/m//converse", ""),
        ("HEAD", "/model/m/converse", ""),
    ],
)
def test_slashes_and_methods_tell_operations_apart(method: str, path: str, name: str) -> None:
    call = route(method, f"/bedrock{path}")
    assert call.path == path
    assert call.operation.name == name
    assert (call.operation.model_place is ModelPlace.UNKNOWN) == (call.operation.name == "")


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/model/m/dream", "m"),
        ("/model/m/converse/", "m"),
        ("/model/m/dream/deeper", "m"),
        ("/model/a%3A0/dream", "a:0"),
        (f"/model/{IMPORTED}/dream", IMPORTED),
        (f"/model/{quote(IMPORTED, safe='')}/dream", IMPORTED),
        ("/model/m", "m"),
        ("/model/", None),
        ("/model", None),
        ("/guardrail/g/dream", None),
    ],
)
def test_a_path_that_no_model_lists_is_forwarded_as_unknown_with_the_model_it_names(
    path: str, model: str | None
) -> None:
    call = route("POST", f"/bedrock{path}")
    assert unlisted(call)
    assert (call.operation.service, call.path, call.model) == ("bedrock-runtime", path, model)
    assert call.labels == ({} if model is None else {"modelId": model})


@pytest.mark.parametrize(
    ("method", "path", "name", "place"),
    [
        ("POST", "/openai/v1/chat/completions", "OpenAIChatCompletions", ModelPlace.BODY),
        ("POST", "/openai/v1/responses", "OpenAIResponses", ModelPlace.BODY),
        ("POST", "/v1/chat/completions", "OpenAIChatCompletions", ModelPlace.BODY),
        ("POST", "/v1/responses", "OpenAIResponses", ModelPlace.BODY),
        ("POST", "/anthropic/v1/messages", "AnthropicMessages", ModelPlace.BODY),
        ("POST", "/anthropic/v1/messages/count_tokens", "AnthropicCountTokens", ModelPlace.BODY),
        ("GET", "/openai/v1/models", "OpenAIListModels", ModelPlace.NONE),
        ("GET", "/openai/v1/responses/r", "OpenAIGetResponse", ModelPlace.NONE),
        ("POST", "/openai/v1/batches", "", ModelPlace.UNKNOWN),
        ("POST", "/anthropic/v1/dreams", "", ModelPlace.UNKNOWN),
    ],
)
def test_bedrocks_openai_and_anthropic_shaped_paths_are_the_runtimes(
    method: str, path: str, name: str, place: ModelPlace
) -> None:
    call = route(method, f"/bedrock{path}")
    assert (call.operation.service, call.operation.name, call.operation.model_place) == ("bedrock-runtime", name, place)
    assert (call.model, call.operation.streams, call.path) == (None, False, path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/inference-profiles", "ListInferenceProfiles"),
        ("/inference-profiles/us.amazon.nova-lite-v1%3A0", "GetInferenceProfile"),
        ("/inference-profiles/arn:aws:bedrock:us-east-1:1:inference-profile/us.x", "GetInferenceProfile"),
        ("/foundation-models", "ListFoundationModels"),
        ("/foundation-models/amazon.nova-lite-v1:0", "GetFoundationModel"),
    ],
)
def test_of_the_control_plane_only_the_catalogue_is_read(path: str, name: str) -> None:
    call = route("GET", f"/bedrock{path}")
    assert (call.operation.service, call.operation.name, call.path) == ("bedrock", name, path)
    for method in METHODS - {"GET"}:
        assert refused(method, f"/bedrock{path}").status == 404


@pytest.mark.parametrize(
    ("prefix", "service"), [("bedrock-runtime", "bedrock-runtime"), ("bedrock-agent-runtime", "bedrock-agent-runtime")]
)
def test_a_prefix_can_name_the_host_outright(prefix: str, service: str) -> None:
    for operation in operations():
        path = operation.uri.replace("{", "x").replace("}", "")
        call = route(operation.method, f"/{prefix}{path}") if not operation.duplex else None
        if call is not None:
            assert call.operation.service == service
            assert call.operation.name == (operation.name if operation.service == service else "")
    assert unlisted(route("POST", f"/{prefix}/never-heard-of"))


def test_a_document_id_that_is_a_url_with_escapes_of_its_own_is_not_refused() -> None:
    document = "https://example.com/a%2Fb%20c/100%?q=ü"
    path = f"/knowledgebases/KB12345678/datasources/DS12345678/documents/{quote(document, safe='')}/content"
    call = route("POST", f"/bedrock{path}")
    assert (call.operation.name, call.labels["documentId"], call.path) == ("GetDocumentContent", document, path)


@pytest.mark.parametrize(
    "query", ["nextToken=a%20b%2B%2F%3D", "a=b?c=d", "flag", "a=é", "x=%zz", "a=/../b", "q" * 20_000]
)
def test_a_query_is_kept_as_it_came(query: str) -> None:
    call = route("GET", f"/bedrock/async-invoke?{query}")
    assert (call.operation.name, call.path, call.query) == ("ListAsyncInvokes", "/async-invoke", query)
    assert route("GET", "/bedrock/async-invoke").query == ""
    assert route("GET", "/bedrock/async-invoke?").query == ""


@pytest.mark.parametrize(
    ("path", "region"),
    [
        (f"/model/{quote(IMPORTED, safe='')}/converse", "us-east-1"),
        ("/model/arn:aws:bedrock:mars-west-1:1:imported-model%2Fx/invoke", None),
        ("/model/us.amazon.nova-lite-v1:0/invoke", None),
        (f"/flows/F/aliases/{quote(ALIAS, safe='')}", "eu-west-1"),
        (f"/model/{IMPORTED}/dream", "us-east-1"),
    ],
)
def test_the_region_of_an_arn_is_a_hint_if_aws_lists_it(path: str, region: str | None) -> None:
    assert route("POST", f"/bedrock{path}").region_hint == region


def test_a_repeated_target_is_remembered_without_its_query_and_a_long_one_is_not() -> None:
    phase._remembered.cache_clear()
    for n in range(10):
        route("GET", f"/bedrock/async-invoke?nextToken={n}")
    assert phase._remembered.cache_info().currsize == 1
    route("POST", f"/bedrock/model/{'x' * 1000}/converse")
    assert phase._remembered.cache_info().currsize == 1
    refused("POST", "/bedrock/model/../converse")
    assert phase._remembered.cache_info().currsize == 1
    for n in range(3000):
        route("POST", f"/bedrock/model/{n}/converse")
    assert phase._remembered.cache_info().currsize == 2048
