"""OpenAI's Responses, as Bedrock's `/openai/v1/responses` gives them: as a whole and as a stream of events.."""

from collections.abc import Iterator
from typing import Any

from passthrough.errors import invalid
from passthrough.sandbox import prompts
from passthrough.sandbox.exchange import SSE, Answer, Asked, Streamed, json_answer
from passthrough.sandbox.frames import sse
from passthrough.sandbox.replies import Reply, reply_to

RESPONSE_ID = "resp_sandbox000000000000"
ITEM_ID = "msg_sandbox000000000000"
CALL_ID = "call_sandbox000000000000"


def responses(asked: Asked) -> Answer | Streamed:
    """POST /openai/v1/responses."""
    for name in ("model", "input"):
        if not asked.document.get(name):
            raise invalid(f"Field required: {name}")
    reply = reply_to(prompts.of_openai(asked, asked.document))
    if asked.document.get("stream") is not True:
        return json_answer(_response(asked, reply, done=True))
    numbered = [{**event, "sequence_number": at} for at, event in enumerate(_events(asked, reply))]
    return Streamed([sse(event, name=event["type"]) for event in numbered], (), SSE)


def _response(asked: Asked, reply: Reply, *, done: bool) -> dict[str, Any]:
    cut = reply.stop == "max_tokens"
    return {
        "id": RESPONSE_ID,
        "object": "response",
        "created_at": int(asked.now),
        "status": ("incomplete" if cut else "completed") if done else "in_progress",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if done and cut else None,
        "instructions": asked.document.get("instructions"),
        "max_output_tokens": asked.document.get("max_output_tokens"),
        "model": asked.model,
        "output": [_item(reply, done=True)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": asked.document.get("tool_choice", "auto"),
        "tools": asked.document.get("tools", []),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(reply) if done else None,
        "metadata": {},
    }


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "input_tokens": reply.use.whole,
        "input_tokens_details": {"cached_tokens": reply.use.cache_read},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.use.whole + reply.output_tokens,
    }


def _item(reply: Reply, *, done: bool) -> dict[str, Any]:
    status = "completed" if done else "in_progress"
    if reply.tool is not None:
        arguments = "".join(reply.tool_input_pieces) if done else ""
        return {
            "id": ITEM_ID,
            "type": "function_call",
            "status": status,
            "call_id": CALL_ID,
            "name": reply.tool.name,
            "arguments": arguments,
        }
    content = [_part(reply.text)] if done else []
    return {"id": ITEM_ID, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _events(asked: Asked, reply: Reply) -> Iterator[dict[str, Any]]:
    unfinished = _response(asked, reply, done=False)
    yield {"type": "response.created", "response": unfinished}
    yield {"type": "response.in_progress", "response": unfinished}
    yield {"type": "response.output_item.added", "output_index": 0, "item": _item(reply, done=False)}
    where = {"item_id": ITEM_ID, "output_index": 0}
    if reply.tool is not None:
        arguments = "response.function_call_arguments"
        for part in reply.tool_input_pieces:
            yield {"type": f"{arguments}.delta", **where, "delta": part}
        whole = "".join(reply.tool_input_pieces)
        yield {"type": f"{arguments}.done", **where, "name": reply.tool.name, "arguments": whole}
    else:
        where["content_index"] = 0
        yield {"type": "response.content_part.added", **where, "part": _part("")}
        for text in reply.deltas:
            yield {"type": "response.output_text.delta", **where, "delta": text, "logprobs": []}
        yield {"type": "response.output_text.done", **where, "text": reply.text, "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": _part(reply.text)}
    yield {"type": "response.output_item.done", "output_index": 0, "item": _item(reply, done=True)}
    ending = "response.incomplete" if reply.stop == "max_tokens" else "response.completed"
    yield {"type": ending, "response": _response(asked, reply, done=True)}
