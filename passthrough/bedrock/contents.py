"""How many tokens the pictures, documents and films of a request are at most, which are no text."""

from typing import Any, Final

import msgspec

from passthrough.bedrock.documents import UNREADABLE
from passthrough.bedrock.named import is_intricate
from passthrough.bedrock.operations import Body

# https://docs.claude.com/en/docs/build-with-claude/vision: 4,784 at most; others cut a picture into 16x16 or 28x28
# pixels, of which 2048x2048 has 16,384.
_CLAUDE_PICTURE: Final = 5000
_PICTURE: Final = 16_384
_EMBEDDED: Final = frozenset({"inputImage", "images"})  # Titan's and Cohere's, whose texts stand elsewhere
_PICTURES: Final = frozenset({"image", "image_url", "input_image"}) | _EMBEDDED
_PACKED: Final = frozenset(
    {"document", "video", "video_url", "input_video", "audio", "audio_url", "input_audio", "file", "input_file"}
)

_CONVERSATION: Final = "input"  # what the Responses API calls it: a list or a text; of a tool it is an object
# Where a tool's own JSON stands, or an answer's schema, which the model reads as text, whatever it looks like.
_TOOLS_OWN: Final = frozenset(
    {"json", _CONVERSATION, "inputSchema", "input_schema", "parameters", "arguments", "schema"}
)
# What holds the base64 of a picture, in all shapes.
_DATA: Final = frozenset({"bytes", "data", "url", "image_url"}) | _EMBEDDED


def beyond_text(body: Body, window: int, *, claude: bool) -> int:
    """What has to be added to, or taken from, the bytes of a body in which not all is text.

    `window`, the most that its model takes, where nobody can tell.
    """
    if is_intricate(body):
        return window
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return window
    picture = _CLAUDE_PICTURE if claude else _PICTURE
    change = 0
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        name, node = waiting.pop()
        if name in _TOOLS_OWN and (isinstance(node, dict) or name != _CONVERSATION):
            continue
        if isinstance(node, list):
            waiting.extend(("" if name == _CONVERSATION else name, item) for item in node)
            continue
        kinds = {name, str(node.get("type"))} if isinstance(node, dict) else {name} if isinstance(node, str) else set()
        if _is_elsewhere(node) or (kinds & _PACKED and isinstance(node, dict)):
            return window
        if kinds & _PICTURES:
            change += picture - _packed_bytes(name, node)
        elif isinstance(node, dict):
            waiting.extend(node.items())
    return change


def _is_elsewhere(node: Any) -> bool:  # any JSON value
    """Whether it names an object in S3: also the source of a picture, which could be a film."""
    if not isinstance(node, dict):
        return False
    source = node.get("source")
    return any("s3Location" in part or "s3Uri" in part for part in (node, source) if isinstance(part, dict))


def _packed_bytes(name: str, node: Any) -> int:  # any JSON value below a picture
    """Bytes of base64 below a picture: the only long strings where its data belongs."""
    if isinstance(node, str):
        return len(node) if name in _DATA and len(node) > 256 else 0  # noqa: PLR2004  # shorter ones are addresses
    if isinstance(node, dict):
        return sum(_packed_bytes(name, value) for name, value in node.items())
    return 0
