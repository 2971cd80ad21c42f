"""Agents, knowledge bases, guardrails, models and profiles, as boto3 sees them."""

import json
from typing import Any

import pytest

from passthrough.sandbox import Sandbox
from tests.sandbox.client import call
from tests.sandbox.conftest import Clients

AGENT = {"agentId": "AGENT12345", "agentAliasId": "TSTALIASID", "sessionId": "session-1", "inputText": "hello there"}
RERANK = {
    "queries": [{"type": "TEXT", "textQuery": {"text": "red fox"}}],
    "sources": [
        {"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}}
        for text in ("a blue whale", "the red fox", "a red barn")
    ],
    "rerankingConfiguration": {
        "type": "BEDROCK_RERANKING_MODEL",
        "bedrockRerankingConfiguration": {
            "modelConfiguration": {"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0"},
            "numberOfResults": 2,
        },
    },
}


async def test_an_agent_answers_in_chunks_and_names_its_session(sandbox: Sandbox, clients: Clients) -> None:
    answer = await call(clients(sandbox, "bedrock-agent-runtime"), "invoke_agent", **AGENT)

    said = b"".join(event["chunk"]["bytes"] for event in answer["completion"])
    assert b"hello there" in said
    assert (answer["sessionId"], answer["contentType"]) == ("session-1", "application/json")


async def test_an_agents_final_answer_is_streamed_when_that_is_asked_for(sandbox: Sandbox, clients: Clients) -> None:
    asked = {**AGENT, "streamingConfigurations": {"streamFinalResponse": True}}

    answer = await call(clients(sandbox, "bedrock-agent-runtime"), "invoke_agent", **asked)

    assert len(answer["completion"]) > 10


async def test_an_agents_traces_hold_its_model_and_usage_once(sandbox: Sandbox, clients: Clients) -> None:
    answer = await call(clients(sandbox, "bedrock-agent-runtime"), "invoke_agent", **AGENT, enableTrace=True)

    steps = [event["trace"]["trace"]["orchestrationTrace"] for event in answer["completion"] if "trace" in event]
    metadata = [step["modelInvocationOutput"]["metadata"] for step in steps if "modelInvocationOutput" in step]
    raw = [step["modelInvocationOutput"]["rawResponse"]["content"] for step in steps if "modelInvocationOutput" in step]
    models = [step["modelInvocationInput"]["foundationModel"] for step in steps if "modelInvocationInput" in step]
    assert [one["usage"]["inputTokens"] for one in metadata] == [3]
    assert json.loads(raw[0])["usage"]["output_tokens"] == metadata[0]["usage"]["outputTokens"] > 0
    assert models == ["anthropic.claude-3-5-sonnet-20241022-v2:0"]
    assert answer["completion"][0]["trace"]["agentId"] == "AGENT12345"


async def test_an_inline_agent_runs_the_model_that_it_is_given(sandbox: Sandbox, clients: Clients) -> None:
    asked = {
        "sessionId": "s-1",
        "foundationModel": "amazon.nova-pro-v1:0",
        "instruction": "i" * 40,
        "enableTrace": True,
    }

    answer = await call(clients(sandbox, "bedrock-agent-runtime"), "invoke_inline_agent", **asked, inputText="hi")

    first = answer["completion"][0]["trace"]["trace"]["orchestrationTrace"]["modelInvocationInput"]
    assert first["foundationModel"] == "amazon.nova-pro-v1:0"


async def test_retrieval_gives_as_many_passages_as_asked_best_first(sandbox: Sandbox, clients: Clients) -> None:
    configuration = {"vectorSearchConfiguration": {"numberOfResults": 3}}

    answer = await call(
        clients(sandbox, "bedrock-agent-runtime"),
        "retrieve",
        knowledgeBaseId="KB12345678",
        retrievalQuery={"text": "foxes"},
        retrievalConfiguration=configuration,
    )

    scores = [result["score"] for result in answer["retrievalResults"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert "foxes" in answer["retrievalResults"][0]["content"]["text"]


async def test_generation_from_knowledge_cites_and_streams(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox, "bedrock-agent-runtime")

    whole = await call(client, "retrieve_and_generate", input={"text": "hello there"}, sessionId="s-1")
    streamed = await call(client, "retrieve_and_generate_stream", input={"text": "hello there"}, sessionId="s-1")

    events = streamed["stream"]
    assert "".join(event["output"]["text"] for event in events if "output" in event) == whole["output"]["text"]
    assert "hello there" in whole["output"]["text"]
    assert whole["citations"][0]["retrievedReferences"]
    assert "citation" in events[-1]
    assert whole["sessionId"] == streamed["sessionId"] == "s-1"


async def test_reranking_puts_the_document_with_the_words_of_the_query_first(
    sandbox: Sandbox, clients: Clients
) -> None:
    client = clients(sandbox, "bedrock-agent-runtime")

    answer = await call(client, "rerank", **RERANK)

    assert [result["index"] for result in answer["results"]] == [1, 2]


@pytest.mark.parametrize(
    ("text", "action", "units"),
    [("x" * 1001, "NONE", 2), ("please sandbox.intervene", "GUARDRAIL_INTERVENED", 1)],
)
async def test_a_guardrail_counts_units_of_a_thousand_characters(
    text: str, action: str, units: int, sandbox: Sandbox, clients: Clients
) -> None:
    asked: dict[str, Any] = {"guardrailIdentifier": "abc123", "guardrailVersion": "1", "source": "INPUT"}

    answer = await call(clients(sandbox), "apply_guardrail", **asked, content=[{"text": {"text": text}}])

    assert answer["action"] == action
    assert answer["usage"]["contentPolicyUnits"] == answer["usage"]["topicPolicyUnits"] == units
    assert bool(answer["outputs"]) == (action != "NONE")


async def test_guardrail_checks_report_what_was_asked_for(sandbox: Sandbox, clients: Clients) -> None:
    checks = {
        "contentFilter": {"categories": [{"category": "VIOLENCE"}]},
        "promptAttack": {"categories": [{"category": "JAILBREAK"}]},
    }
    messages = [{"role": "user", "content": [{"text": "hello"}]}]

    answer = await call(clients(sandbox), "invoke_guardrail_checks", messages=messages, checks=checks)

    assert set(answer["results"]) == set(answer["usage"]) == set(checks)


async def test_models_and_profiles_can_be_looked_up(sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox, "bedrock")
    application = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"

    model = await call(client, "get_foundation_model", modelIdentifier="amazon.nova-pro-v1:0")
    models = await call(client, "list_foundation_models")
    profiles = await call(client, "list_inference_profiles")
    system = await call(client, "get_inference_profile", inferenceProfileIdentifier="eu.amazon.nova-lite-v1:0")
    own = await call(client, "get_inference_profile", inferenceProfileIdentifier=application)

    assert model["modelDetails"]["modelName"] == "Nova Pro"
    assert len(models["modelSummaries"]) > 5
    assert all(one["inferenceProfileId"].startswith("us.") for one in profiles["inferenceProfileSummaries"])
    assert system["models"][0]["modelArn"].endswith("foundation-model/amazon.nova-lite-v1:0")
    assert own["inferenceProfileArn"] == application
    assert own["type"] == "APPLICATION"


@pytest.mark.parametrize("identifier", ["xx.anthropic.claude-v9", "arn:aws:bedrock:us-east-1:1:inference-profile/xx.y"])
async def test_a_profile_that_is_none_is_not_found(identifier: str, sandbox: Sandbox, clients: Clients) -> None:
    client = clients(sandbox, "bedrock")

    with pytest.raises(client.exceptions.ResourceNotFoundException):
        await call(client, "get_inference_profile", inferenceProfileIdentifier=identifier)
