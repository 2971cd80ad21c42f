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
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import msgspec

from passthrough.bedrock.library import context_window
from passthrough.bedrock.models import base_model
from passthrough.bedrock.named import is_intricate
from passthrough.bedrock.operations import Body, ModelPlace, Operation
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
_GUARDS: Final = frozenset({"ApplyGuardrail", "InvokeGuardrailChecks"})
_COUNTS_ONLY: Final = frozenset({"CountTokens", "AnthropicCountTokens"})
_MOST_CHOICES: Final = 128  # OpenAI's bound on `n`; a larger figure is refused there
# What in a body says that not all of it is text; each call looks for these.
_MARKS: Final = (b'"bytes"', b'"s3Location"', b'"base64"', b'"s3Uri"', b'"image_url"', b'"input_audio"', b'"file_')
_MARKS_OF_CONVERSE: Final = _MARKS[:2]
_MOST_FRAMES: Final = 4096


class _Converse(msgspec.Struct):
    inferenceConfig: Any = None  # noqa: N815  # AWS's name


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
_decode_converse = msgspec.json.Decoder(_Converse).decode
_NOTHING_ASKED: Final = _Request()


@dataclass(frozen=True, slots=True)
class Frame:
    """What an operation with a model can use at most, before its body is looked at.

    `free`: AWS charges nothing for it. `elsewhere`: the text that the model gets is AWS's to find, so the body tells
    nothing of it.
    """

    free: bool
    elsewhere: bool
    converse: bool
    claude: bool
    window: int
    most_output: int
    marks: tuple[bytes, ...]


_frames: dict[tuple[str, str | None], Frame] = {}


def frame_of(operation: Operation, model: str | None) -> Frame:
    """Return the frame of a call; worked out once for each operation and model."""
    key = (operation.name, model)
    frame = _frames.get(key)
    if frame is None:
        if len(_frames) >= _MOST_FRAMES:
            _frames.clear()
        frame = _frames[key] = _frame(operation, model)
    return frame


def _frame(operation: Operation, model: str | None) -> Frame:
    converse = operation.name in {"Converse", "ConverseStream"}
    runs_none = operation.model_place is ModelPlace.NONE and operation.name not in _GUARDS
    return Frame(
        free=operation.name in _COUNTS_ONLY or runs_none,
        elsewhere=operation.model_place not in _RUNS_MODEL or (model is not None and ":prompt/" in model),
        converse=converse,
        claude=model is not None and "claude" in model,
        window=_window(model),
        most_output=_most_output(model),
        marks=_MARKS_OF_CONVERSE if converse else _MARKS,
    )


def input_bound(frame: Frame, body: Body | None, length: int) -> int:
    """Tokens of input at most; `body` is None where only its length is known."""
    window = frame.window
    if frame.elsewhere:
        return window
    if body is None:
        return window if length else 0
    bound = length + _TEMPLATE
    if b'"tool' in body:
        bound += _DATED_TOOLS if b"_202" in body else _TOOLS
    for mark in frame.marks:
        if mark in body:
            bound += _beyond_text(body, frame)
            break
    return min(bound, window)


def output_bound(frame: Frame, body: Body | None, *, assumed: int | None = None) -> int:
    """Tokens of output at most; `assumed` stands in for the model's maximum where the body names none."""
    most = frame.most_output
    if not most:
        return 0
    if frame.elsewhere:
        return _NEVER_MORE
    unnamed = most if assumed is None else assumed
    if body is None:
        return unnamed
    named = body.count(b'"max')
    if b"\\u00" in body and _ESCAPED_LETTER.search(body):
        return most * _MOST_CHOICES if b'"n' in body else max(most, _largest_named(body))
    several = not frame.converse and (b'"n"' in body or b'"num' in body)
    if not named and not several:
        return unnamed
    maximum, choices = _asked_converse(body) if frame.converse else _asked(body)
    if named > 1 and maximum is not None:
        maximum = max(maximum, _largest_named(body))
    return (unnamed if maximum is None else maximum) * (choices if several else 1)


def _asked_converse(body: Body) -> tuple[int | None, int]:
    try:
        config = _decode_converse(body).inferenceConfig
    except UNREADABLE:
        return None, 1  # AWS reads no more out of it than we do
    value = config.get("maxTokens") if isinstance(config, dict) else None
    return (value if type(value) is int and value >= 0 else None), 1


def _asked(body: Body) -> tuple[int | None, int]:
    try:
        asked = _decode(body)
    except UNREADABLE:
        asked = _NOTHING_ASKED
    return max(_maxima(asked), default=None), _choices(asked)


def _maxima(asked: _Request) -> Iterator[int]:
    found = [value for value in _top_maxima(asked) if value is not None]
    for table in (asked.inferenceConfig, asked.textGenerationConfig):
        if isinstance(table, dict):
            found += [value for name, value in table.items() if name in _NAMES]
    for value in found:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:  # noqa: PLR2004  # what is more is refused by AWS
            yield int(value) + (value != int(value))


def _largest_named(body: Body) -> int:
    return max((int(number) for number in _NAMED_MAXIMUM.findall(body)), default=0)


def _choices(asked: _Request) -> int:
    counts = (asked.n, asked.num_generations, asked.numResults)
    return max([1, *(count for count in counts if isinstance(count, int) and count <= _MOST_CHOICES)])


def _beyond_text(body: Body, frame: Frame) -> int:
    """What has to be added to, or taken from, the bytes of a body in which not all is text."""
    if is_intricate(body):
        return frame.window
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return 0
    picture = _CLAUDE_PICTURE if frame.claude else _PICTURE
    change = 0
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, list):
            waiting.extend((name, item) for item in node)
            continue
        kinds = {name, str(node.get("type"))} if isinstance(node, dict) else {name} if isinstance(node, str) else set()
        if _is_elsewhere(node) or (kinds & _PACKED and isinstance(node, dict)):
            return frame.window
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


def _window(model: str | None) -> int:
    base = base_model(model) if model else ""
    if _WIDER.match(base):
        return _LARGEST_WINDOW
    return (context_window(base) if base else None) or _LARGEST_WINDOW


def _most_output(model: str | None) -> int:
    base = base_model(model) if model else ""
    if _NO_OUTPUT.search(base):
        return 0
    return next((most for beginning, most in _MOST_OUTPUT if base.startswith(beginning)), _NEVER_MORE)
