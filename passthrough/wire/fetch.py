"""A small answer, taken in whole: for what this program asks AWS itself. Whoever asks sets the timeout."""

import asyncio

from passthrough.errors import UpstreamFailure
from passthrough.wire.connection import Head
from passthrough.wire.dial import Address
from passthrough.wire.pool import Pool


async def fetch(pool: Pool, address: Address, request: bytes, *, most_bytes: int) -> tuple[Head, bytes]:
    """Send a request without a body on a connection of its own; an answer of more than `most_bytes` is a failure."""
    connection = await pool.acquire(address, fresh=True)
    answer = _Answer(most_bytes)
    connection.start(answer, request)
    try:
        return await answer.whole
    except BaseException:
        connection.abandon(answer)
        raise


class _Answer:
    """Takes in a small answer (a `wire.connection.Receiver`)."""

    def __init__(self, most_bytes: int) -> None:
        self.whole: asyncio.Future[tuple[Head, bytes]] = asyncio.get_running_loop().create_future()
        self._most_bytes = most_bytes
        self._head: Head | None = None
        self._body = b""

    def head_received(self, head: Head) -> None:
        self._head = head

    def body_received(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._most_bytes:
            self.failed(UpstreamFailure("the answer is too long"))

    def completed(self) -> None:
        if self._head is not None and not self.whole.done():
            self.whole.set_result((self._head, self._body))

    def failed(self, error: UpstreamFailure) -> None:
        if not self.whole.done():
            self.whole.set_exception(error)

    def flush(self) -> None:
        """Nothing goes on to anybody."""
