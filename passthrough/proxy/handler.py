"""The steps of a call in their order, and nothing else; the one module that knows them all.

A `Record` is open around everything: whatever happens in between, there is one row and one line. The types
keep the order: what was not authenticated cannot be admitted, what was not admitted cannot be signed.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import HttpVersion11, web

from passthrough.bedrock.eventstream import exception_frame
from passthrough.bedrock.operations import Body
from passthrough.bedrock.requested import has_to_be_read
from passthrough.errors import ClientGone, Refusal, Unavailable, UpstreamFailure
from passthrough.proxy.admit import Admission, Admit, Limits
from passthrough.proxy.authenticate import Authenticate
from passthrough.proxy.forward import Answer, Forward, Relayed
from passthrough.proxy.headers import RequestHeaders
from passthrough.proxy.meter import Meter, meter
from passthrough.proxy.outgoing import Compose, Outgoing
from passthrough.proxy.receive import Receive
from passthrough.proxy.record import Record, Recorder
from passthrough.proxy.refuse import refuse
from passthrough.proxy.route import route
from passthrough.wire.connection import SilentUpstream

_log = logging.getLogger(__name__)

FIRST_ERROR = 400
# What AWS answers to a signature, before it looks at the call: a client, whose own is gone, can do nothing about it.
OF_OUR_CREDENTIALS = frozenset(
    {
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
INTERRUPTED = exception_frame("internalServerException", "The upstream ended the answer before it was complete.")


@dataclass(eq=False)
class Handler:
    """Serves every pass-through call; registered as it is on the catch-all route.

    `accepting` raises `Unavailable` while no call may begin (the ledger cannot take its row). `draining` is
    set once the server stops: answers then close their connections. `calls` are the tasks of open calls.
    """

    record: Recorder
    authenticate: Authenticate
    admit: Admit
    receive: Receive
    headers: RequestHeaders
    limits: Limits
    compose: Compose
    forward: Forward
    accepting: Callable[[], None]
    draining: bool = False
    calls: set["asyncio.Task[object]"] = field(default_factory=set)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task(self.loop)  # not told the loop, it would ask the kernel for the process's id
        assert task is not None  # noqa: S101  # a coroutine runs in a task
        record = self.record.open(request)  # 7, opened first and closed last
        self.calls.add(task)
        try:
            return await self._serve(request, record)
        except Exception as error:  # noqa: BLE001  # told apart there; a bug of ours ends a call like anything else
            return _in_place_of(error, record)
        except asyncio.CancelledError:
            record.client_gone() if request.transport is None else record.cut()
            raise
        finally:
            self.calls.discard(task)
            if self.receive.held:
                self.receive.give_back(task)
            record.close()

    async def drained(self) -> None:
        """Wait until no call is open, those of clients that left included."""
        while self.calls:
            await asyncio.wait(tuple(self.calls))

    async def _serve(self, request: web.BaseRequest, record: Record) -> web.StreamResponse:
        entry = record.entry
        self.accepting()
        call = route(request.method, request.raw_path)  # 1
        entry.service, entry.operation = call.operation.service, call.operation.name or None
        entry.model, entry.stream = call.model, call.operation.streams

        caller = self.authenticate.known(request.headers) or await self.authenticate(request.headers)  # 2
        record.belongs_to(caller.key, caller.secret)
        caller.check_address(call)

        admission = await self.admit(  # 3
            caller.key,
            call,
            scope_region=caller.scope_region,
            headers=request.headers,
            end_user=entry.end_user,
        )
        entry.region = admission.region
        if admission.call.model != entry.model:
            entry.billed_model = admission.call.model  # what an alias stands for

        outgoing = await self._sign(request, admission, caller.secret, record)  # 4

        answer = _CallsAnswer(self, request, admission, record, outgoing.body)  # 6, fed while 5 relays
        record.answer = answer
        response = await self.forward(outgoing, request, answer)  # 5
        if not record.closed:
            record.cut()
        return response

    async def _sign(self, request: web.BaseRequest, admission: Admission, secret: str, record: Record) -> Outgoing:
        call = admission.call
        whole = (
            admission.needs_body
            or has_to_be_read(call.operation, call.model)
            or self.limits.reads_body(admission.key, record.entry)
        )
        payload = await self.receive(request, whole=whole)
        record.entry.request_bytes = payload.length
        if payload.body is not None:
            admission.check(payload.body)
            record.request_body(call.operation, payload.body)
        # Held to its limits: the record gives back or settles what it holds, however the call ends.
        asked = admission.key, record.entry, call, payload.body, payload.length
        hold = self.limits.reserve(*asked)
        record.hold = hold if hold is not None else await self.limits.acquire(*asked)
        record.entry.identity = self.compose.identity_name  # the sums take it for a call that goes up
        forwarded = self.headers.choose(request.raw_headers, secret)
        return self.compose(request.method, call, admission.region, forwarded, payload)


class _CallsAnswer(Answer):
    """The answer of a call: its head begins the metering, its end closes the record."""

    __slots__ = ("_added", "_admission", "_handler", "_record", "_request_body")

    def __init__(
        self, handler: Handler, request: web.BaseRequest, admission: Admission, record: Record, body: Body | None
    ) -> None:
        super().__init__(keeps_open=request.keep_alive and request.version >= HttpVersion11)
        self._handler = handler
        self._admission = admission
        self._record = record
        self._request_body = body or b""
        # limits as they are now, not when the answer comes
        self._added = b"x-passthrough-call-id: %b\r\n%b" % (
            record.entry.call_id.encode(),
            handler.limits.header_lines(record.hold, admission.call.model),
        )

    def begins(self, status: int, fields: Mapping[str, str]) -> tuple[Meter, bytes]:
        record, entry = self._record, self._record.entry
        record.answer_begins()
        entry.status = status
        entry.upstream_request_id = fields.get("x-amzn-requestid")
        if status >= FIRST_ERROR and (code := fields.get("x-amzn-errortype")):
            entry.error_type = code.split(":", 1)[0]
            if entry.error_type in OF_OUR_CREDENTIALS:  # the client reads of a key that it never had
                _log.error(
                    "AWS refuses the proxy's own credentials",
                    extra={"error_type": entry.error_type, "identity": entry.identity, "call_id": entry.call_id},
                )
        if self._handler.draining:
            self.keeps_open = False
        counted = meter(self._admission.call, status, fields, self._request_body)
        record.meter = counted
        return counted, self._added

    def completed(self, end: Callable[[], None]) -> None:
        self._record.close(end)

    def left(self) -> None:
        self._record.client_gone()

    def interruption(self) -> bytes:
        return INTERRUPTED


def _in_place_of(error: Exception, record: Record) -> web.StreamResponse:
    """Answer a call that failed before a byte of an answer went out, in each of the ways in which calls fail."""
    call_id = record.entry.call_id
    match error:
        case Refusal():
            if isinstance(error, Unavailable):
                _log.warning("unavailable", extra={"cause": error.cause, "call_id": call_id})
            refusal = error
            record.refused(refusal)
        case UpstreamFailure():
            _log.warning("upstream failed", extra={"cause": str(error), "call_id": call_id})
            refusal = _as_refusal(error)
            record.refused(refusal, outcome="upstream_error")
        case ClientGone():
            record.client_gone()
            return Relayed(keep_alive=False)
        case _:
            _log.error("a call failed for a reason of ours", exc_info=error, extra={"call_id": call_id})
            refusal = Refusal(500, "InternalServerException", "The proxy failed to serve the call; its log says why.")
            record.refused(refusal)
    return refuse(refusal, call_id)


def _as_refusal(failure: UpstreamFailure) -> Refusal:
    if isinstance(failure, SilentUpstream):
        return Refusal(408, "ModelTimeoutException", "The upstream did not answer in time, try again.")
    return Refusal(502, "BadGatewayException", "The upstream ended the connection without an answer, try again.")
