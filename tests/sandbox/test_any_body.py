"""Whatever is sent to whatever operation: an answer or a refusal, never a bug."""

import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passthrough.sandbox import DEFAULT_BEARER_TOKEN, Received
from passthrough.sandbox.access import DEFAULT_CREDENTIALS, Gate
from passthrough.sandbox.desk import Desk
from passthrough.sandbox.exchange import Streamed
from tests.sandbox.client import sign
from tests.sandbox.test_agents_and_knowledge import AGENT, RERANK
from tests.sandbox.test_converse import TOOL
from tests.sandbox.test_invoke import TALKERS

Json = dict[str, Any]
DESK = Desk(Gate([DEFAULT_CREDENTIALS], bearer_token=DEFAULT_BEARER_TOKEN, region=None), clock=time.time)
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": ["array", "null"], "items": {"enum": [1]}}, "b": {"anyOf": [{"type": "integer"}]}},
}
CONVERSE: Json = {
    "messages": [{"role": "user", "content": [{"text": "a"}, {"cachePoint": {"type": "default", "ttl": "1h"}}]}],
    "system": [{"text": "s"}],
    "inferenceConfig": {"maxTokens": 4},
    "toolConfig": {"tools": [TOOL], "toolChoice": {"any": {}}},
    "guardrailConfig": {"guardrailIdentifier": "a", "guardrailVersion": "1", "trace": "enabled"},
}
MESSAGES: Json = {
    "model": "m",
    "anthropic_version": "x",
    "max_tokens": 5,
    "stream": True,
    "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    "tools": [{"name": "w", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "w"},
}
OPENAI: Json = {
    "model": "m",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    "input": [{"role": "user", "content": "x"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": [{"type": "function", "function": {"name": "w", "parameters": SCHEMA}}],
    "tool_choice": "required",
}
TEXT = [{"role": "user", "content": [{"text": "a"}]}]
GOOD: list[tuple[str, Json]] = [
    ("/model/m/converse", CONVERSE),
    ("/model/m/converse-stream", CONVERSE),
    ("/model/m/count-tokens", {"input": {"converse": CONVERSE}}),
    ("/model/m/count-tokens", {"input": {"invokeModel": {"body": "eyJwcm9tcHQiOiAiYSJ9"}}}),
    ("/anthropic/v1/messages", MESSAGES),
    ("/anthropic/v1/messages/count_tokens", MESSAGES),
    ("/openai/v1/chat/completions", OPENAI),
    ("/openai/v1/responses", OPENAI),
    ("/model/anthropic.x/invoke", MESSAGES),
    ("/model/amazon.nova-x/invoke-with-response-stream", CONVERSE),
    ("/model/amazon.titan-embed-text-v2:0/invoke", {"inputText": "a", "dimensions": 8, "embeddingTypes": ["float"]}),
    ("/model/amazon.titan-embed-image-v1/invoke", {"embeddingConfig": {"outputEmbeddingLength": 4}, "inputText": "a"}),
    ("/model/amazon.nova-embed/invoke", {"singleEmbeddingParams": {"embeddingDimension": 4, "text": {"value": "a"}}}),
    ("/model/cohere.embed-v4:0/invoke", {"texts": ["a"], "embedding_types": ["float"], "output_dimension": 5}),
    ("/model/cohere.rerank-v3/invoke", {"query": "a", "documents": ["a", {"text": "b"}], "top_n": 1}),
    ("/model/stability.x/invoke", {"imageGenerationConfig": {"numberOfImages": 2}}),
    ("/guardrail/g/version/1/apply", {"source": "INPUT", "content": [{"text": {"text": "a"}}]}),
    (
        "/guardrail-checks/invoke",
        {"messages": TEXT, "checks": {"promptAttack": {"categories": [{"category": "JAILBREAK"}]}}},
    ),
    ("/rerank", RERANK),
    ("/knowledgebases/k/retrieve", {"retrievalQuery": {"text": "a"}, "retrievalConfiguration": {}}),
    ("/retrieveAndGenerate", {"input": {"text": "x"}, "sessionId": "s-1"}),
    ("/retrieveAndGenerateStream", {"input": {"text": "x"}, "sessionId": "s-1"}),
    ("/agents/a/agentAliases/b/sessions/s-1/text", {**AGENT, "enableTrace": True, "streamingConfigurations": {}}),
    ("/agents/s-1", {"foundationModel": "m", "instruction": "i" * 40, "enableTrace": True}),
    ("/flows/f/aliases/a", {"inputs": [{"content": {"document": {}}, "nodeName": "n"}], "enableTrace": True}),
    *(
        (f"/model/{model.replace('/', '%2F')}/{verb}", request)
        for model, (request, _, _) in TALKERS.items()
        for verb in ("invoke", "invoke-with-response-stream")
    ),
]
LEAVES = st.sampled_from(
    [
        *(None, True, False, 0, -1, 3.5, 10**12, "", "x", "user", "1h", "sandbox.intervene"),
        [],
        {},
        ["x"],
        [None],
        {"a": 1},
    ]
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a piece of JSON."""
    if above:
        yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from places(child, (*above, key))


@st.composite
def spoilt(draw: st.DrawFn, good: Json) -> Json:
    """A good body in which up to three things were replaced or left out."""
    body = copy.deepcopy(good)
    for _ in range(draw(st.integers(0, 3))):
        there = list(places(body))
        if not there:
            break
        *path, last = draw(st.sampled_from(there))
        holder: Any = body
        for key in path:
            holder = holder[key]
        if isinstance(holder, dict) and draw(st.booleans()):
            del holder[last]
        else:
            holder[last] = copy.deepcopy(draw(LEAVES))
    return body


@pytest.mark.parametrize(("path", "good"), GOOD)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_json_is_answered_or_refused(path: str, good: Json, data: st.DataObject) -> None:
    raw = json.dumps(data.draw(spoilt(good))).encode()
    headers = sign("POST", f"https://example.com{path}", body=raw)

    answer, _ = DESK.answer(
        Received("POST", path, tuple((name.encode(), value.encode()) for name, value in headers), raw)
    )

    assert answer.status in {200, 400}
    assert answer.status == 200 or json.loads(raw) != good
    if isinstance(answer, Streamed):
        assert all(answer.pieces)
    else:
        json.loads(answer.body)
