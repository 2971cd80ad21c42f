"""Which model an application inference profile stands for: asked of Bedrock's control plane, off the path.

The ARN of such a profile says nothing about its model, and the answers of its calls name none. The first call
that uses one starts a look-up (`bedrock:GetInferenceProfile`); what comes back is kept. Nobody waits for it but a
key with a model list, whose admission depends on the answer.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetInferenceProfile.html
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import msgspec

from passthrough.bedrock.endpoints import region_of_arn
from passthrough.bedrock.models import ModelKind, base_model, model_ref
from passthrough.errors import Refusal, UpstreamFailure
from passthrough.proxy.headers import Forwarded
from passthrough.proxy.outgoing import EMPTY_SHA256, Compose, Outgoing, Payload
from passthrough.proxy.route import route
from passthrough.wire.connection import Head
from passthrough.wire.pool import Pool

_log = logging.getLogger(__name__)

LOOK_UP_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024  # a profile lists its models, a handful
MAX_AT_ONCE = 16  # ARNs come from clients: a flood of them must not become one at AWS
KEPT = 4096
FOUND_SECONDS = 3600.0  # a profile's models never change, but it can be deleted and made anew
MISSED_SECONDS = 60.0

# First part of the regions of a cross-region profile → its geography, as in system-defined profile ids.
_GEOGRAPHIES = {"us": "us", "eu": "eu", "ap": "apac", "ca": "ca"}


class _Listed(msgspec.Struct):
    modelArn: str  # noqa: N815  # AWS's name


class _Profile(msgspec.Struct):
    models: list[_Listed]


class Profiles:
    """What profiles stand for; open it with `profiles`. `clock` is monotonic, in seconds."""

    def __init__(self, compose: Compose, pool: Pool, group: asyncio.TaskGroup, clock: Callable[[], float]) -> None:
        self._compose = compose
        self._pool = pool
        self._group = group
        self._clock = clock
        self._found: OrderedDict[str, tuple[str | None, float]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[str | None]] = {}

    def known(self, model: str) -> str | None:
        """The model behind a profile's ARN, if that is known by now. Never waits."""
        found = self._found.get(model)
        return found[0] if found else None

    def look_up(self, model: str) -> None:
        """Begin to find out, unless it is known, under way, no such profile, or too much is asked already."""
        if self._is_unknown(model):
            _ = self._ask(model)  # its group owns it

    async def resolve(self, model: str) -> str | None:
        """Wait for the answer; None when nobody can tell."""
        if self._is_unknown(model):
            await asyncio.wait([self._ask(model)])
        elif model in self._asked:
            await asyncio.wait([self._asked[model]])
        return self.known(model)

    def _is_unknown(self, model: str) -> bool:
        if model_ref(model).kind is not ModelKind.APPLICATION_INFERENCE_PROFILE or model in self._asked:
            return False
        found = self._found.get(model)
        return (found is None or self._clock() >= found[1]) and len(self._asked) < MAX_AT_ONCE

    def _ask(self, model: str) -> "asyncio.Task[str | None]":
        task = self._asked[model] = self._group.create_task(self._find(model), name="inference-profile")
        return task

    async def _find(self, model: str) -> str | None:
        stands_for: str | None = None
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                stands_for = await self._fetch(model)
        except (Refusal, UpstreamFailure, TimeoutError, msgspec.DecodeError) as error:
            _log.warning("an inference profile cannot be resolved", extra={"profile": model, "cause": str(error)})
        finally:
            self._asked.pop(model, None)
        self._found[model] = stands_for, self._clock() + (FOUND_SECONDS if stands_for else MISSED_SECONDS)
        if len(self._found) > KEPT:
            self._found.popitem(last=False)
        return stands_for

    async def _fetch(self, model: str) -> str | None:
        call = route("GET", "/bedrock/inference-profiles/" + quote(model, safe=""))
        region = region_of_arn(model)
        if region is None:
            return None
        payload = Payload(b"", 0, EMPTY_SHA256, hash_is_the_clients=False)
        status, body = await self._exchange(self._compose("GET", call, region, Forwarded([], []), payload))
        if status != 200:  # noqa: PLR2004  # anything else has no profile in it
            raise UpstreamFailure(f"GetInferenceProfile answered {status}")
        return _model_of([listed.modelArn for listed in msgspec.json.decode(body, type=_Profile).models])

    async def _exchange(self, outgoing: Outgoing) -> tuple[int, bytes]:
        connection = await self._pool.acquire(outgoing.address, fresh=True)
        answer = _Answer()
        connection.start(answer, outgoing.head)
        try:
            return await answer.whole
        except BaseException:
            connection.abandon()
            raise


class _Answer:
    """Takes in a small answer (a `wire.connection.Receiver`)."""

    def __init__(self) -> None:
        self.whole: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body = b""

    def head_received(self, head: Head) -> None:
        self._status = head.status

    def body_received(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_ANSWER_BYTES:
            self.failed(UpstreamFailure("the answer is too long"))

    def completed(self) -> None:
        if not self.whole.done():
            self.whole.set_result((self._status, self._body))

    def failed(self, error: UpstreamFailure) -> None:
        if not self.whole.done():
            self.whole.set_exception(error)

    def flush(self) -> None:
        """Nothing goes on to anybody."""


@asynccontextmanager
async def profiles(compose: Compose, pool: Pool, clock: Callable[[], float]) -> AsyncIterator[Profiles]:
    """Own the look-ups."""
    async with asyncio.TaskGroup() as group:
        found = Profiles(compose, pool, group, clock)
        yield found
        for task in tuple(found._asked.values()):  # noqa: SLF001  # its owner
            task.cancel()


def _model_of(arns: list[str]) -> str | None:
    """The model of a profile's ARNs: as a system-defined profile's id where it spans regions, because prices do."""
    bases = {base_model(arn) for arn in arns}
    if len(bases) != 1:
        return None
    base = bases.pop()
    regions = {region for arn in arns if (region := region_of_arn(arn))}
    if len(arns) == 1:
        return base
    parts = {_GEOGRAPHIES.get(region.partition("-")[0]) for region in regions}
    geography = parts.pop() if len(parts) == 1 else None
    return f"{geography or 'global'}.{base}"
