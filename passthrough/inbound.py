"""The server's side of a client's connection: aiohttp's protocol, held to our bounds, our answers and our end.

Where it touches a private corner of aiohttp, tests/journeys and tests/adversity hold it to what is expected there.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.web import RequestPayloadError

from passthrough.errors import Refusal
from passthrough.policy.ledger import uuid7
from passthrough.proxy.refuse import last_words, refuse

_log = logging.getLogger(__name__)

# All fields of a request together. aiohttp would take 128 of the longest and keep them, at twice their size, for as
# long as an idle connection lives: hundreds of connections of strangers would be gigabytes.
MAX_HEAD_BYTES = 256 * 1024


class Room:
    """How many connections of clients there may be at once, `most`, and how many there are.

    Each may need a second file, to AWS; and journal, log and PostgreSQL need theirs, whoever else comes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._was_full = False

    def enter(self) -> bool:
        """Whether there was room; each entrance is left once, by whoever found room or not."""
        self._taken += 1
        if self._taken <= self.most:
            return True
        if not self._was_full:
            self._was_full = True
            _log.warning(
                "no more connections are taken: raise the limit of open files", extra={"connections": self.most}
            )
        return False

    def leave(self) -> None:
        self._taken -= 1
        if self._taken < self.most // 2:
            self._was_full = False


class Protocol(web.RequestHandler):
    """aiohttp's server protocol, with a bound on a request's head, and a refusal in our shape for what is not HTTP.

    `refused` is told the status of each such refusal: there is no call that could be recorded. `server_ends` says
    whether the server is coming to its end: what was on its way to be a connection then is closed as soon as it is one.
    So is what finds no `room`.
    """

    # Its parent has slots, and so has it: there is one of these for every connection.
    __slots__ = ("_ends", "_head_bytes", "_last_body", "_refused", "_room", "_server_ends", "_too_much")

    def __init__(
        self,
        *arguments: Any,
        refused: Callable[[int], None],
        server_ends: Callable[[], bool],
        room: Room,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._room = room
        self._refused = refused
        self._server_ends = server_ends
        self._head_bytes = 0
        self._last_body: StreamReader | None = None
        self._too_much = False
        self._ends = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._room.enter():
            self._refused(HTTPStatus.SERVICE_UNAVAILABLE)
            self.force_close()
        elif self._server_ends():  # it was accepted, or its TLS handshake began, before the others were closed
            self.close()

    def data_received(self, data: bytes) -> None:
        if self._too_much:
            return
        requests = self._request_count
        super().data_received(data)
        if self._request_count != requests:
            self._head_bytes = 0
            self._end_what_is_read()
            self._last_body = self._messages[-1][1] if self._messages else None
        elif self._last_body is None or self._last_body.is_eof():  # no request ended in it, so it belongs to a head
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse_head()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  # the interface
        """Go on with what is paused, and only then: aiohttp asks for it with every piece of a body that is taken."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def _end_what_is_read(self) -> None:
        """Tell whoever reads an unfinished body that no more will come of it.

        What comes behind one cannot be the next request, so it is malformed. aiohttp answers that in its turn, and
        would let the reader wait for it.
        """
        request, body = self._current_request, self._last_body
        if request is not None and body is not None and request.content is body and not body.is_eof():
            body.set_exception(RequestPayloadError("the body is malformed"))

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._room.leave()
        self._last_body = None  # it knows us: without this only the garbage collector would part us

    def _refuse_head(self) -> None:
        self._too_much = True
        message = f"The fields of the request are longer than {MAX_HEAD_BYTES} bytes together: send less."
        refusal = Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value, "ValidationException", message)
        self._refused(refusal.status)
        if self.transport is not None and self._waiter is not None:  # nobody is in the middle of another answer
            self.transport.write(last_words(refusal, uuid7(time.time())))
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  # the interface
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # tells more of the request than an answer should
    ) -> web.StreamResponse:
        if status >= 500:  # noqa: PLR2004  # the border between their fault and ours
            _log.error("a request failed for a reason of ours", exc_info=exc)
            refusal = Refusal(status, "InternalServerException", "The proxy failed to serve the request.")
        else:
            refusal = Refusal(
                status, "ValidationException", "The request is not valid HTTP/1.1, or its head is too large."
            )
        return self._refuse(refusal)

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Answer in our shape where aiohttp itself says no: to a target that is no path, to an odd expectation."""
        if isinstance(resp, web.HTTPException):
            code = "UnknownOperationException" if resp.status == HTTPStatus.NOT_FOUND else "ValidationException"
            refusal = Refusal(resp.status, code, f"The request cannot be served: {resp.reason}.")
            resp = self._refuse(refusal)
        if self._ends:
            resp.force_close()
            self._close = request.content.is_eof()  # else aiohttp reads the rest of it first
        return super().finish_response(request, resp, start_time)

    def _refuse(self, refusal: Refusal) -> web.Response:
        self._refused(refusal.status)
        response = refuse(refusal, uuid7(time.time()))
        response.force_close()
        return response

    def close(self) -> None:
        """Come to an end, as the server does: at once when idle, else with the answer to what has arrived.

        aiohttp would go deaf instead: a body that is still on its way would never arrive, and a client that keeps
        an idle connection would send its next call into it.
        """
        self._ends = True
        if not self._request_in_progress and not self._messages:
            self.force_close()
