"""How many tokens a call can use at most, judged by its request: never less than what AWS will count.

Input: no tokenizer makes two tokens of one byte, so text has at most as many tokens as the body has bytes; JSON's
own bytes pay for what chat templates put around each message, and `_TEMPLATE` for what they put before all. Tools
cost a system prompt of their own. Pictures are counted by the piece, and what is not in the body (objects in S3, files,
documents and films, whose bytes are packed) by the model's context window, which bounds every call.

Output: the maximum that the body names, or else the model's. A body that could be read in two ways (a name written
with escapes, or more than once) is read in the way that costs more.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from passthrough.bedrock.library import context_window
from passthrough.bedrock.models import base_model
from passthrough.bedrock.named import is_intricate
from passthrough.bedrock.operations import Call, ModelPlace
from passthrough.bedrock.usage import UNREADABLE

# gpt-oss answers "hi" with 68 to 72 tokens of input: its template names a date and a channel. Others add fewer than 10.
_TEMPLATE: Final = 128
# https://docs.claude.com/en/docs/agents-and-tools/tool-use/overview: up to 804 for tools at all, and for tools that are
# named by a date instead of described up to 735 each, of which there are four.
_TOOLS: Final = 1024
_DATED_TOOLS: Final = 4096
# https://docs.claude.com/en/docs/build-with-claude/vision: 4,784 at most; others cut a picture into 16x16 or 28x28
# pixels, of which 2048x2048 has 16,384.
_CLAUDE_PICTURE: Final = 5000
_PICTURE: Final = 16_384
_LARGEST_WINDOW: Final = 1_050_000  # the largest that genai-prices knows of models on Bedrock that are in use
_NEVER_MORE: Final = 131_072  # of output, where nothing else is known: the most that AWS documents for a model

# The most output of a model, by the beginning of its id; the first that fits counts. From AWS's model cards and
# parameter pages (https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html), and Anthropic's.
_MOST_OUTPUT: Final = (
    ("anthropic.claude-3-5-", 8192),
    ("anthropic.claude-3-7-", 131_072),  # 128k with output-128k-2025-02-19
    ("anthropic.claude-3-", 4096),
    ("anthropic.claude-instant", 4096),
    ("anthropic.claude-v2", 4096),
    ("amazon.titan-text-", 8192),
    ("amazon.nova-2-", 65_536),
    ("amazon.nova-premier", 32_768),
    ("amazon.nova-canvas", 0),
    ("amazon.nova-", 10_240),
    ("amazon.titan-image", 0),
    ("stability.", 0),
    ("meta.llama", 8192),
    ("cohere.command", 4096),
    ("ai21.", 8191),
)
_NO_OUTPUT: Final = re.compile(r"embed|\.rerank-")
# genai-prices says 200,000; with context-1m-2025-08-07 it is a million.
_WIDER: Final = re.compile(r"anthropic\.claude-sonnet-4")

_ESCAPED_LETTER: Final = re.compile(rb"\\u00[2-7]")
_NAMED_MAXIMUM: Final = re.compile(rb'"max[A-Za-z_]*"\s*:\s*([0-9]{1,9})')
_NAMES: Final = frozenset({"maxTokens", "max_new_tokens", "max_tokens", "maxTokenCount"})  # in a table of its own
_PICTURES: Final = frozenset({"image", "image_url", "input_image"})
_PACKED: Final = frozenset({"document", "video", "audio", "input_audio", "file", "input_file"})
_RUNS_MODEL: Final = frozenset({ModelPlace.PATH, ModelPlace.BODY})
_COUNTS_ONLY: Final = frozenset({"CountTokens", "AnthropicCountTokens"})
_MOST_CHOICES: Final = 128  # OpenAI's bound on `n`; a larger figure is refused there


class _Request(msgspec.Struct):
    """Where a request names its maximum of output, and how many answers it wants."""

    inferenceConfig: Any = None  # noqa: N815  # AWS's names
    textGenerationConfig: Any = None  # noqa: N815
    max_tokens: Any = None
    maxTokens: Any = None  # noqa: N815
    max_gen_len: Any = None
    max_tokens_to_sample: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = 1
    num_generations: Any = 1
    numResults: Any = 1  # noqa: N815


_top_maxima = attrgetter(
    "max_tokens", "maxTokens", "max_gen_len", "max_tokens_to_sample", "max_completion_tokens", "max_output_tokens"
)
_decode = msgspec.json.Decoder(_Request).decode
_NOTHING_ASKED: Final = _Request()


def is_free(call: Call) -> bool:
    """Whether AWS charges nothing for the operation: it runs no model, or only counts."""
    operation = call.operation
    guards = operation.name in {"ApplyGuardrail", "InvokeGuardrailChecks"}
    return operation.name in _COUNTS_ONLY or (operation.model_place is ModelPlace.NONE and not guards)


def input_bound(call: Call, model: str | None, body: bytes | None, length: int) -> int:
    """Tokens of input at most; `body` is None where only its length is known."""
    window = _window(model)
    if call.operation.model_place not in _RUNS_MODEL or (model is not None and ":prompt/" in model):
        return window  # the text that the model gets is AWS's to find
    if body is None:
        return window if length else 0
    bound = length + _TEMPLATE
    if b'"tool' in body:
        bound += _DATED_TOOLS if b"_202" in body else _TOOLS
    if _is_not_all_text(body):
        bound += _beyond_text(body, model, window)
    return min(bound, window)


def output_bound(call: Call, model: str | None, body: bytes | None, *, assumed: int | None = None) -> int:
    """Tokens of output at most; `assumed` stands in for the model's maximum where the body names none."""
    most = _most_output(model)
    if not most:
        return 0
    if call.operation.model_place not in _RUNS_MODEL:
        return _NEVER_MORE
    unnamed = most if assumed is None else assumed
    if body is None:
        return unnamed
    named = body.count(b'"max')
    if (b"\\u00" in body and _ESCAPED_LETTER.search(body)) or is_intricate(body):
        return most * _MOST_CHOICES if b'"n' in body else max(most, _largest_named(body))
    several = b'"n"' in body or b'"num' in body
    if not named and not several:
        return unnamed
    asked = _read(body)
    maximum = max(_maxima(asked), default=None)
    if maximum is not None and named > 1:
        maximum = max(maximum, _largest_named(body))
    return (unnamed if maximum is None else maximum) * (_choices(asked) if several else 1)


