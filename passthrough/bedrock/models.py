"""What a model id means: which kind of thing it names, in which geography, and which model that is.

Allow-lists and prices ask. Forms as in botocore's `InvokeModelIdentifier` and `ConversationalModelId`, and
https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html for the profiles. What
is not understood stands for itself, so that no form, however odd, passes for a model that it does not run.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

# Ids of system-defined inference profiles begin with one of these. From AWS's user guide (page above) and
# the CDK's CrossRegionInferenceProfileRegion; `ca` and `in` as ListInferenceProfiles answers in ca-central-1
# (`ca.amazon.nova-lite-v1:0`) and ap-south-1 (`in.anthropic.claude-sonnet-5`). One that AWS adds later is not
# stripped: its models are then in no list and have no price until the name is added here.
GEOGRAPHIES: Final = frozenset({"apac", "au", "ca", "eu", "global", "in", "jp", "us", "us-gov"})

LONGEST_ID: Final = 2048  # botocore: `max` of InvokeModelIdentifier
_KEPT: Final = 1024  # ids understood and kept: with the bound above, 2 MB at worst


class ModelKind(StrEnum):
    """What an id names."""

    FOUNDATION = "foundation-model"
    INFERENCE_PROFILE = "inference-profile"
    APPLICATION_INFERENCE_PROFILE = "application-inference-profile"
    PROVISIONED = "provisioned-model"
    CUSTOM = "custom-model"
    CUSTOM_DEPLOYMENT = "custom-model-deployment"
    IMPORTED = "imported-model"
    PROMPT = "prompt"
    PROMPT_ROUTER = "prompt-router"
    SAGEMAKER_ENDPOINT = "endpoint"
    OTHER = "other"  # a bare name or an ARN that we do not know


_SAY_THEIR_MODEL: Final = frozenset({ModelKind.FOUNDATION, ModelKind.INFERENCE_PROFILE})


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model id, understood.

    `base` is the foundation model where the id itself says which it is, else the id as given. `geography` is
    set for system-defined inference profiles, `region` and `account` where an ARN has them.
    """

    given: str
    kind: ModelKind
    base: str
    geography: str | None = None
    region: str | None = None
    account: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether `base` is a model; if not, only AWS knows what runs (a profile, a router) or it is its own."""
        return self.kind in _SAY_THEIR_MODEL


_ARN: Final = re.compile(
    r"arn:aws(?:-[a-z-]+)?:(?P<service>bedrock|sagemaker):(?P<region>[a-z0-9-]{0,20}):(?P<account>[0-9]{12})?"
    r":(?P<type>[a-z-]+)/(?P<id>[A-Za-z0-9._:/-]+)"
)
# Provider, a dot, the rest; no slash, so that no ARN fragment passes for a model.
_FOUNDATION_ID: Final = re.compile(r"[a-z0-9-]+\.[A-Za-z0-9._:-]+")

_KINDS: Final[Mapping[tuple[str, str], ModelKind]] = MappingProxyType(
    {("bedrock", kind.value): kind for kind in ModelKind if kind not in {ModelKind.SAGEMAKER_ENDPOINT, ModelKind.OTHER}}
    | {
        ("bedrock", "default-prompt-router"): ModelKind.PROMPT_ROUTER,
        ("sagemaker", "endpoint"): ModelKind.SAGEMAKER_ENDPOINT,
    }
)


def base_model(model: str) -> str:
    """Give the model that an id stands for: without geography, foundation-model ARN or inference-profile ARN.

    `us.anthropic.x` and `arn:aws:bedrock:us-east-1::foundation-model/anthropic.x` are `anthropic.x`; an id
    that does not say its model (application profile, prompt, router, custom model…) is returned as given.
    """
    return model_ref(model).base


def geography(model: str) -> str | None:
    """`us` of `us.anthropic.x` and of the inference-profile ARN that ends in it; None for all else."""
    return model_ref(model).geography


def model_ref(model: str) -> ModelRef:
    """Understand a model id, unquoted. Never fails: what it does not know is `ModelKind.OTHER`."""
    # Bodies name models too, of any length: those are not worth keeping.
    return _understood(model) if len(model) <= LONGEST_ID else ModelRef(model, ModelKind.OTHER, model)


@lru_cache(maxsize=_KEPT)
def _understood(model: str) -> ModelRef:
    arn = _ARN.fullmatch(model)
    if arn is None:
        place, base = _split(model)
        if base is None:
            return ModelRef(model, ModelKind.OTHER, model)
        return ModelRef(model, ModelKind.INFERENCE_PROFILE if place else ModelKind.FOUNDATION, base, place)
    kind = _KINDS.get((arn["service"], arn["type"]), ModelKind.OTHER)
    place, base = _split(arn["id"]) if kind in _SAY_THEIR_MODEL else (None, None)
    # As AWS writes them: a profile has a geography, a foundation model has none and is nobody's.
    as_written = base and (place if kind is ModelKind.INFERENCE_PROFILE else not place and not arn["account"])
    if kind in _SAY_THEIR_MODEL and not as_written:
        kind, place, base = ModelKind.OTHER, None, None
    return ModelRef(model, kind, base or model, place, arn["region"] or None, arn["account"])


def _split(name: str) -> tuple[str | None, str | None]:
    """Geography and foundation model of an id; (None, None) if it is no such id."""
    place, _, rest = name.partition(".")
    if place not in GEOGRAPHIES:
        return None, name if _FOUNDATION_ID.fullmatch(name) else None
    # A geography twice is nothing that AWS has.
    known = _FOUNDATION_ID.fullmatch(rest) and rest.partition(".")[0] not in GEOGRAPHIES
    return (place, rest) if known else (None, None)
