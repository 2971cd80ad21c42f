"""Whether the call may be made, and where it goes: the key's own state, its lists, the region."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol
from urllib.parse import quote

import msgspec

from passthrough.bedrock.endpoints import is_region, region_of_arn
from passthrough.bedrock.operations import Body, Call
from passthrough.errors import invalid
from passthrough.policy import access
from passthrough.policy.allowance_holds import Hold
from passthrough.policy.customers import Customer, bound
from passthrough.policy.keys import VirtualKey, admit_key
from passthrough.policy.ledger import Entry

PROFILE = "application-inference-profile"
REGION_HEADER = "x-passthrough-region"


class Profiles(Protocol):
    """Finds the model that an application inference profile stands for."""

    def look_up(self, model: str) -> None: ...
    async def resolve(self, model: str) -> str | None: ...


class Limits(Protocol):
    """Reserves of every limit that a call has what it can use at most.

    `reserve` decides at once, or returns None: then `acquire` has to be awaited, which raises the `Refusal` of
    the limit that is reached. `body` is None where only its length is known yet. A hold is settled with the
    call's entry when the call has truly ended; `header_lines` tells the client what is left. `reads_body` tells
    whether it may matter what a call's body asks for, because it has to be held to limits.
    """

    def reads_body(self, key: VirtualKey, entry: Entry) -> bool: ...
    def reserve(self, key: VirtualKey, entry: Entry, call: Call, body: Body | None, length: int) -> Hold | None: ...
    async def acquire(self, key: VirtualKey, entry: Entry, call: Call, body: Body | None, length: int) -> Hold: ...
    def header_lines(self, hold: Hold, model: str | None) -> bytes: ...


class Admission(msgspec.Struct, frozen=True, gc=False):
    """A call that may be made, in `region`; `check` judges its body, if `needs_body`."""

    key: VirtualKey
    call: Call
    region: str
    needs_body: bool

    def check(self, body: Body) -> None:
        if self.needs_body:
            access.check_body(self.key, self.call, body)


class Admit:
    """Step 3. `clock` gives seconds since 1970; `customers` knows the end users who are restricted."""

    def __init__(
        self,
        *,
        default_region: str,
        profiles: Profiles,
        customers: Callable[[str], Customer | None],
        clock: Callable[[], float],
    ) -> None:
        self._default_region = default_region
        self._profiles = profiles
        self._customers = customers
        self._clock = clock

    async def __call__(
        self,
        key: VirtualKey,
        call: Call,
        *,
        scope_region: str | None,
        headers: Mapping[str, str],
        end_user: str | None,
    ) -> Admission:
        """Raises the `Refusal` that applies first: the key's state, then what it may do."""
        if end_user:
            key = bound(key, self._customers(end_user))
        admit_key(key, self._clock())
        access.check_operation(key, call)
        access.check_headers(key, call, headers)
        asked = call.model
        if asked is not None and asked in key.aliases:
            call = _in_place_of_alias(call, key.aliases[asked])
            access.check_model(key, call, asked)  # the list may name the alias as well as the model
        else:
            stands_for = await self._stands_for(key, asked) if asked is not None and PROFILE in asked else None
            access.check_model(key, call, stands_for)
        region = self._region(key, call, scope_region, headers)
        access.check_region(key, region, call.labels.values())
        if key.needs_end_user and not end_user:
            raise invalid("The virtual key asks for the end user: send x-litellm-customer-id.", param="user")
        return Admission(key, call, region, access.needs_body(key, call))

    async def _stands_for(self, key: VirtualKey, profile: str) -> str | None:
        """What a profile stands for: known for a key that is judged by it, else begun to be found out."""
        if not access.is_listed(key, profile) or any(limit.model for limit in key.limits):
            return await self._profiles.resolve(profile)
        self._profiles.look_up(profile)
        return None

    def _region(self, key: VirtualKey, call: Call, scope_region: str | None, headers: Mapping[str, str]) -> str:
        """The first that is told: by an ARN of the path, the key, the client's signature, its header."""
        if call.region_hint:
            return call.region_hint
        if key.region:
            return key.region
        if scope_region and is_region(scope_region):
            return scope_region
        asked = headers.get(REGION_HEADER)
        if asked:
            if not is_region(asked):
                raise invalid(f"{REGION_HEADER} names no region of AWS: send one such as eu-west-1.")
            return asked
        return self._default_region


def _in_place_of_alias(call: Call, model: str) -> Call:
    """Put a model in place of its alias: the only bytes of a path that ever change."""
    place = "{modelId}"
    if place not in call.operation.uri:  # an operation nobody lists: where its model stands is not known
        return call
    return replace(
        call,
        path=call.operation.uri.replace(place, quote(model, safe="")),
        labels={**call.labels, "modelId": model},
        model=model,
        resource=model,
        region_hint=region_of_arn(model),
    )
