"""Models that answer with numbers or pictures: embeddings, rankings, images."""

import base64
import struct
import zlib
from hashlib import sha256
from typing import Any

from passthrough.errors import invalid
from passthrough.sandbox.exchange import Asked
from passthrough.sandbox.prompts import as_dict, as_limit, as_list
from passthrough.sandbox.tokens import count, text_of

Json = dict[str, Any]
MAX_DIMENSIONS = 4096  # more than any embedding model on Bedrock has
_TITAN_V1_DIMENSIONS, _V2_DIMENSIONS, _COHERE_V4_DIMENSIONS = 1536, 1024, 1536


def embedding(text: str, dimensions: int) -> list[float]:
    """A vector of length one that depends on the text alone, so equal texts are equal and others are not."""
    wanted = max(1, min(dimensions, MAX_DIMENSIONS))
    raw = b""
    block = sha256(text.encode("utf-8", "surrogatepass")).digest()
    while len(raw) < wanted * 2:
        raw += block
        block = sha256(block).digest()
    numbers = [number / 32768 for number in struct.unpack(f">{wanted}h", raw[: wanted * 2])]
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return [round(number / length, 8) for number in numbers]


def titan_embedding(asked: Asked, document: Json) -> tuple[Json, int | None]:
    text = document.get("inputText")
    if not isinstance(text, str):
        raise invalid(
            "Malformed input request: #: required key [inputText] not found, please reformat your input and try again."
        )
    is_v1 = "embed-text-v1" in asked.model or "embed-g1-text" in asked.model
    dimensions = as_limit(document.get("dimensions")) or (_TITAN_V1_DIMENSIONS if is_v1 else _V2_DIMENSIONS)
    vector = embedding(text, dimensions)
    tokens = max(1, count(text))
    body: Json = {"embedding": vector, "inputTextTokenCount": tokens}
    if not is_v1:
        body["embeddingsByType"] = dict.fromkeys(map(str, _kinds(document, "embeddingTypes")), vector)
    return body, tokens


def _kinds(document: Json, key: str) -> list[Any]:
    return as_list(document.get(key)) or ["float"]


def multimodal_embedding(asked: Asked, document: Json) -> tuple[Json, int | None]:
    """Titan multimodal; Nova's has its own shape."""
    text = text_of(document)
    tokens = max(1, count(text))
    if "nova" in asked.model:
        parameters = as_dict(document.get("singleEmbeddingParams"))
        dimensions = as_limit(parameters.get("embeddingDimension")) or 3072
        return {"embeddings": [{"embeddingType": "TEXT", "embedding": embedding(text, dimensions)}]}, tokens
    length = as_limit(as_dict(document.get("embeddingConfig")).get("outputEmbeddingLength")) or _V2_DIMENSIONS
    return {"embedding": embedding(text, length), "inputTextTokenCount": tokens, "message": None}, tokens


def cohere_embeddings(asked: Asked, document: Json) -> tuple[Json, int | None]:
    texts = [text for text in as_list(document.get("texts")) if isinstance(text, str)]
    if not texts and not document.get("images") and not document.get("inputs"):
        raise invalid("invalid request: valid texts must be provided")
    is_v4 = "embed-v4" in asked.model
    default = _COHERE_V4_DIMENSIONS if is_v4 else _V2_DIMENSIONS
    dimensions = as_limit(document.get("output_dimension")) or default
    vectors = [embedding(text, dimensions) for text in texts or [text_of(document)]]
    body: Json = {"id": asked.request_id, "texts": texts}
    if "embedding_types" in document or is_v4:
        by_type = dict.fromkeys(map(str, _kinds(document, "embedding_types")), vectors)
        body |= {"response_type": "embeddings_by_type", "embeddings": by_type}
    else:
        body |= {"response_type": "embeddings_floats", "embeddings": vectors}
    return body, max(1, sum(map(count, texts)))


def ranking(_asked: Asked, document: Json) -> tuple[Json, int | None]:
    """Cohere's and Amazon's rerank models; there is no token count anywhere."""
    documents = as_list(document.get("documents"))
    if not document.get("query") or not documents:
        raise invalid("Malformed input request: query and documents are required, please reformat your input.")
    scores = relevances(str(document["query"]), [text_of(one) for one in documents])
    top = as_limit(document.get("top_n")) or len(scores)
    return {"results": [{"index": at, "relevance_score": score} for at, score in scores[:top]]}, None


def relevances(query: str, texts: list[str]) -> list[tuple[int, float]]:
    """Index and score of each text, best first: the share of the query's words that it contains."""
    words = set(query.lower().split()) or {""}
    scored = [(at, sum(word in text.lower() for word in words) / len(words)) for at, text in enumerate(texts)]
    return sorted(scored, key=lambda pair: -pair[1])


def picture(asked: Asked, document: Json) -> tuple[Json, int | None]:
    """A grey pixel, as often as asked for."""
    wanted = as_limit(as_dict(document.get("imageGenerationConfig")).get("numberOfImages")) or 1
    images = [base64.b64encode(_png()).decode()] * min(wanted, 5)
    if "stability" in asked.model:
        return {"seeds": [0] * len(images), "finish_reasons": [None] * len(images), "images": images}, None
    return {"images": images, "error": None}, None


def _png() -> bytes:
    """The smallest whole PNG: one grey pixel (https://www.w3.org/TR/png/)."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    parts = part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\x00\x80")) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
