"""An answer's JSON as far as it bears on usage: typed reads that skip everything else."""

from typing import Annotated, Any

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what decoding foreign bytes may raise
MAX_COUNT = 2**31 - 1  # PostgreSQL's integer, in which the ledger keeps counts; a larger figure is garbage
NO_MEMBER = msgspec.Raw(b"")


class Document(msgspec.Struct):
    """The members of an answer's JSON object, or of a streamed chunk, that bear on its usage."""

    usage: Any = None
    model: Any = None
    tier: Any = msgspec.field(name="serviceTier", default=None)
    openai_tier: Any = msgspec.field(name="service_tier", default=None)
    performance: Any = msgspec.field(name="performanceConfig", default=None)
    trace: msgspec.Raw = NO_MEMBER
    metrics: Any = msgspec.field(name="amazon-bedrock-invocationMetrics", default=None)
    guardrail_action: Any = msgspec.field(name="amazon-bedrock-guardrailAction", default=None)
    completion_reason: Any = msgspec.field(name="completionReason", default=None)
    titan_input: Any = msgspec.field(name="inputTextTokenCount", default=None)
    titan_output: Any = msgspec.field(name="totalOutputTextTokenCount", default=None)
    results: msgspec.Raw = NO_MEMBER
    llama_input: Any = msgspec.field(name="prompt_token_count", default=None)
    llama_output: Any = msgspec.field(name="generation_token_count", default=None)
    message: msgspec.Raw = NO_MEMBER  # Anthropic's message_start
    metadata: msgspec.Raw = NO_MEMBER  # Nova's last chunk
    response: msgspec.Raw = NO_MEMBER  # Responses API, response.completed


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class ConverseUsage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Converse's usage as nearly every answer has it. What has other members, or other values, is read one by one."""

    input_tokens: _Count = msgspec.field(name="inputTokens")
    output_tokens: _Count = msgspec.field(name="outputTokens")
    cache_read_tokens: _Count | None = msgspec.field(name="cacheReadInputTokens", default=None)
    cache_write_tokens: _Count | None = msgspec.field(name="cacheWriteInputTokens", default=None)
    cache_read_again: _Count | None = msgspec.field(name="cacheReadInputTokenCount", default=None)
    cache_write_again: _Count | None = msgspec.field(name="cacheWriteInputTokenCount", default=None)
    total: Any = msgspec.field(name="totalTokens", default=None)
    tools: Any = msgspec.field(name="serverToolUsage", default=None)


class _ConverseDocument(Document):
    usage: ConverseUsage | None = None


class _TitanResult(msgspec.Struct):
    count: Any = msgspec.field(name="tokenCount", default=None)


class _Router(msgspec.Struct):
    invoked: Any = msgspec.field(name="invokedModelId", default=None)


class _Trace(msgspec.Struct):
    router: _Router | None = msgspec.field(name="promptRouter", default=None)


MEMBERS = tuple(field.encode_name for field in msgspec.structs.fields(Document))
_decode = msgspec.json.Decoder(Document).decode
_decode_converse = msgspec.json.Decoder(_ConverseDocument).decode
decode_results = msgspec.json.Decoder(list[_TitanResult]).decode
decode_trace = msgspec.json.Decoder(_Trace).decode


def read_document(raw: bytes | bytearray | msgspec.Raw) -> Document | None:
    """Read what bears on usage; None for what is no JSON object."""
    try:
        return _decode(raw)
    except UNREADABLE:
        return None


def read_converse(raw: bytes | bytearray | msgspec.Raw) -> Document | None:
    """Read the same of Converse's answers; a usage of the usual shape is counted in a third of the time."""
    try:
        return _decode_converse(raw)
    except UNREADABLE:
        return read_document(raw)
