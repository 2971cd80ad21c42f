"""One route of the admin API: who may call it, what it takes, what it answers, and how it says no.

A route is a value (`Endpoint`); serving and the OpenAPI document are made from the same value, so that the one
cannot promise what the other does not do. Authorisation is decided on the raw path: a path that only reads like a
route of ours once it is decoded is none.
"""

import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal, Protocol

import msgspec
from aiohttp import web

from passthrough.admin.reading import read_body, read_query
from passthrough.errors import Refusal
from passthrough.policy.keys import VirtualKey, admit_key
from passthrough.storage.audit import Actor

Access = Literal["anyone", "admin", "own"]
"""`own`: the administrator, and a virtual key about itself."""


class Caller(Protocol):
    """Who was authenticated."""

    @property
    def key(self) -> VirtualKey: ...


Authenticate = Callable[[Mapping[str, str]], Awaitable[Caller]]
"""Finds the caller by the request's headers; raises a `Refusal` for none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a handler is given. `body` and `query` are of the endpoint's types, `parts` the path's parameters.

    `accept` is the header of this name, for the few answers that come in several forms.
    """

    body: Any  # of Endpoint.body
    query: Any  # of Endpoint.query
    parts: Mapping[str, str]
    key: VirtualKey
    actor: Actor
    accept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`answer` is the type of the answer, a bare `web.StreamResponse` where the handler answers by itself.

    `refuses` are the statuses, with what they mean, that this endpoint has beside everybody's.
    """

    method: str
    path: str
    handle: Callable[[Asked], Awaitable[Any]]
    summary: str
    answer: Any = None
    body: Any = None
    query: Any = None
    access: Access = "admin"
    refuses: Mapping[int, str] = field(default_factory=dict)
    tag: str = ""


class Refused(msgspec.Struct, kw_only=True):
    """What went wrong, as LiteLLM says it: `param` names the field, `code` is the status as text."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(msgspec.Struct, kw_only=True):
    """The body of every answer that is not a success."""

    error: Refused


class Server:
    """Serves one path: finds the endpoint by method, authenticates, reads, calls, answers.

    `obeyed` is awaited between a change and its answer; `failed` is told of exceptions that are bugs of ours.
    """

    def __init__(
        self,
        path: str,
        endpoints: Sequence[Endpoint],
        *,
        authenticate: Authenticate,
        clock: Callable[[], float],
        obeyed: Callable[[], Awaitable[None]],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._methods = {endpoint.method: endpoint for endpoint in endpoints}
        self._shown = path  # a request's own path may hold a key
        self._path = _path_pattern(path)
        self._authenticate = authenticate
        self._clock = clock
        self._obeyed = obeyed
        self._failed = failed

    async def serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._serve(request)
        except Refusal as refusal:
            return refused(refusal)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001  # a bug of ours: its text may name values, the log says the rest
            self._failed(self._shown, error)
            return refused(Refusal(500, "", "passthrough failed to do this; its log says why."))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        parts = self._path.fullmatch(request.raw_path.partition("?")[0])
        if parts is None:
            raise Refusal(404, "", "There is nothing at this path: write it without percent-encoding.")
        endpoint = self._methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            allowed = ", ".join(sorted(self._methods))
            raise Refusal(405, "", f"This path takes {allowed}.", headers={"Allow": allowed})
        key = await self._caller(request, endpoint)
        actor = Actor(_changed_by(request, key), request.remote)
        query = read_query(request, endpoint.query)
        body = await read_body(request, endpoint.body)
        named = {name: urllib.parse.unquote(part) for name, part in parts.groupdict().items()}
        answer = await endpoint.handle(Asked(body, query, named, key, actor, request.headers.get("Accept", "")))
        if endpoint.method != "GET":
            await self._obeyed()
        return answer if isinstance(answer, web.StreamResponse) else answered(answer)

    async def _caller(self, request: web.Request, endpoint: Endpoint) -> VirtualKey:
        if endpoint.access == "anyone":
            return VirtualKey(key_id="")
        key = (await self._authenticate(request.headers)).key
        admit_key(key, self._clock())
        if endpoint.access == "admin" and not key.is_master:
            raise Refusal(403, "", "Only the administrator may do this: send the master key.")
        return key


def answered(value: Any, status: int = 200) -> web.Response:  # anything that msgspec encodes
    """An answer in JSON; decimals are written as numbers, digit by digit."""
    return web.Response(body=_ENCODER.encode(value), status=status, content_type="application/json", charset="utf-8")


def refused(refusal: Refusal) -> web.Response:
    """The answer to what is not done."""
    kind = _TYPES.get(refusal.status, "bad_request_error")
    error = Refused(message=refusal.message, type=kind, param=refusal.param, code=str(refusal.status))
    response = answered(ErrorAnswer(error=error), refusal.status)
    response.headers.update(refusal.headers)
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
_TYPES: Final = {
    401: "auth_error",
    403: "auth_error",
    404: "not_found_error",
    405: "method_not_allowed",
    500: "internal_server_error",
    503: "no_db_connection",
}


def _path_pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))


def _changed_by(request: web.Request, key: VirtualKey) -> str:
    """LiteLLM's header for the person behind the master key."""
    named = request.headers.get("litellm-changed-by", "").strip()
    return "".join(letter for letter in named if letter.isprintable())[:200] or key.key_alias or key.key_name
