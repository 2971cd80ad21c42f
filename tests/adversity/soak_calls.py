"""The calls of the soak: what is asked, what the answer says that it costs, and what its row has to say."""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from botocore.eventstream import EventStreamBuffer

from tests.fakes.peer import Message

# USD per million tokens in us-east-1: input, output, cache read, cache write (5 min); as on
# https://aws.amazon.com/bedrock/pricing/. None: the model has no price.
HAIKU, NOVA, EMBED = "anthropic.claude-3-haiku-20240307-v1:0", "amazon.nova-lite-v1:0", "amazon.titan-embed-text-v2:0"
CACHING, UNKNOWN = "us.anthropic.claude-haiku-4-5-20251001-v1:0", "soak.nobody-sells-this-v1:0"
RATES: dict[str, tuple[str, str, str, str] | None] = {
    HAIKU: ("0.25", "1.25", "0", "0"),
    NOVA: ("0.06", "0.24", "0", "0"),
    EMBED: ("0.02", "0", "0", "0"),
    CACHING: ("1.1", "5.5", "0.11", "1.375"),
    UNKNOWN: None,
}
MILLION = Decimal(1_000_000)

REFUSED = 503  # the proxy could not look the key up
NO_ANSWER = 502  # the upstream ended the connection first; the body is the proxy's
OUTCOMES = {200: "ok", 429: "client_error", 500: "upstream_error", NO_ANSWER: "upstream_error", REFUSED: "refused"}

Tokens = tuple[int, int, int, int]
NO_TOKENS: Tokens = (0, 0, 0, 0)


