"""The model families of InvokeModel: what each takes, what it answers, what it streams.

A family is a row of `FAMILIES`; the first whose pattern is in the model id answers. Shapes are those of
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html and of recorded traffic. A model that
no row knows (imported, SageMaker, new ones) speaks OpenAI's chat completions, as most of them do.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from passthrough.errors import Refusal, invalid
from passthrough.sandbox import anthropic, openai, prompts, vectors
from passthrough.sandbox.converse import usage as nova_usage
from passthrough.sandbox.exchange import Asked
from passthrough.sandbox.prompts import as_dict
from passthrough.sandbox.replies import Reply, reply_to

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Invoked:
    """What a model did: its body, the chunks of the same as a stream (empty: cannot be streamed), its figures.

    `input_tokens` and `output_tokens` become headers; None means the model has no such header.
    """

    body: Json
    chunks: list[Json]
    input_tokens: int | None = None
    output_tokens: int | None = None
    reply: Reply | None = None


Family = Callable[[Asked, Json], Invoked]


def invoke(asked: Asked, document: Json) -> Invoked:
    for pattern, family in FAMILIES:
        if pattern.search(asked.model):
            return family(asked, document)
    return _chat(asked, document)


def _spoken(reply: Reply, body: Json, chunks: list[Json]) -> Invoked:
    return Invoked(body, chunks, reply.use.input, reply.output_tokens, reply)


def _claude(asked: Asked, document: Json) -> Invoked:
    if "anthropic_version" not in document:
        raise invalid("anthropic_version: Field required")
    reply = anthropic.reply(asked, document)
    return _spoken(reply, anthropic.message(reply, asked.model), anthropic.events(reply, asked.model))


def _chat(asked: Asked, document: Json) -> Invoked:
    reply = openai.reply(asked, document)
    model, now = asked.model, asked.now
    return _spoken(reply, openai.completion(reply, model, now), openai.chunks(reply, model, now))


def _nova(asked: Asked, document: Json) -> Invoked:
    if not prompts.messages_of(document):
        raise _malformed("messages")
    reply = reply_to(prompts.of_converse(replace(asked, document=document)))
    figures = nova_usage(reply.use, reply.output_tokens)
    said = {"content": [{"text": reply.text}], "role": "assistant"}
    if reply.tool is not None:
        said["content"] = [{"toolUse": {"toolUseId": "sandbox", "name": reply.tool.name, "input": reply.tool_input}}]
    chunks: list[Json] = [
        {"messageStart": {"role": "assistant"}},
        *({"contentBlockDelta": {"delta": {"text": text}, "contentBlockIndex": 0}} for text in reply.deltas),
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"messageStop": {"stopReason": reply.stop}},
        {"metadata": {"usage": figures, "metrics": {}, "trace": {}}},
    ]
    return _spoken(reply, {"output": {"message": said}, "stopReason": reply.stop, "usage": figures}, chunks)


def _titan_text(asked: Asked, document: Json) -> Invoked:
    limit = as_dict(document.get("textGenerationConfig")).get("maxTokenCount")
    reply = _text_reply(asked, document, "inputText", limit)
    reason = "LENGTH" if reply.stop == "max_tokens" else "FINISH"
    result = {"tokenCount": reply.output_tokens, "outputText": reply.text, "completionReason": reason}
    body = {"inputTextTokenCount": reply.use.input, "results": [result]}
    figures = ("totalOutputTextTokenCount", "completionReason", "inputTextTokenCount")
    chunks: list[Json] = [{"outputText": text, "index": 0, **dict.fromkeys(figures)} for text in reply.deltas]
    chunks[-1] |= dict(zip(figures, (reply.output_tokens, reason, reply.use.input), strict=True))
    return _spoken(reply, body, chunks)


def _llama(asked: Asked, document: Json) -> Invoked:
    reply = _text_reply(asked, document, "prompt", document.get("max_gen_len"))
    stop = "length" if reply.stop == "max_tokens" else "stop"
    ending = {"generation_token_count": reply.output_tokens, "stop_reason": stop}
    chunks: list[Json] = [
        {"generation": text, "prompt_token_count": None, "generation_token_count": at, "stop_reason": None}
        for at, text in enumerate(reply.deltas, start=1)
    ]
    chunks[0]["prompt_token_count"] = reply.use.input
    chunks.append({"generation": "", "prompt_token_count": None, **ending})
    return _spoken(reply, {"generation": reply.text, "prompt_token_count": reply.use.input, **ending}, chunks)


def _mistral(asked: Asked, document: Json) -> Invoked:
    """Text completions; the larger models take messages and answer with choices."""
    if "messages" in document:
        return _chat(asked, document)
    reply = _text_reply(asked, document, "prompt", document.get("max_tokens"))
    stop = "length" if reply.stop == "max_tokens" else "stop"
    chunks: list[Json] = [{"outputs": [{"text": text, "stop_reason": None}]} for text in reply.deltas]
    chunks.append({"outputs": [{"text": "", "stop_reason": stop}]})
    return _spoken(reply, {"outputs": [{"text": reply.text, "stop_reason": stop}]}, chunks)


def _command(asked: Asked, document: Json) -> Invoked:
    """Cohere Command; with `message` instead of `prompt`, Command R."""
    is_r = "message" in document
    reply = _text_reply(asked, document, "message" if is_r else "prompt", document.get("max_tokens"))
    reason = "MAX_TOKENS" if reply.stop == "max_tokens" else "COMPLETE"
    body: Json = {"generation_id": "sandbox", "finish_reason": reason, "text": reply.text}
    if is_r:
        body |= {"response_id": "sandbox", "chat_history": []}
    else:
        generation = {"finish_reason": reason, "id": "sandbox", "text": reply.text}
        body = {"generations": [generation], "id": "sandbox", "prompt": document.get("prompt")}
    chunks: list[Json] = [
        {"event_type": "text-generation", "is_finished": False, "text": text} for text in reply.deltas
    ]
    chunks.append({"event_type": "stream-end", "finish_reason": reason, "is_finished": True, "response": body})
    return _spoken(reply, body, chunks)


def _jurassic(asked: Asked, document: Json) -> Invoked:
    limit = document.get("maxTokens")
    reply = _text_reply(asked, document, "prompt", limit)
    reason = "length" if reply.stop == "max_tokens" else "endoftext"
    completion = {"data": {"text": reply.text, "tokens": []}, "finishReason": {"reason": reason}}
    body = {
        "id": 1234,
        "prompt": {"text": document.get("prompt"), "tokens": []},
        "completions": [completion],
    }
    return Invoked(body, [], reply.use.input, reply.output_tokens, reply)


def _vectors(family: Callable[[Asked, Json], tuple[Json, int | None]]) -> Family:
    """Embeddings, rankings and pictures: one body, no stream, at most an input count."""

    def invoked(asked: Asked, document: Json) -> Invoked:
        body, input_tokens = family(asked, document)
        return Invoked(body, [], input_tokens)

    return invoked


def _text_reply(asked: Asked, document: Json, key: str, limit: Any) -> Reply:
    text = document.get(key)
    if not isinstance(text, str):
        raise _malformed(key)
    return reply_to(prompts.of_text(asked, text, limit))


def _malformed(key: str) -> Refusal:
    return invalid(
        f"Malformed input request: #: required key [{key}] not found, please reformat your input and try again."
    )


_ROWS: Mapping[str, Family] = {
    r"amazon\.titan-embed-image|amazon\.nova.*embed": _vectors(vectors.multimodal_embedding),
    r"amazon\.titan-embed": _vectors(vectors.titan_embedding),
    r"cohere\.embed": _vectors(vectors.cohere_embeddings),
    r"cohere\.rerank|amazon\.rerank": _vectors(vectors.ranking),
    r"titan-image|nova-canvas|stability\.": _vectors(vectors.picture),
    r"anthropic\.|anthropic/|:application-inference-profile/": _claude,  # such a profile: `control.APPLICATION_MODEL`
    r"amazon\.nova": _nova,
    r"amazon\.titan": _titan_text,
    r"meta\.llama": _llama,
    r"mistral\.": _mistral,
    r"cohere\.command": _command,
    r"ai21\.j2": _jurassic,
}
FAMILIES = tuple((re.compile(pattern), family) for pattern, family in _ROWS.items())
