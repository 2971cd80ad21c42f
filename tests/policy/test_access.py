"""The allow-list cannot be walked around: every way that somebody thought of is a line here."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.operations import Call
from passthrough.errors import Refusal
from passthrough.policy import access
from passthrough.policy.keys import VirtualKey
from passthrough.proxy.route import route

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
NOVA = "amazon.nova-lite-v1:0"
HAIKU_ARN = f"arn:aws:bedrock:us-east-1::foundation-model/{HAIKU}"
PROFILE_ARN = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{HAIKU}"
APPLICATION_PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
KNOWLEDGE_BASE = "KB12345678"


def key(*models: str, **restrictions: object) -> VirtualKey:
    return VirtualKey(key_id="k", models=models, model_lists=(models,) if models else (), **restrictions)  # type: ignore[arg-type]  # of any of its fields


def call(path: str, method: str = "POST") -> Call:
    return route(method, "/bedrock" + path)


def refused(holder: VirtualKey, asked: Call, body: bytes = b"") -> Refusal | None:
    try:
        access.check_operation(holder, asked)
        access.check_model(holder, asked)
        access.check_body(holder, asked, body)
    except Refusal as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    "pattern",
    [HAIKU, "anthropic.*", "*", "anthropic.claude-3-haiku-*", "*haiku*"],
)
@pytest.mark.parametrize(
    "spelling",
    [
        HAIKU,
        HAIKU.replace(":", "%3A"),
        HAIKU.replace(":", "%3a"),
        "us." + HAIKU,
        "eu." + HAIKU,
        "global." + HAIKU,
        HAIKU_ARN,
        HAIKU_ARN.replace(":", "%3A").replace("/", "%2F"),
        HAIKU_ARN.replace("/", "%2f"),
        PROFILE_ARN,
        PROFILE_ARN.replace("/", "%2F"),
    ],
)
def test_a_pattern_covers_the_model_in_every_spelling(pattern: str, spelling: str) -> None:
    assert refused(key(pattern), call(f"/model/{spelling}/converse")) is None


@pytest.mark.parametrize(
    "path",
    [
        f"/model/{NOVA}/converse",
        f"/model/{NOVA.replace(':', '%3A')}/invoke",
        f"/model/us.{NOVA}/converse-stream",
        f"/model/arn:aws:bedrock:us-east-1::foundation-model/{NOVA}/converse",
        f"/model/{APPLICATION_PROFILE}/converse",
        "/model/arn:aws:bedrock:us-east-1:123456789012:prompt-router/r1/converse",
        "/model/arn:aws:bedrock:us-east-1:123456789012:prompt/P1:1/converse",
        "/model/arn:aws:sagemaker:us-east-1:123456789012:endpoint/e/invoke",
        "/model/x.anthropic.claude/converse",
        f"/model/evil/{HAIKU}/converse",
        f"/model/{HAIKU.upper()}/converse",
        f"/model/{NOVA}/count-tokens",
        f"/model/{NOVA}/invoke-with-response-stream",
        f"/model/{HAIKU}/an-operation-of-tomorrow",
        "/agents/AGENT/agentAliases/ALIAS/sessions/s1/text",
        "/flows/FLOW/aliases/ALIAS",
        f"/knowledgebases/{KNOWLEDGE_BASE}/retrieve",
        "/openai/v1/batches",
        "/v1/files",
        "/anthropic/v1/anything",
        "/sessions/unknown/of/tomorrow",
    ],
)
def test_what_is_not_listed_or_not_known_is_refused(path: str) -> None:
    refusal = refused(key("anthropic.claude-*", HAIKU), call(path), b"{}")
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "AccessDeniedException")


def test_an_empty_list_allows_every_model() -> None:
    assert refused(key(), call(f"/model/{NOVA}/converse")) is None
    assert refused(key(), call("/model/x/an-operation-of-tomorrow")) is None


def test_every_list_that_binds_must_allow_the_model() -> None:
    holder = VirtualKey(key_id="k", models=("*",), model_lists=(("*",), ("anthropic.*",)))
    assert refused(holder, call(f"/model/{HAIKU}/converse")) is None
    assert refused(holder, call(f"/model/{NOVA}/converse")) is not None


def test_a_geography_in_the_pattern_allows_that_geography_alone() -> None:
    holder = key("us.anthropic.*")
    assert refused(holder, call(f"/model/us.{HAIKU}/converse")) is None
    assert refused(holder, call(f"/model/{PROFILE_ARN}/converse")) is None
    assert refused(holder, call(f"/model/{HAIKU}/converse")) is not None
    assert refused(holder, call(f"/model/eu.{HAIKU}/converse")) is not None


def test_a_resource_that_decides_the_model_has_to_be_listed() -> None:
    asked = call(f"/knowledgebases/{KNOWLEDGE_BASE}/retrieve")
    assert refused(key(HAIKU, KNOWLEDGE_BASE), asked, b"{}") is None
    assert refused(key(HAIKU, "KB*"), asked, b"{}") is None
    assert refused(key(HAIKU), asked, b"{}") is not None


def retrieve_and_generate(model: str) -> bytes:
    return json.dumps(
        {
            "input": {"text": "q"},
            "retrieveAndGenerateConfiguration": {
                "type": "KNOWLEDGE_BASE",
                "knowledgeBaseConfiguration": {"knowledgeBaseId": KNOWLEDGE_BASE, "modelArn": model},
            },
        }
    ).encode()


def test_the_model_in_a_body_is_judged_and_the_knowledge_base_beside_it() -> None:
    asked = call("/retrieveAndGenerate")
    assert refused(key(HAIKU, KNOWLEDGE_BASE), asked, retrieve_and_generate(HAIKU_ARN)) is None
    assert refused(key(HAIKU), asked, retrieve_and_generate(HAIKU_ARN)) is not None
    assert (
        refused(
            key(HAIKU, KNOWLEDGE_BASE),
            asked,
            retrieve_and_generate(f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}"),
        )
        is not None
    )


@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/v1/responses", "/anthropic/v1/messages"])
def test_the_model_of_the_openai_and_anthropic_shapes_is_judged(path: str) -> None:
    assert refused(key(HAIKU), call(path), json.dumps({"model": HAIKU}).encode()) is None
    assert refused(key(HAIKU), call(path), json.dumps({"model": NOVA}).encode()) is not None


DOUBTFUL = {
    "nothing": b"",
    "no model": b"{}",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"text"',
    "model null": b'{"model": null}',
    "model a number": b'{"model": 7}',
    "model a list": f'{{"model": ["{HAIKU}"]}}'.encode(),
    "named twice": f'{{"model": "{HAIKU}", "model": "{NOVA}"}}'.encode(),
    "named twice, capitals": f'{{"model": "{HAIKU}", "Model": "{NOVA}"}}'.encode(),
    "named twice, escaped": f'{{"model": "{HAIKU}", "mod\\u0065l": "{NOVA}"}}'.encode(),
    "in capitals": f'{{"Model": "{NOVA}"}}'.encode(),
    "two documents": f'{{"model": "{HAIKU}"}} {{"model": "{NOVA}"}}'.encode(),
    "trailing comma": f'{{"model": "{HAIKU}",}}'.encode(),
    "NaN": f'{{"model": "{HAIKU}", "temperature": NaN}}'.encode(),
    "BOM": b"\xef\xbb\xbf" + f'{{"model": "{HAIKU}"}}'.encode(),
    "UTF-16": f'{{"model": "{HAIKU}"}}'.encode("utf-16"),
    "UTF-32": f'{{"model": "{HAIKU}"}}'.encode("utf-32-le"),
    "not UTF-8": f'{{"model": "{HAIKU}", "x": "'.encode() + b'\xff"}',
    "deep": f'{{"model": "{HAIKU}", "deep": '.encode() + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a form": f"model={HAIKU}".encode(),
    "NUL behind the model": f'{{"model": "{HAIKU}\\u0000"}}'.encode(),
    "a space before the model": f'{{"model": " {HAIKU}"}}'.encode(),
}


@pytest.mark.parametrize("body", DOUBTFUL.values(), ids=DOUBTFUL.keys())
def test_a_body_that_readers_could_differ_about_is_refused(body: bytes) -> None:
    refusal = refused(key(HAIKU), call("/openai/v1/chat/completions"), body)
    assert refusal is not None
    assert refusal.status in {400, 403}


def test_a_further_model_that_a_call_can_run_is_judged_too() -> None:
    asked = call(f"/knowledgebases/{KNOWLEDGE_BASE}/retrieve")
    reranking = {
        "retrievalQuery": {"text": "q"},
        "retrievalConfiguration": {
            "vectorSearchConfiguration": {
                "rerankingConfiguration": {
                    "type": "BEDROCK_RERANKING_MODEL",
                    "bedrockRerankingConfiguration": {
                        "modelConfiguration": {
                            "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0"
                        }
                    },
                }
            }
        },
    }
    assert refused(key(HAIKU, KNOWLEDGE_BASE), asked, json.dumps(reranking).encode()) is not None
    assert refused(key("cohere.*", KNOWLEDGE_BASE), asked, json.dumps(reranking).encode()) is None


def test_a_collaborator_of_an_inline_agent_is_judged() -> None:
    asked = call("/agents/session-1")
    body = {
        "foundationModel": HAIKU,
        "instruction": "x" * 40,
        "collaborators": [{"foundationModel": NOVA, "instruction": "y" * 40}],
    }
    assert refused(key(HAIKU), asked, json.dumps(body).encode()) is not None
    assert refused(key(HAIKU, NOVA), asked, json.dumps(body).encode()) is None


def test_a_key_without_a_list_sends_any_body() -> None:
    assert refused(key(), call("/openai/v1/chat/completions"), b"\xff not json") is None


@pytest.mark.parametrize(
    ("routes", "path", "allowed"),
    [
        (("Converse",), f"/model/{HAIKU}/converse", True),
        (("Converse",), f"/model/{HAIKU}/converse-stream", False),
        (("bedrock-runtime",), f"/model/{HAIKU}/invoke", True),
        (("bedrock-runtime",), f"/knowledgebases/{KNOWLEDGE_BASE}/retrieve", False),
        (("/bedrock/model/*",), f"/model/{HAIKU}/invoke", True),
        (("/model/*/converse",), f"/model/{HAIKU}/invoke", False),
        (("llm_api_routes",), f"/model/{HAIKU}/invoke", True),
        (("",), "/model/x/an-operation-of-tomorrow", False),
    ],
)
def test_allowed_routes_are_operations_services_or_patterns(
    routes: tuple[str, ...], path: str, *, allowed: bool
) -> None:
    assert (refused(key(allowed_routes=routes), call(path)) is None) is allowed


def test_a_region_that_is_not_allowed_is_refused() -> None:
    holder = key(allowed_regions=("eu-*", "us-east-1"))
    access.check_region(holder, "eu-central-1")
    access.check_region(holder, "us-east-1")
    with pytest.raises(Refusal, match="us-west-2"):
        access.check_region(holder, "us-west-2")


@given(st.text(), st.text())
def test_a_pattern_is_a_wildcard_and_never_an_expression(pattern: str, text: str) -> None:
    star = pattern.replace("*", "")
    assert access.matches(star, text) is (star == text)
    assert access.matches("*", text)
    assert access.matches(star + "*", star + text)
    assert access.matches("*" + star, text + star)


SESSION = "arn:aws:bedrock:us-east-1:123456789012:session/3f2a"
INVOCATION = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/abc"
ANYBODYS = {
    "ListSessions": ("POST", "/sessions/"),
    "GetSession": ("GET", "/sessions/3f2a/"),
    "UpdateSession": ("PUT", "/sessions/3f2a/"),
    "EndSession": ("PATCH", "/sessions/3f2a"),
    "DeleteSession": ("DELETE", "/sessions/3f2a/"),
    "CreateInvocation": ("PUT", "/sessions/3f2a/invocations/"),
    "ListInvocations": ("POST", "/sessions/3f2a/invocations/"),
    "PutInvocationStep": ("PUT", "/sessions/3f2a/invocationSteps/"),
    "GetInvocationStep": ("POST", "/sessions/3f2a/invocationSteps/s"),
    "ListInvocationSteps": ("POST", "/sessions/3f2a/invocationSteps/"),
    "TagResource": ("POST", f"/tags/{SESSION}"),
    "UntagResource": ("DELETE", f"/tags/{SESSION}"),
    "ListTagsForResource": ("GET", f"/tags/{SESSION}"),
    "GetAsyncInvoke": ("GET", f"/async-invoke/{INVOCATION}"),
    "ListAsyncInvokes": ("GET", "/async-invoke"),
    "OpenAIGetResponse": ("GET", "/openai/v1/responses/resp_1"),
    "OpenAIDeleteResponse": ("DELETE", "/v1/responses/resp_1"),
    "OpenAICancelResponse": ("POST", "/v1/responses/resp_1/cancel"),
    "OpenAIListInputItems": ("GET", "/v1/responses/resp_1/input_items"),
}


@pytest.mark.parametrize("operation", ANYBODYS)
def test_what_other_keys_calls_left_with_aws_is_not_for_a_key_with_a_list(operation: str) -> None:
    method, path = ANYBODYS[operation]
    asked = call(path, method)
    assert asked.operation.name == operation
    for narrow in (key(HAIKU), key("anthropic.claude-3-haiku*", allowed_routes=("llm_api_routes",))):
        refusal = refused(narrow, asked)
        assert refusal is not None
        assert refusal.status == 403
        assert refusal.message.endswith(
            f"ask your administrator to add it to models, or {operation} to allowed_routes."
        )
    assert refused(key(), asked) is None
    assert refused(key("*"), asked) is None
    assert refused(key(HAIKU, allowed_routes=("Converse", operation)), asked) is None


@pytest.mark.parametrize("operation", [name for name, (_, path) in ANYBODYS.items() if "3f2a" in path])
def test_a_session_can_be_listed_as_a_model_can(operation: str) -> None:
    method, path = ANYBODYS[operation]
    assert refused(key(HAIKU, "*3f2a"), call(path, method)) is None
    assert refused(key(HAIKU, "3f2b", "*session/3f2b"), call(path, method)) is not None


def test_every_list_has_to_have_what_may_be_anybodys() -> None:
    holder = VirtualKey(key_id="k", models=("*",), model_lists=(("*",), ("anthropic.*", "resp_*")))
    assert refused(holder, call("/v1/responses/resp_1", "GET")) is None
    assert refused(holder, call("/async-invoke", "GET")) is not None


@pytest.mark.parametrize(
    ("routes", "granted"),
    [
        (("/bedrock/sessions/*",), True),
        (("/sessions*",), True),
        (("/sessions/3f2a/*",), True),
        (("/sessions/other/*", "*"), False),
        (("/sessions/other/*", "bedrock-agent-runtime"), False),
        (("/*",), False),
        (("/bedrock/*",), False),
        (("/sess*",), False),
        (("llm_api_routes",), False),
    ],
)
def test_a_route_grants_what_may_be_anybodys_where_it_spells_it(routes: tuple[str, ...], *, granted: bool) -> None:
    assert (refused(key(HAIKU, allowed_routes=routes), call("/sessions/3f2a/", "GET")) is None) is granted


@pytest.mark.parametrize("member", ["previous_response_id", "conversation"])
def test_going_on_from_a_stored_answer_is_reading_it(member: str) -> None:
    asked, body = call("/openai/v1/responses"), json.dumps({"model": HAIKU, member: "resp_1"}).encode()
    assert refused(key(HAIKU), asked, body) is not None
    assert refused(key(HAIKU, "resp_*"), asked, body) is None
    assert refused(key(HAIKU, allowed_routes=("OpenAIResponses", "OpenAIGetResponse")), asked, body) is None
    assert refused(key(HAIKU), asked, json.dumps({"model": HAIKU, member: None}).encode()) is None
    assert refused(key(HAIKU, "resp_*"), asked, json.dumps({member: "resp_1"}).encode()) is not None