def _read(body: bytes) -> _Request:
    try:
        return _decode(body)
    except UNREADABLE:
        return _NOTHING_ASKED  # AWS reads no more out of it than we do


def _maxima(asked: _Request) -> Iterator[int]:
    found = [value for value in _top_maxima(asked) if value is not None]
    for table in (asked.inferenceConfig, asked.textGenerationConfig):
        if isinstance(table, dict):
            found += [value for name, value in table.items() if name in _NAMES]
    for value in found:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:  # noqa: PLR2004  # what is more is refused by AWS
            yield int(value) + (value != int(value))


def _largest_named(body: bytes) -> int:
    return max((int(number) for number in _NAMED_MAXIMUM.findall(body)), default=0)


def _choices(asked: _Request) -> int:
    counts = (asked.n, asked.num_generations, asked.numResults)
    return max([1, *(count for count in counts if isinstance(count, int) and count <= _MOST_CHOICES)])


def _is_not_all_text(body: bytes) -> bool:
    # spelled out: on the path of every call, a loop over the marks costs four times as much
    return (
        b'"bytes"' in body
        or b'"base64"' in body
        or b'"s3Location"' in body
        or b'"s3Uri"' in body
        or b'"image_url"' in body
        or b'"input_audio"' in body
        or b'"file_' in body
    )


def _beyond_text(body: bytes, model: str | None, window: int) -> int:
    """What has to be added to, or taken from, the bytes of a body in which not all is text."""
    if is_intricate(body):
        return window
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return 0
    picture = _CLAUDE_PICTURE if model is not None and "claude" in model else _PICTURE
    change = 0
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, list):
            waiting.extend((name, item) for item in node)
            continue
        kinds = {name, str(node.get("type"))} if isinstance(node, dict) else {name} if isinstance(node, str) else set()
        if _is_elsewhere(node) or (kinds & _PACKED and isinstance(node, dict)):
            return window
        if kinds & _PICTURES:
            change += picture - _packed_bytes(node)
        elif isinstance(node, dict):
            waiting.extend(node.items())
    return change


def _is_elsewhere(node: Any) -> bool:  # any JSON value
    """Whether it names an object in S3: also the source of a picture, which could be a film."""
    if not isinstance(node, dict):
        return False
    source = node.get("source")
    return any("s3Location" in part or "s3Uri" in part for part in (node, source) if isinstance(part, dict))


def _packed_bytes(node: Any) -> int:  # any JSON value below a picture
    """Bytes of base64 below a picture: its only long strings."""
    if isinstance(node, str):
        return len(node) if len(node) > 256 else 0  # noqa: PLR2004  # shorter ones are names and addresses
    if isinstance(node, dict):
        return sum(_packed_bytes(value) for value in node.values())
    return 0


@lru_cache(maxsize=1024)
def _window(model: str | None) -> int:
    base = base_model(model) if model else ""
    if _WIDER.match(base):
        return _LARGEST_WINDOW
    return (context_window(base) if base else None) or _LARGEST_WINDOW


@lru_cache(maxsize=1024)
def _most_output(model: str | None) -> int:
    base = base_model(model) if model else ""
    if _NO_OUTPUT.search(base):
        return 0
    return next((most for beginning, most in _MOST_OUTPUT if base.startswith(beginning)), _NEVER_MORE)
