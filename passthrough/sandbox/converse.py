"""Converse and ConverseStream: one reply, as a whole and in the events of a stream."""

from typing import Any

from passthrough.errors import invalid
from passthrough.sandbox import guardrails, prompts
from passthrough.sandbox.exchange import Answer, Asked, Streamed, json_answer
from passthrough.sandbox.frames import event
from passthrough.sandbox.prompts import as_dict, messages_of
from passthrough.sandbox.replies import Reply, reply_to
from passthrough.sandbox.tokens import TokenUse, text_of

TOOL_USE_ID = "tooluse_sandbox000000000000"
ROUTED_MODEL = "us.anthropic.claude-3-5-sonnet-20241022-v2:0"  # what every prompt router of the sandbox chooses


def converse(asked: Asked) -> Answer:
    reply, extras = _reply(asked)
    content: list[dict[str, Any]] = [{"text": reply.text}] if reply.text else []
    if reply.tool is not None:
        content.append({"toolUse": {**_tool_start(reply), "input": reply.tool_input}})
    body = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": reply.stop,
        **_accounts(reply),
        **extras,
    }
    return json_answer(body)


def converse_stream(asked: Asked) -> Streamed:
    reply, extras = _reply(asked)
    start = {"start": {"toolUse": _tool_start(reply)}} if reply.tool is not None else None
    events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    if start is not None:  # a text block begins with its first delta, without an event of its own
        events.append(("contentBlockStart", {"contentBlockIndex": 0, **start}))
    events += [("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}) for delta in _deltas(reply)]
    events += [
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": reply.stop}),
        ("metadata", {**_accounts(reply), **extras}),
    ]
    return Streamed([event(name, payload, padded=True) for name, payload in events])


def usage(use: TokenUse, output_tokens: int) -> dict[str, Any]:
    """The usage object of Converse, with the undeclared doubles of the cache figures that AWS sends too."""
    figures: dict[str, Any] = {
        "inputTokens": use.input,
        "outputTokens": output_tokens,
        "totalTokens": use.whole + output_tokens,
    }
    if use.has_cache_points:
        figures |= {
            "cacheReadInputTokenCount": use.cache_read,
            "cacheReadInputTokens": use.cache_read,
            "cacheWriteInputTokenCount": use.cache_write,
            "cacheWriteInputTokens": use.cache_write,
        }
        written = (("5m", use.cache_write_5m), ("1h", use.cache_write_1h))
        figures["cacheDetails"] = [{"ttl": ttl, "inputTokens": tokens} for ttl, tokens in written if tokens]
    return figures


def _reply(asked: Asked) -> tuple[Reply, dict[str, Any]]:
    """The reply, and the parts of the answer that echo what the request chose."""
    messages = messages_of(asked.document)
    is_stored_prompt = ":prompt/" in asked.model  # a prompt from Prompt management brings its own messages
    if not is_stored_prompt and (not messages or messages[0].get("role") != "user"):
        raise invalid(
            "A conversation must start with a user message. "
            "Try again with a conversation that starts with a user message."
        )
    prompt = prompts.of_converse(asked)
    extras: dict[str, Any] = {
        name: asked.document[name] for name in ("performanceConfig", "serviceTier") if name in asked.document
    }
    trace: dict[str, Any] = {}
    guardrail = as_dict(asked.document.get("guardrailConfig"))
    text = text_of(asked.document.get("messages"))
    if guardrail.get("trace") in {"enabled", "enabled_full"}:
        trace["guardrail"] = guardrails.converse_trace(text, str(guardrail.get("guardrailIdentifier")), asked)
    if "prompt-router/" in asked.model:
        arn = f"arn:aws:bedrock:{asked.region}:123456789012:inference-profile/{ROUTED_MODEL}"
        trace["promptRouter"] = {"invokedModelId": arn}
    if trace:
        extras["trace"] = trace
    if guardrail and guardrails.blocks(text):
        return guardrails.intervened(TokenUse(0)), extras
    return reply_to(prompt), extras


def _accounts(reply: Reply) -> dict[str, Any]:
    spoken = 0 if reply.stop == guardrails.INTERVENED else reply.output_tokens
    return {"usage": usage(reply.use, spoken), "metrics": {"latencyMs": reply.latency_ms}}


def _deltas(reply: Reply) -> list[dict[str, Any]]:
    if reply.tool is not None:
        return [{"toolUse": {"input": piece}} for piece in reply.tool_input_pieces]
    return [{"text": text} for text in reply.deltas]


def _tool_start(reply: Reply) -> dict[str, Any]:
    return {"toolUseId": TOOL_USE_ID, "name": reply.tool.name if reply.tool else ""}
