"""Admission: what is refused, and where a call goes that is not."""

from collections.abc import Mapping
from typing import Any

import pytest

from passthrough.errors import Refusal
from passthrough.policy.customers import Customer
from passthrough.policy.keys import VirtualKey
from passthrough.proxy.admit import Admission, Admit
from passthrough.proxy.route import route

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
NOW = 1_800_000_000.0


class NoProfiles:
    """A resolver that knows nothing."""

    def look_up(self, model: str) -> None:
        pass

    async def resolve(self, model: str) -> str | None:  # noqa: ARG002  # the interface
        return None


CUSTOMERS = {
    "blocked": Customer("blocked", blocked=True),
    "limited": Customer("limited", models=("amazon.*",)),
}


async def admitted(
    path: str = f"/model/{HAIKU}/converse",
    *,
    scope_region: str | None = None,
    headers: Mapping[str, str] | None = None,
    end_user: str | None = None,
    **fields: Any,
) -> Admission:
    admit = Admit(default_region="us-east-1", profiles=NoProfiles(), customers=CUSTOMERS.get, clock=lambda: NOW)
    key = VirtualKey(key_id="k", **fields)
    return await admit(
        key, route("POST", "/bedrock" + path), scope_region=scope_region, headers=headers or {}, end_user=end_user
    )


ARN = "arn:aws:bedrock:eu-central-1:123456789012:provisioned-model/p"


@pytest.mark.parametrize(
    ("path", "pinned", "scope", "header", "region"),
    [
        (f"/model/{ARN}/converse", "us-west-2", "eu-west-1", "ap-south-1", "eu-central-1"),
        (f"/model/{HAIKU}/converse", "us-west-2", "eu-west-1", "ap-south-1", "us-west-2"),
        (f"/model/{HAIKU}/converse", None, "eu-west-1", "ap-south-1", "eu-west-1"),
        (f"/model/{HAIKU}/converse", None, "nowhere-1", "ap-south-1", "ap-south-1"),
        (f"/model/{HAIKU}/converse", None, None, "ap-south-1", "ap-south-1"),
        (f"/model/{HAIKU}/converse", None, None, None, "us-east-1"),
    ],
    ids=["arn", "pinned", "scope", "scope of no region", "header", "default"],
)
async def test_the_region_is_the_first_that_is_told(
    path: str, pinned: str | None, scope: str | None, header: str | None, region: str
) -> None:
    headers = {"x-passthrough-region": header} if header else {}
    assert (await admitted(path, region=pinned, scope_region=scope, headers=headers)).region == region


@pytest.mark.parametrize("region", ["evil.example/#", "us-east-1.evil", "US-EAST-1", "nowhere-1", "aws-global"])
async def test_a_header_that_names_no_region_is_refused(region: str) -> None:
    with pytest.raises(Refusal) as caught:
        await admitted(headers={"x-passthrough-region": region})
    assert (caught.value.status, caught.value.code) == (400, "ValidationException")


async def test_a_region_that_the_key_may_not_use_is_refused_wherever_it_was_told() -> None:
    with pytest.raises(Refusal, match="eu-central-1"):
        await admitted(f"/model/{ARN}/converse", allowed_regions=("us-*",))


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"blocked": True}, "blocked"), ({"expires_at": NOW}, "expired"), ({"expires_at": NOW - 1}, "expired")],
)
async def test_a_key_that_may_not_be_used_says_why(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        await admitted(**fields)
    assert caught.value.status == 401


async def test_a_key_is_good_until_the_moment_it_expires() -> None:
    assert (await admitted(expires_at=NOW + 0.001)).key.key_id == "k"


async def test_an_end_user_can_be_asked_for() -> None:
    with pytest.raises(Refusal, match="x-litellm-customer-id"):
        await admitted(needs_end_user=True)
    assert (await admitted(needs_end_user=True, end_user="u")).key.needs_end_user


async def test_an_alias_is_replaced_by_what_it_stands_for_and_nothing_else_is() -> None:
    admission = await admitted("/model/fast/converse-stream?x=%2F", aliases={"fast": HAIKU})
    assert admission.call.path == "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse-stream"
    assert (admission.call.query, admission.call.model) == ("x=%2F", HAIKU)


async def test_an_alias_for_an_arn_brings_its_region() -> None:
    assert (await admitted("/model/mine/invoke", aliases={"mine": ARN}, region="us-west-2")).region == "eu-central-1"


@pytest.mark.parametrize(("models", "allowed"), [(("anthropic.*",), True), (("fast",), True), (("amazon.*",), False)])
async def test_an_alias_is_judged_by_its_name_and_by_its_model(models: tuple[str, ...], *, allowed: bool) -> None:
    fields: dict[str, Any] = {"aliases": {"fast": HAIKU}, "models": models, "model_lists": (models,)}
    if allowed:
        assert (await admitted("/model/fast/converse", **fields)).call.model == HAIKU
    else:
        with pytest.raises(Refusal):
            await admitted("/model/fast/converse", **fields)


async def test_an_alias_in_an_operation_nobody_knows_is_left_alone() -> None:
    call = (await admitted("/model/fast/of-tomorrow", aliases={"fast": HAIKU})).call
    assert (call.path, call.model) == ("/model/fast/of-tomorrow", "fast")


async def test_what_binds_the_end_user_binds_the_call() -> None:
    with pytest.raises(Refusal, match="customer is blocked") as caught:
        await admitted(end_user="blocked")
    assert caught.value.status == 401
    with pytest.raises(Refusal, match="may not use") as caught:
        await admitted(end_user="limited", models=("anthropic.*",), model_lists=(("anthropic.*",),))
    assert caught.value.status == 403
    assert (await admitted(end_user="anybody")).key.key_id == "k"


async def test_an_arn_of_a_path_whose_region_nobody_lists_is_no_way_round_allowed_regions() -> None:
    path = f"/model/{ARN.replace('eu-central-1', 'us-nowhere-9')}/converse"
    assert (await admitted(path)).region == "us-east-1"
    with pytest.raises(Refusal, match="us-nowhere-9"):
        await admitted(path, allowed_regions=("us-east-1",))
