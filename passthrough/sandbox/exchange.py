"""What comes in and what goes out: the values that the parts of the sandbox hand to each other.

Everything between `Received` and `Answer`/`Streamed` is a function without I/O; only `server` owns sockets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from botocore.model import OperationModel

from passthrough.sandbox.tokens import PromptCache

JSON = "application/json"
EVENT_STREAM = "application/vnd.amazon.eventstream"
SSE = "text/event-stream; charset=utf-8"

HeaderPairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: nothing decoded, nothing normalised, duplicates and their order kept.

    `target` is the request target (path and query) with undecodable bytes as lone surrogates.
    """

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """The first header of that name, or None."""
        wanted = name.lower().encode()
        for key, value in self.headers:
            if key.lower() == wanted:
                return value.decode("utf-8", "surrogateescape")
        return None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was understood: what the functions that make answers read.

    `operation` is botocore's, None for the endpoints that no service model lists; `labels` are the URI labels
    unquoted once; `document` is the JSON body ({} when there is none), `region` the one it was signed for.
    """

    received: Received
    name: str
    operation: OperationModel | None
    labels: Mapping[str, str]
    document: dict[str, Any]
    region: str
    request_id: str
    now: float
    cache: PromptCache

    @property
    def model(self) -> str:
        """The model id of the path, or of the body where it stands there."""
        return str(self.labels.get("modelId") or self.document.get("modelId") or self.document.get("model") or "")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    body: bytes
    status: int = 200
    headers: HeaderPairs = ()
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer in pieces (event-stream frames, SSE events) that leave one by one, at the pace of a model."""

    pieces: Sequence[bytes]
    headers: HeaderPairs = ()
    content_type: str = EVENT_STREAM
    status: int = field(default=200)


def json_answer(value: object, *, status: int = 200, headers: HeaderPairs = ()) -> Answer:
    return Answer(msgspec.json.encode(value), status=status, headers=headers)
