"""Take in the body of a request: bounded in size and in time, alone and together with all others, and hashed.

SigV4 signs the hash of the whole body, so it has to be here before anything can go up, unless the client has
sent the hash itself: then the body goes up as it comes, and AWS checks the hash. A body that is here stays until its
call ends: a stale connection is tried again with it, and the meter may have to look something up in it.
"""

import asyncio
from hashlib import sha256

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from passthrough.bedrock.operations import Body
from passthrough.errors import ClientGone, Refusal, invalid, too_large
from passthrough.proxy.outgoing import EMPTY_SHA256, Payload

SHA256_HEX_LENGTH = 64
_HEX_DIGITS = frozenset("0123456789abcdef")
# A shorter body that came with its head is not counted among those that are buffered: most bodies are such, and
# 10,000 of them are 160 MB at most, as much as their connections take.
UNCOUNTED_BYTES = 16 * 1024
RETRY_AFTER_SECONDS = 5  # room comes back when a call ends, which takes a model seconds

_OpenCall = asyncio.Task[object]


class Receive:
    """`max_bytes` bounds a body, `buffered_bytes` all that are buffered for open calls together.

    `stall_seconds` bounds how long a client may send nothing of a body. What a call buffers is counted under its
    task; whoever runs the call gives it back when it has ended, however it did.
    """

    def __init__(self, *, max_bytes: int, buffered_bytes: int, stall_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._buffered_bytes = buffered_bytes
        self._stall_seconds = stall_seconds
        self.held: dict[_OpenCall, int] = {}
        self.buffered = 0  # bytes: the sum of what is held

    def give_back(self, call: _OpenCall) -> None:
        """Count no more what the call buffered."""
        self.buffered -= self.held.pop(call, 0)

    async def __call__(self, request: web.BaseRequest, *, whole: bool) -> Payload:
        """Read the body; `whole`: it has to be seen before it may go up.

        Raises 413 for a body over the limit, 400 for a malformed or truncated one, 408 for one that stalls, 503 for
        one that there is no room for beside the others.
        """
        content = request.content
        hashed = _hash_of_client(request)
        if content.is_eof():
            body: Body = self._at_hand(content)
        else:
            length = request.content_length
            if length is not None and length > self._max_bytes:
                raise self._too_large()
            if hashed and length and not whole:
                return Payload(None, length, hashed, hash_is_the_clients=True)
            body = await self._read(request, length or 0)
        if hashed:
            return Payload(body, len(body), hashed, hash_is_the_clients=True)
        return Payload(body, len(body), sha256(body).hexdigest() if body else EMPTY_SHA256, hash_is_the_clients=False)

    def _at_hand(self, content: StreamReader) -> bytes:
        """Take a body that came with its head, as small ones do."""
        try:
            body = content.read_nowait()
        except (RequestPayloadError, HttpProcessingError):
            raise _malformed() from None
        except ConnectionError as error:
            raise ClientGone from error
        if len(body) > self._max_bytes:
            raise self._too_large()
        if len(body) > UNCOUNTED_BYTES:
            self._hold(len(body))
        return body

    async def _read(self, request: web.BaseRequest, announced: int) -> Body:
        try:
            self._require_room(announced)  # before a byte is read; but only what has come is counted: talk is cheap
            return await self._collect(request)
        except TimeoutError:
            raise Refusal(
                408, "RequestTimeoutException", f"No byte of the body arrived for {self._stall_seconds:g} seconds."
            ) from None
        except (RequestPayloadError, HttpProcessingError):
            raise _malformed() from None
        except ConnectionError as error:
            raise ClientGone from error

    async def _collect(self, request: web.BaseRequest) -> bytearray:
        body = bytearray()  # grows in place: a list of pieces would have to be joined, at twice the memory
        while True:
            if request.transport is None:  # aiohttp takes a wait for what cannot come for a mistake of ours
                raise ClientGone
            async with asyncio.timeout(self._stall_seconds):
                piece = await request.content.readany()
            if not piece:
                return body
            if len(body) + len(piece) > self._max_bytes:
                raise self._too_large()
            self._hold(len(piece))
            body += piece

    def _hold(self, count: int) -> None:
        self._require_room(count)
        call = asyncio.current_task()
        assert call is not None  # noqa: S101  # a coroutine runs in a task
        self.held[call] = self.held.get(call, 0) + count
        self.buffered += count

    def _require_room(self, count: int) -> None:
        if self.buffered + count > self._buffered_bytes:
            raise Refusal(
                503,
                "ServiceUnavailableException",
                "The proxy holds as many bodies of other calls as it may, try again in a few seconds.",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )

    def _too_large(self) -> Refusal:
        return too_large(f"The body is larger than {self._max_bytes} bytes, which is the limit of this proxy.")


def _malformed() -> Refusal:
    return invalid("The body is malformed or shorter than announced: send it as its headers say.")


def _hash_of_client(request: web.BaseRequest) -> str | None:
    """`x-amz-content-sha256` where it is a hash: JavaScript's SDKs send it, boto3 does not."""
    value = request.headers.get("x-amz-content-sha256")
    if value and len(value) == SHA256_HEX_LENGTH and _HEX_DIGITS.issuperset(value):
        return value
    return None
