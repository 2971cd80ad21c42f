"""What the sandbox says. Not what a model would say, but as long, as piecemeal and as well-formed as that."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from passthrough.sandbox.tokens import CHARACTERS_PER_TOKEN, TokenUse, count

QUOTED_CHARACTERS = 200  # of the user's last words
# A text with this in it is what every guardrail of the sandbox blocks.
BLOCKED_WORDS = "sandbox.intervene"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model was offered."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked, in whatever API: read by `prompts`, answered by `reply_to`.

    `forced` is the tool that the request demands to be used, None when the model may talk.
    """

    last_words: str
    use: TokenUse
    max_tokens: int | None = None
    forced: Tool | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer before any API shaped it. `stop` is Converse's word: end_turn, max_tokens or tool_use."""

    text: str
    stop: str
    use: TokenUse
    tool: Tool | None = None
    tool_input: Mapping[str, Any] | None = None

    @property
    def output_tokens(self) -> int:
        return max(1, count(self.text) + (count(str(self.tool_input)) if self.tool_input is not None else 0))

    @property
    def deltas(self) -> Sequence[str]:
        """The text word by word, as models stream it."""
        return re.findall(r"\s*\S+|\s+$", self.text)

    @property
    def tool_input_pieces(self) -> Sequence[str]:
        """The tool's input as models stream it: JSON text in pieces, the first of them empty."""
        written = msgspec.json.encode(self.tool_input).decode()
        middle = len(written) // 2
        return ("", written[:middle], written[middle:])

    @property
    def latency_ms(self) -> int:
        """An invented but steady figure: a fast model's 120 ms to the first token and 8 ms for each."""
        return self.first_byte_ms + 8 * self.output_tokens

    @property
    def first_byte_ms(self) -> int:
        return 120


def reply_to(prompt: Prompt) -> Reply:
    if prompt.forced is not None:
        return Reply("", "tool_use", prompt.use, prompt.forced, example_of(prompt.forced.schema))
    said = prompt.last_words.strip()
    quoted = said[:QUOTED_CHARACTERS] + ("…" if len(said) > QUOTED_CHARACTERS else "")
    text = (
        "This is the passthrough sandbox: no model was asked, and nothing was paid. "
        f"Your request was well-formed, its signature was right, and its last words were: “{quoted}”."
    )
    if prompt.max_tokens is not None and count(text) > prompt.max_tokens:
        return Reply(text[: prompt.max_tokens * CHARACTERS_PER_TOKEN], "max_tokens", prompt.use)
    return Reply(text, "end_turn", prompt.use)


def example_of(schema: Any) -> Any:
    """A value that a JSON schema allows: enough of JSON Schema for the tools that people write."""
    if not isinstance(schema, Mapping):
        return "sandbox"
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    for choice in ("enum", "anyOf", "oneOf", "allOf"):
        options = schema.get(choice)
        if isinstance(options, list) and options:
            return options[0] if choice == "enum" else example_of(options[0])
    properties = schema.get("properties")
    kind = schema.get("type", "string" if properties is None else "object")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind == "object":
        return (
            {name: example_of(inner) for name, inner in properties.items()} if isinstance(properties, Mapping) else {}
        )
    if kind == "array":
        return [example_of(schema.get("items"))]
    if kind in ("integer", "number"):  # a tuple, because a list may be what is asked
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(str(kind), "sandbox")
