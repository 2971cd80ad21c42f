"""Prompts of every API read into one value: last words, token counts, limit, demanded tool.

Tolerant of anything that is JSON: what is not where it should be is not there. Whether a request is acceptable
is decided elsewhere (`inputs`, and each API's own rules).
"""

from collections.abc import Iterator
from typing import Any

from passthrough.sandbox.exchange import Asked
from passthrough.sandbox.replies import Prompt, Tool
from passthrough.sandbox.tokens import Segment, Ttl, count, text_of


def of_converse(asked: Asked) -> Prompt:
    document = asked.document
    tool_config = as_dict(document.get("toolConfig"))
    tools = [
        Tool(str(spec.get("name")), as_dict(as_dict(spec.get("inputSchema")).get("json")))
        for spec in (as_dict(as_dict(tool).get("toolSpec")) for tool in as_list(tool_config.get("tools")))
        if spec
    ]
    choice = as_dict(tool_config.get("toolChoice"))
    return Prompt(
        last_words=_last_words(document),
        use=asked.cache.use(asked.model, converse_segments(document)),
        max_tokens=as_limit(as_dict(document.get("inferenceConfig")).get("maxTokens")),
        forced=_forced(tools, as_dict(choice.get("tool")).get("name"), any_tool="any" in choice),
    )


def of_messages(asked: Asked, document: dict[str, Any]) -> Prompt:
    """Anthropic's Messages."""
    offered = [as_dict(tool) for tool in as_list(document.get("tools"))]
    tools = [Tool(str(tool.get("name")), as_dict(tool.get("input_schema"))) for tool in offered]
    choice = as_dict(document.get("tool_choice"))
    return Prompt(
        last_words=_last_words(document),
        use=asked.cache.use(asked.model, messages_segments(document)),
        max_tokens=as_limit(document.get("max_tokens")),
        forced=_forced(tools, choice.get("name"), any_tool=choice.get("type") == "any"),
    )


def of_openai(asked: Asked, document: dict[str, Any]) -> Prompt:
    """OpenAI's chat completions and responses, and the models that speak that way."""
    said = document.get("messages", document.get("input"))
    offered = [as_dict(tool) for tool in as_list(document.get("tools"))]
    text = text_of([offered, document.get("instructions"), said])
    functions = [as_dict(tool.get("function", tool)) for tool in offered]
    tools = [Tool(str(one.get("name")), as_dict(one.get("parameters"))) for one in functions if "name" in one]
    choice = document.get("tool_choice")
    named = as_dict(choice).get("name") or as_dict(as_dict(choice).get("function")).get("name")
    limits = (document.get(name) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"))
    return Prompt(
        last_words=said if isinstance(said, str) else _last_words({"messages": said}),
        use=asked.cache.use(asked.model, [Segment(text)]),
        max_tokens=next((limit for limit in map(as_limit, limits) if limit), None),
        forced=_forced(tools, named, any_tool=choice == "required"),
    )


def of_text(asked: Asked, text: str, limit: Any) -> Prompt:
    """A model that takes one text."""
    return Prompt(last_words=text, use=asked.cache.use(asked.model, [Segment(text)]), max_tokens=as_limit(limit))


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_limit(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def messages_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [as_dict(message) for message in as_list(document.get("messages"))]


def blocks_of(content: Any) -> list[dict[str, Any]]:
    """Content that may be a string or a list of blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [as_dict(block) for block in as_list(content)]


def converse_segments(document: dict[str, Any]) -> list[Segment]:
    """A Converse request in the order in which its prefix is cached: tools, system, messages."""
    parts = [as_dict(document.get("toolConfig")).get("tools"), document.get("system")]
    parts += [message.get("content") for message in messages_of(document)]
    return [segment for part in parts for segment in _converse_segments(as_list(part))]


def messages_segments(document: dict[str, Any]) -> list[Segment]:
    """The same for Anthropic's Messages."""
    parts = [document.get("tools"), document.get("system")]
    parts += [message.get("content") for message in messages_of(document)]
    return [segment for part in parts for segment in _anthropic_segments(blocks_of(part))]


def _converse_segments(blocks: list[Any]) -> Iterator[Segment]:
    """A cache point is a block of its own here, and closes the block before it."""
    for block in blocks:
        point = as_dict(block).get("cachePoint")
        yield Segment(text_of(block), _ttl(point) if isinstance(point, dict) else None)


def _anthropic_segments(blocks: list[dict[str, Any]]) -> Iterator[Segment]:
    """A cache point is a member of the block that it closes."""
    for block in blocks:
        control = block.get("cache_control")
        yield Segment(text_of(block), _ttl(control) if isinstance(control, dict) else None)


def _ttl(point: dict[str, Any]) -> Ttl:
    return "1h" if point.get("ttl") == "1h" else "5m"


def _last_words(document: dict[str, Any]) -> str:
    """The text of the user's last message."""
    for message in reversed(messages_of(document)):
        if message.get("role") == "user":
            texts = (text_of(block) for block in blocks_of(message.get("content")))
            return next((text for text in reversed(list(texts)) if text), "")
    return ""


def _forced(tools: list[Tool], named: Any, *, any_tool: bool) -> Tool | None:
    if not tools or not (named or any_tool):
        return None
    return next((tool for tool in tools if tool.name == named), tools[0] if any_tool else None)


def tokens_of(document: dict[str, Any]) -> int:
    """What counting tokens answers: the whole prompt of any request body, cached or not."""
    return max(1, count(text_of([document.get(name) for name in _PROMPT_MEMBERS])))


_PROMPT_MEMBERS = (
    "tools",
    "system",
    "messages",
    "prompt",
    "inputText",
    "texts",
    "message",
    "input",
    "instructions",
    "query",
    "documents",
)
