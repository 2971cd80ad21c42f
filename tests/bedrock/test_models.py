"""What model ids mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.models import GEOGRAPHIES, ModelKind, ModelRef, base_model, geography, model_ref

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ACCOUNT = "123456789012"


def arn(resource: str, *, account: str = ACCOUNT, partition: str = "aws", region: str = "us-west-2") -> str:
    return f"arn:{partition}:bedrock:{region}:{account}:{resource}"


@pytest.mark.parametrize(
    "model",
    [
        SONNET,
        "amazon.titan-embed-text-v2:0",
        "deepseek.v3.2",
        "mistral.mistral-7b-instruct-v0:2",
        "openai.gpt-oss-120b-1:0",
        "anthropic.claude-opus-5",
        "anthropic.claude-3-haiku-20240307-v1:0:200k",
        "us-gov-like.model",
    ],
)
def test_a_foundation_model_is_itself_and_has_no_geography(model: str) -> None:
    assert model_ref(model) == ModelRef(model, ModelKind.FOUNDATION, model)


@pytest.mark.parametrize("place", sorted(GEOGRAPHIES))
def test_a_geography_prefix_is_told_from_the_model(place: str) -> None:
    assert base_model(f"{place}.{SONNET}") == SONNET
    assert geography(f"{place}.{SONNET}") == place
    assert model_ref(f"{place}.{SONNET}").kind is ModelKind.INFERENCE_PROFILE


@pytest.mark.parametrize(
    ("partition", "region"), [("aws", "eu-west-1"), ("aws-us-gov", "us-gov-west-1"), ("aws-cn", "cn-north-1")]
)
def test_a_foundation_model_arn_is_its_model_in_every_partition(partition: str, region: str) -> None:
    model = arn(f"foundation-model/{SONNET}", account="", partition=partition, region=region)
    assert model_ref(model) == ModelRef(model, ModelKind.FOUNDATION, SONNET, region=region)


def test_an_inference_profile_arn_is_its_profiles_model() -> None:
    model = arn(f"inference-profile/us.{SONNET}")
    assert model_ref(model) == ModelRef(model, ModelKind.INFERENCE_PROFILE, SONNET, "us", "us-west-2", ACCOUNT)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (arn("application-inference-profile/abcdef123456"), ModelKind.APPLICATION_INFERENCE_PROFILE),
        (arn(f"application-inference-profile/us.{SONNET}"), ModelKind.APPLICATION_INFERENCE_PROFILE),
        (arn("provisioned-model/abcdef123456"), ModelKind.PROVISIONED),
        (arn("custom-model/amazon.titan/abcdef123456"), ModelKind.CUSTOM),
        (arn("custom-model-deployment/abcdef123456"), ModelKind.CUSTOM_DEPLOYMENT),
        (arn("imported-model/abcdef123456"), ModelKind.IMPORTED),
        (arn("prompt/ABCDEFGHIJ:12"), ModelKind.PROMPT),
        (arn("prompt-router/x.y:1"), ModelKind.PROMPT_ROUTER),
        (arn("default-prompt-router/anthropic.claude:1"), ModelKind.PROMPT_ROUTER),
        (f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/mine", ModelKind.SAGEMAKER_ENDPOINT),
    ],
)
def test_what_does_not_say_its_model_stands_for_itself(model: str, kind: ModelKind) -> None:
    ref = model_ref(model)
    assert (ref.kind, ref.base, ref.geography, ref.resolved) == (kind, model, None, False)
    assert ref.account == ACCOUNT


@pytest.mark.parametrize(
    "model",
    [
        "",
        "abcdef123456",
        "my_custom_name",
        "us.",
        "us.model",
        f"us.eu.{SONNET}",
        f"US.{SONNET}",
        f"mars.{SONNET}/x",
        f"foundation-model/{SONNET}",
        f"us.{SONNET} ",
        f"us.{SONNET}\n",
        f"%75s.{SONNET}",
        arn(f"foundation-model/us.{SONNET}", account=""),
        arn(f"foundation-model/{SONNET}"),
        arn(f"foundation-model/{SONNET}/x", account=""),
        arn(f"foundation-model/{SONNET}\n", account=""),
        arn(f"inference-profile/{SONNET}"),
        arn("inference-profile/abc"),
        arn(f"inference-profile/x/us.{SONNET}"),
        arn(f"unheard-of/{SONNET}"),
        f"arn:aws:sagemaker:us-east-1::foundation-model/{SONNET}",
        f"arn:awsome:bedrock:us-east-1::foundation-model/{SONNET}",
        f"ARN:aws:bedrock:us-east-1::foundation-model/{SONNET}",
        f"us.{SONNET}" + "x" * 2048,
    ],
)
def test_what_is_not_understood_passes_for_no_other_model(model: str) -> None:
    assert (model_ref(model).kind, base_model(model), geography(model)) == (ModelKind.OTHER, model, None)


@given(st.text() | st.from_regex(r"((us|eu|global)\.){0,3}[a-z]{1,4}(\.[a-z0-9:]{1,4}){0,2}"))
def test_a_base_model_is_its_own_base_and_a_tail_of_what_was_given(model: str) -> None:
    base = base_model(model)
    assert base_model(base) == base
    assert model.endswith(base)
