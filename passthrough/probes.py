"""What an orchestrator asks: alive? ready? and the metrics.

Ready means that a call could be served now: not starting, not draining, and nothing that every call needs
is missing. Each reason not to be ready is a function that gives a word, or None.
"""

import hmac
from collections.abc import Callable, Sequence

from aiohttp import web

Reason = Callable[[], str | None]


class Probes:
    """Routes under `/health`, and `/metrics`, which asks for `metrics_token` as a bearer token if it is set."""

    def __init__(
        self,
        *,
        reasons: Sequence[Reason],
        exposition: Callable[[], bytes],
        metrics_token: str | None,
        content_type: str,
    ) -> None:
        self._reasons = reasons
        self._exposition = exposition
        self._token = metrics_token
        self._content_type = content_type

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health/liveliness", self._alive),
            web.get("/health/liveness", self._alive),
            web.get("/health/readiness", self._ready),
            web.get("/metrics", self._metrics),
        ]

    async def _alive(self, request: web.Request) -> web.Response:  # noqa: ARG002  # the interface of a handler
        return web.json_response({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:  # noqa: ARG002  # the interface of a handler
        found = [reason for ask in self._reasons if (reason := ask())]
        if found:
            return web.json_response({"status": "not ready", "reasons": found}, status=503)
        return web.json_response({"status": "ready"})

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._token is not None:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
                return web.json_response({"error": {"message": "The metrics token is missing or wrong."}}, status=401)
        return web.Response(body=self._exposition(), headers={"Content-Type": self._content_type})
