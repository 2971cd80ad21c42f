"""The sandbox as a server: sockets, pace, and what is done to connections on purpose."""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiohttp import web
from multidict import CIMultiDict

from passthrough.policy.credentials import Credentials
from passthrough.sandbox import catalogue, script
from passthrough.sandbox.access import DEFAULT_BEARER_TOKEN, DEFAULT_CREDENTIALS, Gate
from passthrough.sandbox.desk import Desk
from passthrough.sandbox.exchange import Answer, Received, Streamed
from passthrough.sandbox.faults import Plan

MAX_BODY_BYTES = 128 * 1024 * 1024  # above the proxy's own limit (64 MiB), so that the proxy's is what is met
MAX_FIELD_BYTES = 64 * 1024  # short-term API keys and session tokens have kilobytes
MAX_LINE_BYTES = 256 * 1024  # absurd paths are the proxy's to refuse; here they get AWS's 404
PACE_SECONDS = 0.02  # 50 pieces a second, an ordinary model
_GRACE_SECONDS = 0.2  # what is still being answered when the sandbox closes is cut after this


class Sandbox:
    """A stand-in for Bedrock on a socket, for as long as the `async with` lasts.

    `credentials` are those that may sign (one or several), `bearer_token` the API key that is taken in their place;
    `region` is the only one that requests may be signed for, None takes any. `port` 0 takes a free one: see `url`.
    `on_request` gets every request, whatever becomes of it, before it is answered; `on_end` gets it again with
    whether the answer was sent to its end (False: the client left, or a fault cut it). Both are called in the
    event loop and must not block. `clock` gives epoch seconds.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: Credentials | Sequence[Credentials] = DEFAULT_CREDENTIALS,
        bearer_token: str | None = DEFAULT_BEARER_TOKEN,
        region: str | None = None,
        pace_seconds: float = PACE_SECONDS,
        on_request: Callable[[Received], None] | None = None,
        on_end: Callable[[Received, bool], None] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        known = [credentials] if isinstance(credentials, Credentials) else list(credentials)
        self._gate = Gate(known, bearer_token=bearer_token, region=region)
        self._desk = Desk(self._gate, clock=clock)
        self._address = host, port
        self._ssl_context = ssl_context
        self._pace_seconds = pace_seconds
        self._on_request = on_request
        self._on_end = on_end
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end; only while the sandbox is open."""
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("The sandbox is not open: use it with `async with`.")
        host, port = self._runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._ssl_context else 'http'}://{shown}:{port}"

    def expire(self, access_key: str) -> None:
        """From now on, requests signed with this access key get `ExpiredTokenException`."""
        self._gate.expire(access_key)

    async def __aenter__(self) -> Self:
        self._closing = asyncio.Event()
        await asyncio.to_thread(catalogue.load)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", r"/{any:[\s\S]*}", self._handle)
        app.on_response_prepare.append(_without_server)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            handler_cancellation=True,  # a client that leaves ends its delay or stall at once
            max_field_size=MAX_FIELD_BYTES,
            max_line_size=MAX_LINE_BYTES,
            shutdown_timeout=_GRACE_SECONDS,
        )
        await self._runner.setup()
        host, port = self._address
        await web.TCPSite(self._runner, host, port, ssl_context=self._ssl_context).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(request.method, request.raw_path, request.raw_headers, await request.read())
        if self._on_request is not None:
            self._on_request(received)
        complete = False
        try:
            answer, plan = self._desk.answer(received)
            response, complete = await self._deliver(request, answer, plan)
            return response
        finally:
            if self._on_end is not None:
                self._on_end(received, complete)

    async def _deliver(
        self, request: web.Request, answer: Answer | Streamed, plan: Plan
    ) -> tuple[web.StreamResponse, bool]:
        """The response as far as it was sent, and whether that is all of it."""
        if plan.has("delay"):
            await self._wait(plan.seconds("delay", 1.0))
        for name, ending in (("close-before-answer", "close"), ("reset-before-answer", "reset")):
            if plan.has(name):
                _break(request, ending)
                return web.Response(), False
        headers = CIMultiDict((("Content-Type", answer.content_type), *answer.headers))
        if isinstance(answer, Answer) and not plan.faults:
            return web.Response(body=answer.body, status=answer.status, headers=headers), True
        played = script.write(answer, plan)
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = played.length
        try:
            await response.prepare(request)
            await self._send(response, played.pieces, plan)
            if played.ending == "stall":
                await self._wait(plan.stall_seconds)
            if played.ending == "end":
                await response.write_eof()
            else:
                _break(request, played.ending)
        except ConnectionError:  # the client left, and this was noticed before its cancellation came
            return response, False
        return response, played.ending == "end"

    async def _send(self, response: web.StreamResponse, pieces: Sequence[bytes], plan: Plan) -> None:
        usual = 0.0 if plan.has("split") else self._pace_seconds
        pace = plan.seconds("pace", usual) if plan.has("pace") else usual
        for at, piece in enumerate(pieces):
            if at and pace:
                await asyncio.sleep(pace)
            await response.write(piece)

    async def _wait(self, seconds: float) -> None:
        """Waits, but not for longer than the sandbox is open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


def _break(request: web.Request, ending: str) -> None:
    """Ends the connection where it stands: what was written is still sent, unless it is reset."""
    if request.transport is not None:
        if ending == "reset":
            request.transport.abort()
        else:
            request.transport.close()


async def _without_server(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001  # aiohttp's signature
    """Bedrock does not name its server."""
    response.headers.pop("Server", None)