@dataclass(frozen=True)
class Caller:
    """A virtual key and what belongs to it."""

    key: str
    key_id: str
    user_id: str | None
    team_id: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One request; `consumed` reads what it consumed out of a whole answer of status 200."""

    caller: Caller
    operation: str
    path: str
    model: str | None
    document: dict[str, Any]
    consumed: Callable[[Message], Tokens] | None
    fault: str | None
    end_user: str | None
    tags: tuple[str, ...]

    def request(self) -> bytes:
        body = json.dumps(self.document).encode()
        lines = [
            f"POST /bedrock{self.path} HTTP/1.1",
            "Host: the.proxy",
            f"Authorization: Bearer {self.caller.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        lines += [f"x-sandbox-fault: {self.fault}"] if self.fault else []
        lines += [f"x-litellm-customer-id: {self.end_user}"] if self.end_user else []
        lines += [f"x-litellm-tags: {', '.join(self.tags)}"] if self.tags else []
        return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


@dataclass(frozen=True)
class Expected:
    """What the row of a call says whose whole answer a client has."""

    call: Call
    status: int
    outcome: str
    response_bytes: int
    tokens: Tokens
    cost: Decimal | None
    price_status: str

    def differences(self, row: dict[str, Any]) -> list[str]:
        """What the row says otherwise."""
        names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
        said: dict[str, tuple[Any, Any]] = {
            "status": (self.status, row["status"]),
            "outcome": (self.outcome, row["outcome"]),
            "tokens": (self.tokens, tuple(row[name] or 0 for name in names)),
        }
        if self.outcome != "refused":
            said |= {
                "response_bytes": (self.response_bytes if self.status != NO_ANSWER else 0, row["response_bytes"]),
                "key_id": (self.call.caller.key_id, row["key_id"]),
                "user_id": (self.call.caller.user_id, row["user_id"]),
                "team_id": (self.call.caller.team_id, row["team_id"]),
                "end_user": (self.call.end_user, row["end_user"]),
                "tags": ({*self.call.caller.tags, *self.call.tags}, set(row["tags"])),
                "operation": (self.call.operation, row["operation"]),
                "model": (self.call.model, row["model"]),
            }
        if self.outcome == "ok":
            said |= {
                "cost": (self.cost, row["cost"]),
                "price_status": (self.price_status, row["price_status"]),
            }
        elif row["cost"]:
            said["cost"] = (None, row["cost"])
        return [f"{name} is {is_!r}, not {want!r}" for name, (want, is_) in said.items() if want != is_]


def expected(call: Call, answer: Message) -> Expected:
    """Read a whole answer. A status that nothing here can cause is a `KeyError`."""
    outcome = OUTCOMES[answer.status]
    tokens, cost, price_status = NO_TOKENS, None, "not_metered"
    if outcome == "ok" and call.consumed is not None and call.model is not None:
        tokens = call.consumed(answer)
        cost, price_status = _cost(call.model, tokens)
    return Expected(call, answer.status, outcome, len(answer.body), tokens, cost, price_status)


def _cost(model: str, tokens: Tokens) -> tuple[Decimal | None, str]:
    rates = RATES[model]
    if rates is None:
        return None, "unknown_model"
    return sum(
        (Decimal(rate) * count for rate, count in zip(rates, tokens, strict=True)), Decimal(0)
    ) / MILLION, "priced"


def any_call(moments: random.Random, callers: list[Caller], word: str) -> Call:
    """Draw a call; `word` stands in each prompt."""
    operation, action, model, document, consumed = moments.choice(_SHAPES)(moments, word)
    path = f"/model/{quote(model, safe='')}/{action}" if model else f"/knowledgebases/{action}"
    return Call(
        caller=moments.choice(callers),
        operation=operation,
        path=path,
        model=model,
        document=document,
        consumed=consumed,
        fault=moments.choice(_FAULTS) if moments.random() < 0.3 else None,
        end_user=moments.choice([None, "ann", "ben", "Zoë", "o'hara; drop"]),
        tags=tuple(moments.sample(("alpha", "beta", "gamma"), moments.randint(0, 2))),
    )


_FAULTS = (
    "throttle", "500", "delay=0.2", "cut", "cut-mid-frame", "reset", "close-before-answer", "reset-before-answer",
    "no-terminator", "split=60", "stall=0.3",
)  # fmt: skip

_Shape = tuple[str, str, str | None, dict[str, Any], Callable[[Message], Tokens] | None]


def _converse(moments: random.Random, word: str) -> _Shape:
    return "Converse", "converse", *_conversation(moments, word), lambda answer: _usage(json.loads(answer.body))


def _converse_stream(moments: random.Random, word: str) -> _Shape:
    return "ConverseStream", "converse-stream", *_conversation(moments, word), _streamed_usage


def _conversation(moments: random.Random, word: str) -> tuple[str, dict[str, Any]]:
    model = moments.choice([HAIKU, NOVA, CACHING, UNKNOWN])
    content: list[dict[str, Any]] = [{"text": _words(moments, word)}]
    if model == CACHING:  # one of a few prefixes: written once, read from then on
        content = [{"text": f"{word} {moments.randrange(9)} " * 99}, {"cachePoint": {"type": "default"}}, *content]
    return model, {"messages": [{"role": "user", "content": content}], "inferenceConfig": {"maxTokens": 40}}


def _invoke(moments: random.Random, word: str) -> _Shape:
    return "InvokeModel", "invoke", HAIKU, _messages(moments, word), _headers


def _invoke_stream(moments: random.Random, word: str) -> _Shape:
    action = "invoke-with-response-stream"
    return "InvokeModelWithResponseStream", action, HAIKU, _messages(moments, word), _invocation_metrics


def _messages(moments: random.Random, word: str) -> dict[str, Any]:
    said = [{"role": "user", "content": _words(moments, word)}]
    return {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 40, "messages": said}


def _embed(moments: random.Random, word: str) -> _Shape:
    return "InvokeModel", "invoke", EMBED, {"inputText": _words(moments, word), "dimensions": 256}, _headers


def _retrieve(moments: random.Random, word: str) -> _Shape:
    return "Retrieve", "KB12345678/retrieve", None, {"retrievalQuery": {"text": _words(moments, word)}}, None


_SHAPES = (_converse, _converse_stream, _invoke, _invoke_stream, _embed, _retrieve)


def _words(moments: random.Random, word: str) -> str:
    return f"{word} " * moments.randint(1, 60)


def _usage(document: dict[str, Any]) -> Tokens:
    usage = document["usage"]
    cached = (usage.get("cacheReadInputTokens", 0), usage.get("cacheWriteInputTokens", 0))
    return usage["inputTokens"], usage["outputTokens"], *cached


def _headers(answer: Message) -> Tokens:
    read = [answer.value(f"X-Amzn-Bedrock-{name}-Token-Count") for name in ("Input", "Output")]
    return int(read[0] or 0), int(read[1] or 0), 0, 0


def _streamed_usage(answer: Message) -> Tokens:
    return _usage(json.loads(_frames(answer)[-1]))


def _invocation_metrics(answer: Message) -> Tokens:
    last = json.loads(base64.b64decode(json.loads(_frames(answer)[-1])["bytes"]))["amazon-bedrock-invocationMetrics"]
    return last["inputTokenCount"], last["outputTokenCount"], 0, 0


def _frames(answer: Message) -> list[bytes]:
    """The payloads of the stream, as AWS's own SDK reads them: it checks every checksum."""
    buffer = EventStreamBuffer()
    buffer.add_data(answer.body)
    return [event.payload for event in buffer]
