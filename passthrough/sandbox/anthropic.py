"""Anthropic's Messages: the body and the events, as InvokeModel and as Bedrock's `/anthropic/v1` give them."""

from typing import Any

from passthrough.errors import Refusal, invalid
from passthrough.sandbox import prompts
from passthrough.sandbox.exchange import SSE, Answer, Asked, Streamed, json_answer
from passthrough.sandbox.frames import sse
from passthrough.sandbox.prompts import messages_of
from passthrough.sandbox.replies import Reply, reply_to
from passthrough.sandbox.tokens import TokenUse, count

MESSAGE_ID = "msg_bdrk_sandbox0000000000000"
TOOL_USE_ID = "toolu_bdrk_sandbox000000000000"


def reply(asked: Asked, document: dict[str, Any]) -> Reply:
    """The reply to a request body; raises `ValidationException` for one that Anthropic's models refuse."""
    for name in ("max_tokens", "messages"):
        if name not in document:
            raise invalid(f"{name}: Field required")
    if not messages_of(document):
        raise invalid("messages: at least one message is required")
    return reply_to(prompts.of_messages(asked, document))


def message(reply: Reply, model: str) -> dict[str, Any]:
    """A whole message."""
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    if reply.tool is not None:
        content.append({**_tool_use(reply), "input": reply.tool_input})
    return {**_envelope(reply, model, content, reply.stop), "usage": usage(reply.use, reply.output_tokens)}


def events(reply: Reply, model: str) -> list[dict[str, Any]]:
    """The same message as a stream.

    The first usage has the prompt's figures and a placeholder of one output token; the last has the output's,
    which replaces it.
    """
    block: dict[str, Any] = {"type": "text", "text": ""}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": text} for text in reply.deltas]
    if reply.tool is not None:
        block = {**_tool_use(reply), "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in reply.tool_input_pieces]
    opening = {**_envelope(reply, model, [], None), "usage": usage(reply.use, 1)}
    return [
        {"type": "message_start", "message": opening},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": reply.stop, "stop_sequence": None},
            "usage": {"output_tokens": reply.output_tokens},
        },
        {"type": "message_stop"},
    ]


def usage(use: TokenUse, output_tokens: int) -> dict[str, Any]:
    """Anthropic's usage object; recent models always send the cache figures."""
    return {
        "input_tokens": use.input,
        "cache_creation_input_tokens": use.cache_write,
        "cache_read_input_tokens": use.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": use.cache_write_5m,
            "ephemeral_1h_input_tokens": use.cache_write_1h,
        },
        "output_tokens": output_tokens,
    }


def messages(asked: Asked) -> Answer | Streamed:
    """POST /anthropic/v1/messages."""
    if not asked.model:
        raise invalid("model: Field required")
    answered = reply(asked, asked.document)
    if asked.document.get("stream") is not True:
        return json_answer(message(answered, asked.model), headers=(("request-id", asked.request_id),))
    pieces = [sse(event, name=event["type"]) for event in events(answered, asked.model)]
    return Streamed(pieces, (("request-id", asked.request_id),), SSE)


def count_tokens(asked: Asked) -> Answer:
    """POST /anthropic/v1/messages/count_tokens."""
    if not messages_of(asked.document):
        raise invalid("messages: Field required")
    text = "".join(segment.text for segment in prompts.messages_segments(asked.document))
    return json_answer({"input_tokens": max(1, count(text))})


def error_body(refusal: Refusal) -> dict[str, Any]:
    """An error as Anthropic's API words it (https://docs.anthropic.com/en/api/errors)."""
    kinds = {
        400: "invalid_request_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
    }
    kind = kinds.get(refusal.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": refusal.message}}


def _envelope(reply: Reply, model: str, content: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    return {
        "model": bare_model(model),
        "id": MESSAGE_ID,
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop if reply.stop else None,
        "stop_sequence": None,
    }


def bare_model(model: str) -> str:
    """Anthropic's own name of a model, which its answers carry: no geography, no provider, no `-v1:0`."""
    name = model.rpartition("/")[2].rpartition("anthropic.")[2] or model
    return name.partition(":")[0].removesuffix("-v1").removesuffix("-v2")


def _tool_use(reply: Reply) -> dict[str, Any]:
    return {"type": "tool_use", "id": TOOL_USE_ID, "name": reply.tool.name if reply.tool else ""}
