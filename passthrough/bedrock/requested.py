"""What a request asked for, where the price goes by that and the answer does not repeat it: searches and images."""

from collections.abc import Mapping
from typing import Any

import msgspec

from passthrough.bedrock.documents import UNREADABLE
from passthrough.bedrock.models import base_model
from passthrough.bedrock.named import is_intricate
from passthrough.bedrock.operations import Body, Operation

# One search unit is a query with up to this many documents, https://aws.amazon.com/bedrock/pricing/ (Rerank models).
_DOCUMENTS_PER_UNIT = 100
_MAX_IMAGES = 64  # AWS allows 5 a call; more is garbage
_SIZES = (512, 1024, 2048)  # the steps of AWS's image prices, in pixels of the longer side
_RERANK = ".rerank-"
_DRAW = ("stability.", "amazon.titan-image-", "amazon.nova-canvas-")
_DEFAULT_SIDE = 1024  # what Titan Image Generator and Nova Canvas draw when the request does not say


class _Rerank(msgspec.Struct):
    """The Rerank operation of bedrock-agent-runtime."""

    queries: list[msgspec.Raw] = []
    sources: list[msgspec.Raw] = []


class _InvokedRerank(msgspec.Struct):
    """Amazon's and Cohere's rerank models through InvokeModel."""

    documents: list[msgspec.Raw] = []


class _Drawing(msgspec.Struct):
    number: Any = msgspec.field(name="numberOfImages", default=1)
    width: Any = _DEFAULT_SIDE
    height: Any = _DEFAULT_SIDE
    quality: Any = "standard"


class _Image(msgspec.Struct):
    drawing: _Drawing = msgspec.field(name="imageGenerationConfig", default_factory=_Drawing)
    samples: Any = 1  # Stable Diffusion XL


def has_to_be_read(operation: Operation, model: str | None) -> bool:
    """Whether the record needs the request's body: it names the model, or says how many units are bought.

    `model` is that of the path. Without the body such a call would cost nothing, and a client decides by a header
    whether a body is read before it goes up.
    """
    return bool(operation.body_models) or (operation.name == "InvokeModel" and _is_by_unit(base_model(model or "")))


def units_requested(operation: str, model: str | None, body: Body) -> Mapping[str, float]:
    """Count the units of a request: empty for what is priced by tokens, and for a body that cannot be read."""
    if is_intricate(body):
        return {}
    base = base_model(model) if model else ""
    try:
        if operation == "Rerank":
            asked = msgspec.json.decode(body, type=_Rerank)
            return {"searches": float(len(asked.queries) * _search_units(len(asked.sources)))}
        if operation != "InvokeModel":
            return {}
        if _RERANK in base:
            documents = msgspec.json.decode(body, type=_InvokedRerank).documents
            return {"searches": float(_search_units(len(documents)))}
        if base.startswith(_DRAW):
            return _images(base, msgspec.json.decode(body, type=_Image))
    except UNREADABLE:
        pass
    return {}


def _is_by_unit(base: str) -> bool:
    return _RERANK in base or base.startswith(_DRAW)


def _search_units(documents: int) -> int:
    return -(-documents // _DOCUMENTS_PER_UNIT)


def _images(base: str, asked: _Image) -> Mapping[str, float]:
    """Images, in the classes by which they are priced: Stability's alike, Amazon's by size and quality."""
    number = asked.samples if base.startswith("stability.") else asked.drawing.number
    if not isinstance(number, int) or not 0 < number <= _MAX_IMAGES:
        return {}
    if base.startswith("stability."):
        return {"images": float(number)}
    sides = (asked.drawing.width, asked.drawing.height)
    longer = max((side for side in sides if isinstance(side, int)), default=_DEFAULT_SIDE)
    size = next((size for size in _SIZES if longer <= size), _SIZES[-1])
    quality = "premium" if asked.drawing.quality == "premium" else "standard"
    return {f"images_{size}_{quality}": float(number)}
