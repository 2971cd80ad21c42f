"""The services that hand out temporary AWS credentials, as far as botocore's chain speaks to them.

Instance metadata (version 2), the container credentials of ECS and EKS, STS and the SSO portal, on one port.
It runs on the test's own event loop: a look-up that blocked the loop would wait for an answer that can never
come.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from aiohttp import web

ROLE = "a-role"
_STS_ANSWER = """<{0}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{0}Result><Credentials>
<AccessKeyId>{1}</AccessKeyId><SecretAccessKey>{2}</SecretAccessKey><SessionToken>{3}</SessionToken>
<Expiration>{4}</Expiration></Credentials></{0}Result></{0}Response>"""


def _in_hours(hours: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(hours=hours)


@dataclass(frozen=True)
class Keys:
    """One generation of credentials; `number` tells them apart."""

    number: int = 1
    expires: datetime = field(default_factory=lambda: _in_hours(6))

    @property
    def access_key(self) -> str:
        return f"ASIAEXAMPLE{self.number:05}"

    @property
    def secret_key(self) -> str:
        return f"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPL{self.number:04}"

    @property
    def token(self) -> str:
        return f"IQoJb3JpZ2luX2VjEXAMPLE{self.number:04}" + "aB3/" * 30

    @property
    def expires_text(self) -> str:
        return self.expires.strftime("%Y-%m-%dT%H:%M:%SZ")


class MetadataService:
    """Answers with `keys`, and `status` if that is not 200, once `gate` is open; `requests` counts by path."""

    def __init__(self) -> None:
        self.keys = Keys()
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests: Counter[str] = Counter()
        self._asked = asyncio.Event()
        self._runner = web.AppRunner(self._app(), shutdown_timeout=0)

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_put("/latest/api/token", self._metadata_token)
        app.router.add_get("/latest/meta-data/iam/security-credentials/", self._role)
        app.router.add_get(f"/latest/meta-data/iam/security-credentials/{ROLE}", self._metadata)
        app.router.add_get("/container", self._container)
        app.router.add_post("/", self._sts)
        app.router.add_get("/federation/credentials", self._sso)
        return app

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        await self._runner.cleanup()

    def close_gate(self) -> None:
        """Hold every answer from now on, and forget who asked before."""
        self.gate.clear()
        self._asked.clear()

    async def asked(self) -> None:
        """Wait for a request to arrive after the gate was closed last."""
        await self._asked.wait()

    async def _enter(self, request: web.Request) -> None:
        self.requests[request.path] += 1
        self._asked.set()
        await self.gate.wait()
        if self.status != 200:
            error = web.HTTPInternalServerError(text="not now")
            error.set_status(self.status)
            raise error

    async def _metadata_token(self, request: web.Request) -> web.Response:
        await self._enter(request)
        assert request.headers["x-aws-ec2-metadata-token-ttl-seconds"]
        return web.Response(text="metadata-token")

    async def _role(self, request: web.Request) -> web.Response:
        assert request.headers["x-aws-ec2-metadata-token"] == "metadata-token"
        return web.Response(text=ROLE)

    async def _metadata(self, request: web.Request) -> web.Response:
        assert request.headers["x-aws-ec2-metadata-token"] == "metadata-token"
        return web.json_response({"Code": "Success", "Type": "AWS-HMAC", **self._members()})

    async def _container(self, request: web.Request) -> web.Response:
        await self._enter(request)
        assert request.headers["Authorization"] == "container-token"
        return web.json_response(self._members())

    async def _sts(self, request: web.Request) -> web.Response:
        await self._enter(request)
        action = str((await request.post())["Action"])
        keys = self.keys
        text = _STS_ANSWER.format(action, keys.access_key, keys.secret_key, keys.token, keys.expires_text)
        return web.Response(text=text, content_type="text/xml")

    async def _sso(self, request: web.Request) -> web.Response:
        await self._enter(request)
        assert request.headers["x-amz-sso_bearer_token"] == "sso-token"
        keys = self.keys
        members = {
            "accessKeyId": keys.access_key,
            "secretAccessKey": keys.secret_key,
            "sessionToken": keys.token,
            "expiration": int(keys.expires.timestamp() * 1000),
        }
        return web.json_response({"roleCredentials": members})

    def _members(self) -> dict[str, str]:
        keys = self.keys
        return {
            "AccessKeyId": keys.access_key,
            "SecretAccessKey": keys.secret_key,
            "Token": keys.token,
            "Expiration": keys.expires_text,
        }
