"""OpenAI's chat completions and models, as Bedrock's `/openai/v1` and the models that speak that way give them.

Here the prompt's tokens include the cached ones, unlike everywhere else on Bedrock.
"""

from typing import Any

from passthrough.errors import Refusal, invalid
from passthrough.sandbox import prompts
from passthrough.sandbox.exchange import SSE, Answer, Asked, Streamed, json_answer
from passthrough.sandbox.frames import sse
from passthrough.sandbox.prompts import as_dict, as_list
from passthrough.sandbox.replies import Reply, reply_to

COMPLETION_ID = "chatcmpl-sandbox000000000000"
CALL_ID = "call_sandbox000000000000"
MODELS = ("openai.gpt-oss-20b-1:0", "openai.gpt-oss-120b-1:0")
DONE = b"data: [DONE]\n\n"
_STOPS = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


def reply(asked: Asked, document: dict[str, Any]) -> Reply:
    if not as_list(document.get("messages")):
        raise invalid("Field required: messages")
    return reply_to(prompts.of_openai(asked, document))


def completion(reply: Reply, model: str, now: float) -> dict[str, Any]:
    """A whole chat completion."""
    said: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.tool is not None:
        said["tool_calls"] = [_call(reply, "".join(reply.tool_input_pieces))]
    choice: dict[str, Any] = {"index": 0, "message": said, "logprobs": None}
    choice["finish_reason"] = _STOPS[reply.stop]
    return {**_envelope("chat.completion", model, now), "choices": [choice], "usage": usage(reply)}


def chunks(reply: Reply, model: str, now: float) -> list[dict[str, Any]]:
    """The same as a stream, without the usage."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text} for text in reply.deltas]
    if reply.tool is not None:
        deltas.append({"tool_calls": [{"index": 0, **_call(reply, "")}]})
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in reply.tool_input_pieces]
    envelope = _envelope("chat.completion.chunk", model, now)
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": _STOPS[reply.stop]})
    return [{**envelope, "choices": [choice]} for choice in choices]


def usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.use.whole,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.use.whole + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.use.cache_read},
    }


def chat_completions(asked: Asked) -> Answer | Streamed:
    """POST /openai/v1/chat/completions."""
    document = asked.document
    if not asked.model:
        raise invalid("Field required: model")
    answered = reply(asked, document)
    if document.get("stream") is not True:
        return json_answer(completion(answered, asked.model, asked.now))
    pieces = chunks(answered, asked.model, asked.now)
    if as_dict(document.get("stream_options")).get("include_usage"):
        last = {**_envelope("chat.completion.chunk", asked.model, asked.now), "choices": []}
        pieces = [{**piece, "usage": None} for piece in pieces]
        pieces.append({**last, "usage": usage(answered)})
    return Streamed([*map(sse, pieces), DONE], (), SSE)


def list_models(asked: Asked) -> Answer:
    """GET /openai/v1/models."""
    return json_answer({"object": "list", "data": [_model(name, asked.now) for name in MODELS]})


def get_model(asked: Asked) -> Answer:
    """GET /openai/v1/models/{model}."""
    return json_answer(_model(asked.labels["modelId"], asked.now))


def error_body(refusal: Refusal) -> dict[str, Any]:
    """An error as OpenAI's API words it (https://platform.openai.com/docs/guides/error-codes)."""
    kind = "invalid_request_error" if refusal.status < 500 else "server_error"  # noqa: PLR2004  # HTTP's own border
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}}


def _model(name: str, now: float) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(now), "owned_by": name.partition(".")[0]}


def _envelope(kind: str, model: str, now: float) -> dict[str, Any]:
    return {"id": COMPLETION_ID, "object": kind, "created": int(now), "model": model}


def _call(reply: Reply, arguments: str) -> dict[str, Any]:
    name = reply.tool.name if reply.tool else ""
    return {"id": CALL_ID, "type": "function", "function": {"name": name, "arguments": arguments}}
