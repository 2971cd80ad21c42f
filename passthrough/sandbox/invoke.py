"""InvokeModel, InvokeModelWithResponseStream, CountTokens: the model's own JSON in AWS's envelope."""

import base64
import binascii
from typing import Any

import msgspec

from passthrough.errors import invalid
from passthrough.sandbox import prompts
from passthrough.sandbox.exchange import JSON, Answer, Asked, HeaderPairs, Streamed, json_answer
from passthrough.sandbox.families import Invoked, invoke
from passthrough.sandbox.frames import chunk
from passthrough.sandbox.prompts import as_dict
from passthrough.sandbox.replies import Reply
from passthrough.sandbox.tokens import count

# A model that gives back the body it was sent, whatever it is: for tests of byte exactness.
ECHO_MODEL = "sandbox.echo"
_METRICS = "amazon-bedrock-invocationMetrics"


def invoke_model(asked: Asked) -> Answer:
    if ECHO_MODEL in asked.model:
        content_type = asked.received.header("content-type") or JSON
        return Answer(asked.received.body, content_type=content_type)
    done = invoke(asked, _document(asked))
    counts = {"Input-Token-Count": done.input_tokens, "Output-Token-Count": done.output_tokens}
    if done.reply is not None and done.reply.use.has_cache_points:
        counts["Cache-Read-Input-Token-Count"] = done.reply.use.cache_read
        counts["Cache-Write-Input-Token-Count"] = done.reply.use.cache_write
    counts["Invocation-Latency"] = done.reply.latency_ms if done.reply else 42
    headers = tuple((f"X-Amzn-Bedrock-{name}", str(n)) for name, n in counts.items() if n is not None)
    return Answer(msgspec.json.encode(done.body), headers=(*headers, *_chosen(asked)))


def invoke_model_with_response_stream(asked: Asked) -> Streamed:
    done = invoke(asked, _document(asked))
    if not done.chunks or done.reply is None:
        raise invalid("The model is unsupported for streaming. Use the InvokeModel API instead.")
    chunks = [*done.chunks[:-1], {**done.chunks[-1], _METRICS: _metrics(done, done.reply)}]
    headers = (("X-Amzn-Bedrock-Content-Type", JSON), *_chosen(asked))
    return Streamed([chunk(one) for one in chunks], headers)


def count_tokens(asked: Asked) -> Answer:
    asked_for = as_dict(asked.document.get("input"))
    if "converse" in asked_for:
        segments = prompts.converse_segments(as_dict(asked_for["converse"]))
        return json_answer({"inputTokens": max(1, count("".join(part.text for part in segments)))})
    if "invokeModel" not in asked_for:
        raise invalid("The input must have exactly one of the members: converse, invokeModel.")
    try:
        body = msgspec.json.decode(base64.b64decode(as_dict(asked_for["invokeModel"]).get("body", "")))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, TypeError):
        raise _malformed() from None
    if "messages" in as_dict(body):
        text = "".join(part.text for part in prompts.messages_segments(body))
        return json_answer({"inputTokens": max(1, count(text))})
    return json_answer({"inputTokens": prompts.tokens_of(as_dict(body))})


def _document(asked: Asked) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(asked.received.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _malformed() from None
    if not isinstance(document, dict):
        raise _malformed()
    return document


def _malformed() -> Exception:
    return invalid("Malformed input request, please reformat your input and try again.")


def _chosen(asked: Asked) -> HeaderPairs:
    """The two choices of a request that AWS confirms in the answer's headers."""
    names = ("X-Amzn-Bedrock-PerformanceConfig-Latency", "X-Amzn-Bedrock-Service-Tier")
    found = ((name, asked.received.header(name)) for name in names)
    return tuple((name, value) for name, value in found if value is not None)


def _metrics(done: Invoked, reply: Reply) -> dict[str, int | None]:
    """The figures of a stream, which has no headers for them."""
    figures = {
        "inputTokenCount": done.input_tokens,
        "outputTokenCount": done.output_tokens,
        "invocationLatency": reply.latency_ms,
        "firstByteLatency": reply.first_byte_ms,
    }
    if reply.use.has_cache_points:
        figures["cacheReadInputTokenCount"] = reply.use.cache_read
        figures["cacheWriteInputTokenCount"] = reply.use.cache_write
    return figures
