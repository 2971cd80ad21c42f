"""How many tokens a call can use at most, judged by its request: never less than what AWS will count.

Input: no tokenizer makes two tokens of one byte, so text has at most as many tokens as the body has bytes; JSON's
own bytes pay for what chat templates put around each message, and `_TEMPLATE` for what they put before all. Tools
cost a system prompt of their own. Pictures are counted by the piece, and what is not in the body (objects in S3, files,
documents and films, whose bytes are packed) by the model's context window, which bounds every call.

Output: the maximum that the body names, or else the model's. A body that could be read in two ways (a maximum that is
named more than once) is read in the way that costs more, and one that does not say plainly what it asks for
(`is_veiled`) is taken to ask for the most.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import msgspec

from passthrough.bedrock.contents import beyond_text
from passthrough.bedrock.documents import UNREADABLE
from passthrough.bedrock.library import context_window
from passthrough.bedrock.models import base_model
from passthrough.bedrock.operations import Body, ModelPlace, Operation

# gpt-oss answers "hi" with 68 to 72 tokens of input: its template names a date and a channel. Others add fewer than 10.
_TEMPLATE: Final = 128
# https://docs.claude.com/en/docs/agents-and-tools/tool-use/overview: up to 804 for tools at all, and for tools that are
# named by a date instead of described up to 735 each, of which there are four.
_TOOLS: Final = 1024
_DATED_TOOLS: Final = 4096
_LARGEST_WINDOW: Final = 1_050_000  # the largest that genai-prices knows of models on Bedrock that are in use
_NEVER_MORE: Final = 131_072  # of output, where nothing else is known: the most that AWS documents for a model

# The most output of a model, by the beginning of its id; the first that fits counts. From AWS's model cards and
# parameter pages (https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html), and Anthropic's.
_MOST_OUTPUT: Final = (
    ("anthropic.claude-3-5-", 8192),
    ("anthropic.claude-3-7-", 131_072),  # 128k with output-128k-2025-02-19
    ("anthropic.claude-3-", 4096),
    # https://docs.claude.com/en/docs/about-claude/models/overview: 32k and 64k; what came later takes 128k
    ("anthropic.claude-opus-4-2", 32_768),  # the date that follows
    ("anthropic.claude-opus-4-1-", 32_768),
    ("anthropic.claude-sonnet-4-2", 65_536),
    ("anthropic.claude-sonnet-4-5-", 65_536),
    ("anthropic.claude-haiku-4-5-", 65_536),
    ("anthropic.claude-opus-4-5-", 65_536),
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

# A letter, digit or underscore written as an escape, behind an even number of backslashes. No encoder does that (Go's
# and .NET's escape only <, >, &, +, quotes and the like), so it is done to hide a name.
_ESCAPED_LETTER: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u00(?:[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|3[0-9])")
_PLAIN_BEGINNING: Final = re.compile(rb"\s*[{\[]")
# By its whole name: tools' schemas name a `maximum`, which for JavaScript's is 9007199254740991, and a `maxLength`.
_NAMED_MAXIMUM: Final = re.compile(
    rb'"max(?:Tokens|TokenCount|_tokens|_new_tokens|_gen_len|_tokens_to_sample|_completion_tokens|_output_tokens)"'
    rb"\s*:\s*([0-9][0-9.eE+-]*)"
)
_NAMES: Final = frozenset({"maxTokens", "max_new_tokens", "max_tokens", "maxTokenCount"})  # in a table of its own
_RUNS_MODEL: Final = frozenset({ModelPlace.PATH, ModelPlace.BODY})
_GUARDS: Final = frozenset({"ApplyGuardrail", "InvokeGuardrailChecks"})
_COUNTS_ONLY: Final = frozenset({"CountTokens", "AnthropicCountTokens"})
_MOST_CHOICES: Final = 128  # OpenAI's bound on `n`; a larger figure is refused there
# What in a body says that not all of it is text; each call looks for these.
_MARKS: Final = (
    *(b'"bytes"', b'"s3Location"', b'"base64"', b'"s3Uri"', b'"image_url"', b'"video_url"', b'"audio_url"'),
    *(b'"input_audio"', b'"input_video"', b'"file_', b'"url"'),
)
_MARKS_OF_CONVERSE: Final = _MARKS[:2]
_MARKS_OF_EMBEDDING: Final = (*_MARKS, b'"inputImage"', b'"images"')
# What has AWS put text before the model that is not in the body: what it finds in the web, an earlier conversation.
_FETCHING: Final = (b'"systemTool"',)
_FETCHING_OF_RESPONSES: Final = (*_FETCHING, b'"previous_response_id"', b'"conversation"')
_MOST_FRAMES: Final = 4096


class _Converse(msgspec.Struct):
    inferenceConfig: Any = None  # noqa: N815  # AWS's name


class _Request(msgspec.Struct):
    """Where a request names its maximum of output, and how many answers it wants."""

    inferenceConfig: Any = None  # noqa: N815  # AWS's names
    textGenerationConfig: Any = None  # noqa: N815  # Titan's
    max_tokens: Any = None
    maxTokens: Any = None  # noqa: N815  # AI21's
    max_gen_len: Any = None
    max_tokens_to_sample: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = 1
    best_of: Any = 1
    num_generations: Any = 1
    numResults: Any = 1  # noqa: N815  # AI21's


_top_maxima = attrgetter(
    "max_tokens", "maxTokens", "max_gen_len", "max_tokens_to_sample", "max_completion_tokens", "max_output_tokens"
)
_decode = msgspec.json.Decoder(_Request).decode
_decode_converse = msgspec.json.Decoder(_Converse).decode


@dataclass(frozen=True, slots=True)
class Frame:
    """What an operation with a model can use at most, before its body is looked at.

    `free`: AWS charges nothing for it. `guards`: it runs no model and uses no tokens; AWS charges by the length of a
    text. `elsewhere`: the text that the model gets is AWS's to find, so the body tells nothing of it. `boundless`: nor
    does anything tell how often AWS runs the model, or on how much. `single`: there is one answer, whatever the body
    asks for.
    """

    free: bool
    guards: bool
    elsewhere: bool
    boundless: bool
    converse: bool
    claude: bool
    single: bool
    window: int
    most_output: int
    marks: tuple[bytes, ...]
    fetching: tuple[bytes, ...]


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
    claude = model is not None and "claude" in model
    guards = operation.name in _GUARDS
    runs_none = operation.model_place is ModelPlace.NONE and not guards
    most_output = 0 if guards else _most_output(model)
    marks = _MARKS if most_output else _MARKS_OF_EMBEDDING
    return Frame(
        free=operation.name in _COUNTS_ONLY or runs_none,
        guards=guards,
        elsewhere=not guards
        and (operation.model_place not in _RUNS_MODEL or (model is not None and ":prompt/" in model)),
        boundless=operation.service == "bedrock-agent-runtime" or operation.name == "StartAsyncInvoke",
        converse=converse,
        claude=claude,
        single=converse or claude,
        window=0 if guards else _window(model),
        most_output=most_output,
        marks=_MARKS_OF_CONVERSE if converse else marks,
        fetching=_FETCHING_OF_RESPONSES if operation.name == "OpenAIResponses" else _FETCHING,
    )


def is_veiled(body: Body) -> bool:
    """Whether a body may ask for what cannot be seen in it: hidden names, UTF-16, a compressed body."""
    if body[:1] != b"{" and body and _PLAIN_BEGINNING.match(body) is None:
        return True
    return b"\x00" in body or (b"\\u00" in body and _ESCAPED_LETTER.search(body) is not None)


def input_bound(frame: Frame, body: Body | None, length: int, *, veiled: bool = False) -> int:
    """Tokens of input at most; `body` is None where only its length is known."""
    window = frame.window
    if frame.elsewhere or veiled:
        return window
    if body is None:
        return window if length else 0
    for mark in frame.fetching:
        if mark in body:
            return window
    bound = length + _TEMPLATE
    if b'"tool' in body:
        bound += _DATED_TOOLS if b"_202" in body else _TOOLS
    for mark in frame.marks:
        if mark in body:
            bound += beyond_text(body, frame.window, claude=frame.claude)
            break
    return min(bound, window)


def output_bound(frame: Frame, body: Body | None, *, veiled: bool = False, assumed: int | None = None) -> int:
    """Tokens of output at most; `assumed` stands in for the model's maximum where the body names none."""
    most = frame.most_output
    if not most:
        return 0
    if frame.elsewhere:
        return _NEVER_MORE
    unnamed = most if assumed is None else assumed
    if body is None:
        return unnamed
    if veiled:
        return most * (1 if frame.single else _MOST_CHOICES)
    named = body.count(b'"max')
    several = not frame.single and (b'"n"' in body or b'"num' in body or b'"best_of"' in body)
    if not named and not several:
        return unnamed
    maximum, choices = _asked_converse(body) if frame.converse else _asked(body)
    if named > 1 and maximum is not None:
        maximum = max(maximum, min(_largest_named(body), most))  # more than its model's AWS refuses, wherever it stands
    # no model writes more than it can hold; AWS refuses such a maximum, and a count of it has to fit into 64 bits
    return (unnamed if maximum is None else min(maximum, _LARGEST_WINDOW)) * (choices if several else 1)


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
        return None, _MOST_CHOICES
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
    return max(map(_whole, _NAMED_MAXIMUM.findall(body)), default=0)


def _whole(number: bytes) -> int:
    try:
        return math.ceil(float(number))
    except (ValueError, OverflowError):  # no number, or one that is larger than any
        return _NEVER_MORE


def _choices(asked: _Request) -> int:
    most = 1
    for count in (asked.n, asked.best_of, asked.num_generations, asked.numResults):
        if isinstance(count, int):
            most = max(most, count if count <= _MOST_CHOICES else 1)
        elif count is not None:  # some readers take 5.0, or "5", for a number
            most = _MOST_CHOICES
    return most


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
