"""Which model an application inference profile stands for: asked of Bedrock's control plane, off the path.

The ARN of such a profile says nothing about its model, and the answers of its calls name none. The first call
that uses one starts a look-up (`bedrock:GetInferenceProfile`); what comes back is kept. Nobody waits for it but a
key with lists or limits of models, whose admission depends on the answer. ARNs come from clients, who could make up
any number of them: how many look-ups begin is bounded, and what was found is not kept where what was missed is.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetInferenceProfile.html
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

import msgspec

from passthrough.bedrock.endpoints import region_of_arn
from passthrough.bedrock.models import ModelKind, base_model, model_ref
from passthrough.errors import Refusal, UpstreamFailure
from passthrough.policy.buckets import TokenBucket
from passthrough.proxy.headers import Forwarded
from passthrough.proxy.outgoing import EMPTY_SHA256, Compose, Payload
from passthrough.proxy.route import route
from passthrough.wire.fetch import fetch
from passthrough.wire.pool import Pool

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

LOOK_UP_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024  # a profile lists its models, a handful
MAX_AT_ONCE = 16
# Look-ups of a worker, in a second and at once. A cautious choice: no quota of AWS's names GetInferenceProfile, and
# whatever its rate is, the account's other users share it. A start with 40 profiles in use does not wait; with
# several hundred, keys with a model list are asked to try again for a minute or two, and then not for an hour.
LOOK_UPS_A_SECOND = 2.0
LOOK_UPS_AT_ONCE = 40
RESERVED = 20  # of those, for calls that cannot be admitted without an answer
KEPT = 4096  # of those found, and as many of those missed
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
        self._found: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._missed: OrderedDict[str, float] = OrderedDict()
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._pace = TokenBucket(at_once=LOOK_UPS_AT_ONCE, a_second=LOOK_UPS_A_SECOND, now=clock())

    def known(self, model: str) -> str | None:
        """The model behind a profile's ARN, if that is known by now. Never waits."""
        found = self._found.get(model)
        return found[0] if found else None

    def look_up(self, model: str) -> None:
        """Begin to find out, unless it is known, under way, no such profile, or too much is asked already."""
        if self._is_due(model) and self._has_room(RESERVED):
            self._ask(model)

    async def resolve(self, model: str) -> str | None:
        """Wait for the answer; None when nobody can tell. Raises a 429 when it may not be asked for now."""
        if self._is_due(model):
            if self._has_room(0):
                self._ask(model)
            elif model not in self._found:  # what was found long ago will do
                raise Refusal(
                    429,
                    "ThrottlingException",
                    "Too many unknown inference profiles are asked for, so what this one stands for cannot be "
                    "looked up: try again in a few seconds.",
                    headers={"Retry-After": "2"},
                )
        if model in self._asked:
            await asyncio.wait([self._asked[model]])
        return self.known(model)

    def _is_due(self, model: str) -> bool:
        if model_ref(model).kind is not ModelKind.APPLICATION_INFERENCE_PROFILE or region_of_arn(model) is None:
            return False
        now = self._clock()
        found, missed_until = self._found.get(model), self._missed.get(model, now)
        return model not in self._asked and now >= missed_until and (found is None or now >= found[1])

    def _has_room(self, reserved: int) -> bool:
        """Whether one more look-up may begin and leave `reserved` to others; counts it then."""
        return len(self._asked) < MAX_AT_ONCE and self._pace.take(self._clock(), leaving=reserved)

    def _ask(self, model: str) -> None:
        self._asked[model] = self._group.create_task(self._find(model), name="inference-profile")

    async def _find(self, model: str) -> None:
        stands_for: str | None = None
        answered = False
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                stands_for = await self._fetch(model)
            answered = True
        except (Refusal, UpstreamFailure, TimeoutError, msgspec.DecodeError) as error:
            _log.warning("an inference profile cannot be resolved", extra={"profile": model, "cause": str(error)})
        finally:
            self._asked.pop(model, None)
        until = self._clock()
        if stands_for:
            _keep(self._found, model, (stands_for, until + FOUND_SECONDS))
        else:
            if answered:  # else what was found long ago will do
                _log.warning("there is no such inference profile, or it has several models", extra={"profile": model})
                self._found.pop(model, None)
            _keep(self._missed, model, until + MISSED_SECONDS)

    async def _fetch(self, model: str) -> str | None:
        """The model; None where AWS says that there is no such profile, or lists more than one model."""
        call = route("GET", "/bedrock/inference-profiles/" + quote(model, safe=""))
        region = region_of_arn(model)
        assert region is not None  # noqa: S101  # else it was not due
        payload = Payload(b"", 0, EMPTY_SHA256, hash_is_the_clients=False)
        asked = self._compose("GET", call, region, Forwarded(b"", []), payload)
        head, body = await fetch(self._pool, asked.address, asked.head, most_bytes=MAX_ANSWER_BYTES)
        if head.status == 404:  # noqa: PLR2004  # ResourceNotFoundException
            return None
        if head.status != 200:  # noqa: PLR2004  # anything else has no profile in it
            raise UpstreamFailure(f"GetInferenceProfile answered {head.status}")
        return _model_of([listed.modelArn for listed in msgspec.json.decode(body, type=_Profile).models])


@asynccontextmanager
async def profiles(compose: Compose, pool: Pool, clock: Callable[[], float]) -> AsyncIterator[Profiles]:
    """Own the look-ups."""
    async with asyncio.TaskGroup() as group:
        found = Profiles(compose, pool, group, clock)
        yield found
        for task in tuple(found._asked.values()):  # noqa: SLF001  # its owner
            task.cancel()


def _keep(kept: OrderedDict[str, _T], model: str, value: _T) -> None:
    kept[model] = value
    kept.move_to_end(model)
    if len(kept) > KEPT:
        kept.popitem(last=False)


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
