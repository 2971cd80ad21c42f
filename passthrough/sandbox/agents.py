"""Agents: a reply in chunks, and with `enableTrace` the traces that hold its usage. Flows: an output and an end."""

import base64
from datetime import UTC, datetime
from typing import Any

import msgspec

from passthrough.sandbox import prompts, samples
from passthrough.sandbox.exchange import Asked, Streamed
from passthrough.sandbox.frames import event
from passthrough.sandbox.replies import Reply, reply_to
from passthrough.sandbox.shapes import events, output_headers

FOUNDATION_MODEL = "anthropic.claude-3-5-sonnet-20241022-v2:0"  # what every agent of the sandbox runs on
_TRACE_ID = "3f1c9a7e-0"


def invoke_agent(asked: Asked) -> Streamed:
    reply = reply_to(prompts.of_text(asked, str(asked.document.get("inputText", "")), None))
    pieces: list[bytes] = []
    if asked.document.get("enableTrace") is True:
        pieces += [event("trace", _trace(asked, step)) for step in _steps(asked, reply)]
    # The answer of an agent comes in large chunks: it is streamed word by word only when asked for.
    parts = reply.deltas if _streams_finally(asked) else [reply.text]
    pieces += [event("chunk", {"bytes": base64.b64encode(part.encode()).decode()}) for part in parts]
    headers = output_headers(asked, asked.operation) if asked.operation is not None else ()
    return Streamed(pieces, headers)


def invoke_flow(asked: Asked) -> Streamed:
    """A flow that runs to its end without asking back; `every-event` shows the event that would."""
    if asked.operation is None:
        raise AssertionError("InvokeFlow is in botocore's models.")
    traced = ("flowTraceEvent",) if asked.document.get("enableTrace") is True else ()
    return events(asked, asked.operation, (*traced, "flowOutputEvent", "flowCompletionEvent"))


def _streams_finally(asked: Asked) -> bool:
    return prompts.as_dict(asked.document.get("streamingConfigurations")).get("streamFinalResponse") is True


def _steps(asked: Asked, reply: Reply) -> list[dict[str, Any]]:
    """One turn of orchestration.

    Only `modelInvocationOutput` has usage; `rawResponse` repeats the provider's own figures inside a string,
    which must not be counted again.
    """
    model = str(asked.document.get("foundationModel") or FOUNDATION_MODEL)
    figures = {"inputTokens": reply.use.whole, "outputTokens": reply.output_tokens}
    raw = {
        "content": [{"type": "text", "text": reply.text}],
        "usage": {"input_tokens": reply.use.whole, "output_tokens": reply.output_tokens},
    }
    said = {"traceId": _TRACE_ID}
    return [
        {
            "modelInvocationInput": {
                **said,
                "foundationModel": model,
                "inferenceConfiguration": {"maximumLength": 2048, "temperature": 0.0, "topK": 250, "topP": 1.0},
                "text": msgspec.json.encode({"messages": [{"role": "user", "content": "…"}]}).decode(),
                "type": "ORCHESTRATION",
            }
        },
        {
            "modelInvocationOutput": {
                **said,
                "metadata": {"clientRequestId": asked.request_id, "totalTimeMs": 432, "usage": figures},
                "rawResponse": {"content": msgspec.json.encode(raw).decode()},
            }
        },
        {"rationale": {**said, "text": "Nothing has to be looked up to answer this."}},
        {
            "observation": {
                **said,
                "type": "FINISH",
                "finalResponse": {"text": reply.text, "metadata": {"totalTimeMs": 450}},
            }
        },
    ]


def _trace(asked: Asked, step: dict[str, Any]) -> dict[str, Any]:
    agent = asked.labels.get("agentId", "INLINE_AGENT")
    alias = asked.labels.get("agentAliasId", "")
    trace: dict[str, Any] = {
        "callerChain": [],
        "eventTime": datetime.fromtimestamp(asked.now, UTC).isoformat().replace("+00:00", "Z"),
        "sessionId": asked.labels["sessionId"],
        "trace": {"orchestrationTrace": step},
    }
    if alias:
        arn = f"arn:aws:bedrock:{asked.region}:{samples.ACCOUNT}:agent-alias/{agent}/{alias}"
        trace |= {"agentId": agent, "agentAliasId": alias, "agentVersion": "1"}
        trace["callerChain"] = [{"agentAliasArn": arn}]
    return trace
